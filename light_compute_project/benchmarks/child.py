"""What every child module of ours does around its one function: a job in, a result out, both JSON.

python light_compute_project/benchmarks/run_child.py MODULE JOB.json RESULT.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import EnvironmentProblem

RUN_CHILD = Path(__file__).with_name("run_child.py")
JOB, RESULT = "job.json", "result.json"


def child_command(module: str, job: dict[str, Any], *, folder: Path) -> list[str]:
    """Write the job into the folder, and the command that carries it out there; `spawned_at` becomes the job's."""
    (folder / JOB).write_text(json.dumps({**job, "spawned_at": time.time()}, indent=1), encoding="utf-8")
    return [sys.executable, str(RUN_CHILD), module, JOB, RESULT]


def child_result(folder: Path, *, name: str) -> dict[str, Any]:
    """What the child wrote.

    Raises:
        EnvironmentProblem: It is not there or not readable.
    """
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{name} left no readable result: {error}") from None
    return result


def carry_out(function: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """In the child: read the job, call, write the result."""
    result = function(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


def time_generations(
    generate: Callable[[int], int], *, new_tokens: int, repeats: int, spawned_at: float
) -> dict[str, Any]:
    """Time whole generations, prompt included, and the first token alone.

    Args:
        generate: Number of tokens wanted -> number made.
        new_tokens: Of a whole generation.
        repeats: Whole generations.
        spawned_at: `time.time()` just before this process was started.

    Returns:
        `start_to_first_s`, `warm_up_s` (the first whole generation, compiling included), and for each repeat
        `first_s` and `total_s`; `new_tokens` as they were made.
    """
    generate(1)
    start_to_first = time.time() - spawned_at
    started = time.perf_counter()
    generate(new_tokens)
    warm_up = time.perf_counter() - started
    first, total, made = [], [], []
    for _ in range(repeats):
        started = time.perf_counter()
        generate(1)
        first.append(time.perf_counter() - started)
        started = time.perf_counter()
        made.append(generate(new_tokens))
        total.append(time.perf_counter() - started)
    return {
        "start_to_first_s": start_to_first,
        "warm_up_s": warm_up,
        "first_s": first,
        "total_s": total,
        "new_tokens": made,
    }
