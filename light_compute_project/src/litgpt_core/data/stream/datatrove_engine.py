"""`data.engine=datatrove`: datatrove's executors make the shards, here, on SLURM or on Ray, instead of `pool`.

datatrove's requirements and this project's exclude each other, so it has an environment of its own, in the folder of
prepared data, where the nodes of a cluster find it as well: made by uv once, from exact versions with hashes
(`datatrove.txt`; `datatrove-ray.txt` with Ray). `LIGHT_COMPUTE_DATATROVE` names the Python of another. Here a process
of it is started and watched; what it does is in `datatrove_tasks`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from litgpt_core.core import errors
from litgpt_core.core.checkout import PACKAGE_DIR
from litgpt_core.core.child_process import ChildProcess
from litgpt_core.core.errors import DataError, EnvironmentProblem, LightComputeError
from litgpt_core.core.lock import exclusive
from litgpt_core.core.parsing import read_json
from litgpt_core.core.uv import find_uv
from litgpt_core.data.settings import cache_folder
from litgpt_core.data.stream.chunk_shards import ChunkFacts, ShardJob, facts_path, finished_facts
from litgpt_core.data.stream.chunks import Chunk
from litgpt_core.data.stream.datatrove_plan import ERRORS, FOLDER, DatatrovePlan
from litgpt_core.data.stream_settings import RowsSettings

logger = logging.getLogger(__name__)

VARIABLE = "LIGHT_COMPUTE_DATATROVE"
PINS = Path(__file__).with_name("datatrove.txt")
RAY_PINS = Path(__file__).with_name("datatrove-ray.txt")
"""With Ray, which is larger than all the others together."""
POLL_S = 0.3
STOP_S = 90.0
"""Within which the process cancels its jobs."""
_START = "from litgpt_core.data.stream.datatrove_tasks import main; main()"


def tokenize_with_datatrove(
    data: RowsSettings,
    job: ShardJob,
    chunks: Sequence[Chunk],
    left: Sequence[Chunk],
    *,
    itemsize: int,
    workers: int,
    progress: Callable[[ChunkFacts], None],
) -> Iterator[ChunkFacts]:
    """The facts of every chunk that was `left`, as they are finished; as `pool.tokenize_all`.

    Raises:
        EnvironmentProblem: The environment cannot be made.
        DataError, TokenizerError: What a task said, or that some failed, with the place of their logs.
    """
    if not left:
        return
    plan = DatatrovePlan(folder=job.work / FOLDER, data=data, job=job, chunks=list(chunks), workers=workers)
    plan.folder.mkdir(exist_ok=True)
    plan.write()
    for chunk in left:  # a marker whose files are gone
        (plan.folder / "shards" / "completions" / f"{chunk.number:05d}").unlink(missing_ok=True)
    shutil.rmtree(plan.folder / ERRORS, ignore_errors=True)
    pins = RAY_PINS if data.executor == "ray" else PINS
    python, output = datatrove_python(cache_folder(data), pins), plan.folder / "output.log"
    logger.info(
        "data %s: datatrove (%s), %s tasks; its logs are in %s", data.name, data.executor, len(left), plan.folder
    )
    child = ChildProcess(
        [str(python), "-P", "-c", _START, str(plan.path)],
        name="datatrove",
        output=output,
        environment={"PYTHONPATH": str(PACKAGE_DIR.parent)},
        without=("PYTHONDONTWRITEBYTECODE", "PYTHONHOME"),
    )
    waiting = {chunk.number: chunk for chunk in left}
    try:
        while True:
            code = child.returncode()
            for facts in _finished(job.work, waiting, itemsize=itemsize):
                progress(facts)
                yield facts
            if code is not None:
                break
            time.sleep(POLL_S)
    finally:
        _end(child)
    if code or waiting:
        raise _problem(plan, output, len(waiting))


def _finished(work: Path, waiting: dict[int, Chunk], *, itemsize: int) -> Iterator[ChunkFacts]:
    """Those of the chunks that are done; they no longer wait."""
    there = {path.name for path in work.glob("chunk-*.json")}
    for number in [number for number in waiting if facts_path(work, number).name in there]:
        facts = finished_facts(work, waiting[number], itemsize=itemsize)
        if facts is not None:
            del waiting[number]
            yield facts


def _end(child: ChildProcess) -> None:
    """If it still runs: let it cancel its jobs, then kill it."""
    child.stop(grace_s=STOP_S)
    while child.returncode() is None:
        time.sleep(POLL_S)
    child.kill()


def _problem(plan: DatatrovePlan, output: Path, missing: int) -> LightComputeError:
    """The first error that a task left for the person at the keyboard, else the last lines of the output."""
    for path in sorted((plan.folder / ERRORS).glob("task-*.json")):
        said = read_json(path)
        kind: type[LightComputeError] = getattr(errors, said.pop("kind"), DataError)
        return kind(said["given"], needed=said["needed"], fix=said["fix"])
    last = "\n".join(output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:])
    return DataError(
        f"datatrove ended before {missing:,} chunk(s) were done; its last lines:\n{last}",
        needed="tasks that succeed",
        fix=f"look into {plan.folder}; the same command continues",
    )


def datatrove_python(folder: Path, pins: Path = PINS) -> Path:
    """The Python of datatrove's environment in this folder, which is made if it is not there.

    Args:
        folder: Of prepared data.
        pins: What is installed.

    Raises:
        EnvironmentProblem: There is no uv, or the packages cannot be installed.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given)
    key = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    place = folder.absolute() / f".datatrove-{key}"
    python, complete = place / "bin" / "python", place / "complete"
    if complete.is_file():
        return python
    with exclusive(folder / f".datatrove-{key}.lock", purpose="installing datatrove", keep=True):
        if not complete.is_file():
            uv = find_uv("datatrove", variable=VARIABLE, example="/path/to/environment/bin/python")
            logger.info("data: installing datatrove into %s", place)
            _uv(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(place))
            _uv(uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(pins))
            complete.touch()
    return python


def _uv(*command: str) -> None:
    """Not as part of this project, whose constraints are others."""
    done = subprocess.run([*command, "--no-config"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentProblem(
            f"datatrove cannot be installed: uv ended with {done.returncode}: {done.stderr.strip()[-800:]}",
            needed="a package index, once",
            fix=f"{VARIABLE}=/path/to/environment/bin/python, with the packages of {PINS.name}",
        )
