"""The tasks of `data.engine=datatrove`. This module runs in datatrove's own environment, under its executors:

    signatures -> buckets -> clusters -> shards        with near_duplicates=remove: MinHash in datatrove's four stages
    shards                                             else; task k reads chunk k and writes its files (`chunk_shards`)

The reader and the files are those of the local engine, so the bytes are; executors, completion markers, logs and
MinHash are datatrove's. A task is a chunk: one that is killed is done again from its beginning. Not here: the
environment and the process that waits (`datatrove_engine`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from litgpt_core.core.checkout import PACKAGE_DIR
from litgpt_core.core.errors import LightComputeError
from litgpt_core.core.files import write_json
from litgpt_core.core.parsing import ParsingError, read_json
from litgpt_core.data.stream.chunk_shards import finished_facts, itemsize_of, tokenize_chunk
from litgpt_core.data.stream.datatrove_plan import ERRORS, DatatrovePlan
from litgpt_core.data.stream.pool import ONE_THREAD
from litgpt_core.data.stream.readers import ReadReport
from litgpt_core.tokenizers.registry import load as load_tokenizer

POLL_S = 1.0
GONE_S = 10.0
"""After which a job that is not in the queue, and has not left its markers, has failed."""
_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W_]+")
"""A run of letters and digits; a character where scripts have no spaces."""


def words(text: str) -> list[str]:
    """The words that five-grams are made of."""
    return _WORD.findall(text)


class Documents:
    """Pipeline step: the documents of chunk `rank`, numbered."""

    def __init__(self, plan: Path) -> None:
        self.plan = plan

    def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Any]:
        """Yields datatrove's documents."""
        plan = DatatrovePlan.read(self.plan)
        with _for_the_user(plan, rank):
            yield from _documents(plan.job.reader.read(plan.chunks[rank], ReadReport()))


class Shards:
    """Pipeline step, alone in its pipeline: the files of chunk `rank`; nothing if they exist.

    Args:
        plan: The file.
        removals: Folder of what datatrove's clusters leave out; None: every document is kept.
    """

    def __init__(self, plan: Path, removals: Path | None) -> None:
        self.plan, self.removals = plan, removals

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        """Tokenizes."""
        plan = DatatrovePlan.read(self.plan)
        chunk = plan.chunks[rank]
        with _for_the_user(plan, rank):
            tokenizer = load_tokenizer(plan.job.work / "tokenizer")
            if finished_facts(plan.job.work, chunk, itemsize=itemsize_of(tokenizer)) is not None:
                return
            tokenize_chunk(plan.job, chunk, tokenizer, kept=None if self.removals is None else self._kept(rank))

    def _kept(self, rank: int) -> Any:
        from datatrove.pipeline.dedup import MinhashDedupFilter

        keeps = MinhashDedupFilter(input_folder=str(self.removals))
        return lambda texts: (document.text for document in keeps.run(_documents(texts), rank))


def _documents(texts: Iterable[str]) -> Iterator[Any]:
    from datatrove.data import Document

    return (Document(text=text, id=str(number)) for number, text in enumerate(texts))


@contextlib.contextmanager
def _for_the_user(plan: DatatrovePlan, rank: int) -> Iterator[None]:
    """Notes an error that is meant for the person at the keyboard where the waiting process finds it."""
    try:
        yield
    except LightComputeError as error:
        said = {"given": error.given, "needed": error.needed, "fix": error.fix}
        write_json(plan.folder / ERRORS / f"task-{rank:05d}.json", {"kind": type(error).__name__, **said})
        raise


# ---- executors


def stages(plan: DatatrovePlan) -> list[tuple[str, list[Any], int]]:
    """(name, pipeline, tasks) of each stage."""
    if plan.data.near_duplicates == "keep":
        return [("shards", [Shards(plan.path, None)], len(plan.chunks))]
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class PlainWords(WordTokenizer):  # type: ignore[misc]
        """Of any language."""

        def word_tokenize(self, text: str) -> list[str]:
            return words(text)

        sent_tokenize = span_tokenize = word_tokenize

    config = MinhashConfig()
    signatures, pairs, removals = (str(plan.folder / name) for name in ("signatures", "pairs", "removals"))
    signing = MinhashDedupSignature(output_folder=signatures, config=config, language=PlainWords())
    finding = MinhashDedupBuckets(input_folder=signatures, output_folder=pairs, config=config)
    clustering = MinhashDedupCluster(input_folder=pairs, output_folder=removals, config=config)
    return [
        ("signatures", [Documents(plan.path), signing], len(plan.chunks)),
        ("buckets", [finding], config.num_buckets),
        ("clusters", [clustering], 1),
        ("shards", [Shards(plan.path, Path(removals))], len(plan.chunks)),
    ]


def run_here(plan: DatatrovePlan) -> None:
    """One stage after the other, `plan.workers` tasks at a time."""
    from datatrove.executor import LocalPipelineExecutor

    for name, pipeline, tasks in stages(plan):
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=min(plan.workers, tasks), logging_dir=str(plan.folder / name)
        ).run()


def run_on_slurm(plan: DatatrovePlan) -> None:
    """Submit the stages as job arrays that wait for each other, and wait for them; cancel them if this process is ended
    early. Jobs that an earlier start left in the queue are cancelled first.
    """
    from datatrove.executor import SlurmPipelineExecutor

    options = {key.replace("_", "-"): value for key, value in plan.data.slurm.items()}
    partition, limit = str(options.pop("partition")), str(options.pop("time", "24:00:00"))
    cores, memory = int(options.pop("cpus-per-task", 1)), int(options.pop("mem-per-cpu-gb", 2))
    at_once = int(options.pop("workers", -1))
    record = plan.folder / "jobs.json"
    _cancel(_recorded(record))
    executors: list[Any] = []
    for name, pipeline, tasks in stages(plan):
        executor = SlurmPipelineExecutor(
            pipeline=pipeline,
            tasks=tasks,
            time=limit,
            partition=partition,
            cpus_per_task=cores,
            mem_per_cpu_gb=memory,
            workers=at_once,
            job_name=f"{plan.data.name}-{name}",
            qos=str(options.get("qos", "")),
            env_command=_environment(),
            sbatch_args={key: value for key, value in options.items() if key != "qos"},
            depends=executors[-1] if executors else None,
            logging_dir=str(plan.folder / name),
        )
        executor.launch_merge_stats = _nothing
        executors.append(executor)
    try:
        try:
            executors[-1].launch_job()
        except subprocess.CalledProcessError as problem:  # it has said why
            raise SystemExit(f"{problem.cmd[0]} did not take the job: it ended with {problem.returncode}") from None
        write_json(record, [str(each.job_id) for each in executors])
        _wait(executors)
    finally:
        _cancel([str(each.job_id) for each in executors if each.job_id not in (None, -1)])


def run_on_ray(plan: DatatrovePlan) -> None:
    """One stage after the other as tasks of a Ray cluster: the one at `ray.address`, else one of this machine that is
    started for it and ends with this process.

    Raises:
        SystemExit: Tasks failed; the message says which, and where their logs are.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before ray is imported: nothing is reported to its authors
    import ray
    from datatrove.executor import RayPipelineExecutor

    options = dict(plan.data.ray)
    variables = {"PYTHONPATH": str(PACKAGE_DIR.parent), **ONE_THREAD}
    address = options.get("address")
    here: dict[str, Any] = {} if address else {"include_dashboard": False}
    ray.init(address=address, runtime_env={"env_vars": variables}, log_to_driver=False, **here)
    signal.signal(signal.SIGTERM, _end_at_once)
    try:
        for name, pipeline, tasks in stages(plan):
            executor = RayPipelineExecutor(
                pipeline=pipeline,
                tasks=tasks,
                workers=int(options.get("workers", -1)),
                cpus_per_task=int(options.get("cpus_per_task", 1)),
                mem_per_cpu_gb=float(options.get("mem_per_cpu_gb", 1)),
                logging_dir=str(plan.folder / name),
            )
            executor.run()
            if left := executor.get_incomplete_ranks(skip_completed=True):
                raise SystemExit(
                    f"{name}: {len(left)} task(s) failed, the first is {left[0]}; their logs are in "
                    f"{plan.folder / name / 'logs'}"
                )
    finally:
        ray.shutdown()


def _end_at_once(number: int, frame: object) -> None:
    """With every process of a Ray of this machine, some of which would look for their parent for a minute. The tasks of
    a cluster end when it misses this process.
    """
    if os.getpgrp() == os.getpid():  # the engine has started it in a session of its own
        os.killpg(0, signal.SIGKILL)
    os._exit(143)


def _nothing() -> None:
    """In place of a further job that adds statistics up."""


def _environment() -> str:
    """Shell lines by which a job on any node finds this environment and this code."""
    values = {"PATH": f"{Path(sys.executable).parent}:$PATH", "PYTHONPATH": shlex.quote(str(PACKAGE_DIR.parent))}
    values |= ONE_THREAD
    return "unset PYTHONDONTWRITEBYTECODE; " + "; ".join(f"export {key}={value}" for key, value in values.items())


def _wait(executors: list[Any]) -> None:
    missing_since: float | None = None
    while waiting := [each for each in executors if each.get_incomplete_ranks(skip_completed=True)]:
        if _in_queue(str(waiting[0].job_id)):
            missing_since = None
        else:
            missing_since = missing_since or time.monotonic()
            if time.monotonic() - missing_since > GONE_S:
                left = waiting[0].get_incomplete_ranks(skip_completed=True)
                raise SystemExit(
                    f"{waiting[0].job_name}: {len(left)} task(s) failed, the first is {left[0]}; their output is in "
                    f"{waiting[0].slurm_logs_folder}"
                )
        time.sleep(POLL_S)


def _in_queue(job: str) -> bool:
    done = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


def _recorded(record: Path) -> list[str]:
    try:
        return [str(job) for job in read_json(record)]
    except (OSError, ParsingError):
        return []


def _cancel(jobs: Iterable[str]) -> None:
    """Cancel the jobs that are still in the queue, and wait until they are gone."""
    left = [job for job in jobs if job.isdigit() and _in_queue(job)]
    if left:
        subprocess.run(["scancel", *left], check=False)
    end = time.monotonic() + 60
    while left and time.monotonic() < end:
        left = [job for job in left if _in_queue(job)]
        time.sleep(POLL_S / 4)


def main() -> None:
    """`datatrove_tasks PLAN`: run the plan until all shards are there."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    os.environ.update(ONE_THREAD)
    plan = DatatrovePlan.read(Path(sys.argv[1]))
    {"local": run_here, "slurm": run_on_slurm, "ray": run_on_ray}[plan.data.executor](plan)
