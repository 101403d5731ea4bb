"""One function of `children/` in a measured process of its own: a job goes in and a result comes out, both JSON."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import child_environment, run_measured
from benchmarks.runner import Measurement, RunSpec
from litgpt_core.core.errors import EnvironmentProblem

RUN_CHILD = Path(__file__).with_name("run_child.py")
JOB, RESULT = "job.json", "result.json"


def child_command(function: str, job: Mapping[str, Any], *, folder: Path) -> list[str]:
    """Write the job into the folder and return the command that runs it there.

    Args:
        function: `module:function` of `children/`.
        job: Its argument; `spawned_at`, the time of this call, is added.
        folder: The working directory of the process.
    """
    (folder / JOB).write_text(json.dumps({**job, "spawned_at": time.time()}, indent=1), encoding="utf-8")
    return [sys.executable, str(RUN_CHILD), function, JOB, RESULT]


def child_result(folder: Path, *, name: str) -> dict[str, Any]:
    """The result that the process wrote.

    Raises:
        EnvironmentProblem: It is missing or not readable.
    """
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{name} left no readable result: {error}") from None
    return result


def run_child(
    function: str, job: Mapping[str, Any], *, folder: Path, threads: int, name: str, timeout_s: float = 600
) -> dict[str, Any]:
    """Run the function to its end in `folder`, which is created if absent; its result.

    Raises:
        EnvironmentProblem: The process failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = child_command(function, job, folder=folder)
    run_measured(command, folder=folder, environment=child_environment(threads), timeout_s=timeout_s, name=name)
    return child_result(folder, name=name)


def read_generations(result: dict[str, Any], *, precision: str, name: str) -> Measurement:
    """The result of `children.timing.time_generations`.

    Raises:
        EnvironmentProblem: Numbers are missing, or generations stopped early.
    """
    try:
        total, generated = result["total_s"], result["new_tokens"]
        known = ("start_to_first_s", "load_to_first_s", "warm_up_s")
        numbers = {key: float(result[key]) for key in known if key in result}
        numbers["first_token_s"] = statistics.median(result["first_s"])
        rate = statistics.median(n / s for n, s in zip(generated, total, strict=True))
    except (KeyError, ValueError, ZeroDivisionError, statistics.StatisticsError) as error:
        raise EnvironmentProblem(f"{name} left an incomplete result: {error!r}") from None
    if len(set(generated)) != 1:
        raise EnvironmentProblem(f"{name} generated {generated} tokens", needed="the same number each time")
    batch = int(result.get("batch", 1))
    numbers["batch"] = float(batch)
    decoding = statistics.median(s - f for s, f in zip(total, result["first_s"], strict=True))
    if decoding > 0:  # noise can exceed a generation of a few tokens
        numbers["decode_tokens_per_s"] = (generated[0] - batch) / decoding
    return Measurement(tokens_per_s=rate, precision=precision, numbers=numbers, raw=total)


def child_spec(
    function: str,
    job: Mapping[str, Any],
    *,
    label: str,
    describes: str,
    read: Callable[[dict[str, Any]], Measurement],
    ours: bool = False,
    environment: Mapping[str, str] | None = None,
    files: Sequence[Path] = (),
) -> RunSpec:
    """A program that is a function of `children/`.

    Args:
        function: `module:function`.
        job: Its argument.
        label: Name in tables.
        describes: See `RunSpec`.
        read: The function's result -> what was measured.
        ours: See `RunSpec`.
        environment: Variables for this program alone.
        files: Copied into the trial's folder first.
    """

    def command(folder: Path) -> list[str]:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        return child_command(function, job, folder=folder)

    return RunSpec(
        label=label,
        ours=ours,
        describes=describes,
        command=command,
        read=lambda folder, output: read(child_result(folder, name=label)),
        environment=environment or {},
    )
