"""datatrove's job arrays on a real SLURM give the bytes of the local engine: also when tasks are put back into the
queue or killed, and when the waiting process is; no job is left.

Nightly: it installs datatrove's environment.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.trove_corpus import (
    TOKENIZER,
    contents,
    datatrove_installed,
    script,
    settings,
    text,
    write_corpus,
)

from litgpt_core.core.errors import DataError
from litgpt_core.data.prepare import PreparedData, prepare
from litgpt_core.data.stream_settings import RowsSettings

pytestmark = [pytest.mark.nightly, pytest.mark.serial, pytest.mark.timeout(900)]
OPTIONS = {"partition": "two", "time": "10:00", "mem_per_cpu_gb": 1, "workers": 3}


@pytest.fixture(scope="module", autouse=True)
def queue(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The cluster, which this process reaches like a person at a login node; and datatrove's environment."""
    with datatrove_installed(tmp_path_factory.mktemp("engine")), pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.for_shell.items():
            patch.setenv(name, value)
        yield cluster


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 16 chunks of 30 kB; some documents are there twice."""
    rng = random.Random(1)
    texts = [text(rng, 100) for _ in range(800)]
    return write_corpus(tmp_path_factory.mktemp("corpus") / "rows", [*texts, *texts[:12]])


@pytest.fixture(scope="module")
def local(corpus: Path) -> PreparedData:
    return prepare(settings(corpus, "local"), TOKENIZER)


def on_slurm(folder: Path, cache: str, **changes: Any) -> RowsSettings:
    return settings(folder, cache, engine="datatrove", executor="slurm", **{"slurm": OPTIONS, **changes})


def jobs(cluster: Any) -> list[tuple[str, str]]:
    """(number, state) of every task in the queue; those of an array that wait stand in one line."""
    lines = cluster.run("squeue", "-h", "-o", "%i %t").stdout.splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines]


def test_near_duplicates_are_those_of_this_machine(queue: Any, corpus: Path) -> None:
    """Four stages, of which each waits for the one before it."""
    changes = {"near_duplicates": "remove"}
    found = prepare(on_slurm(corpus, "slurm-near", **changes), TOKENIZER)
    here = prepare(settings(corpus, "here-near", engine="datatrove", **changes), TOKENIZER)
    assert found.meta["near_duplicates_left_out"] == 12
    assert contents(found) == contents(here) and not jobs(queue)


def test_tasks_that_return_to_the_queue_and_a_killed_process_change_no_byte(
    queue: Any, corpus: Path, local: PreparedData, until: Callable[..., None], tmp_path: Path
) -> None:
    mine = on_slurm(corpus, "slurm")
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen([sys.executable, "-P", "-c", script(mine)], stdout=log, stderr=log)

    def done() -> list[str]:
        return [path.name for path in corpus.parent.glob("slurm/.*.work/chunk-*.json")]

    def running() -> list[str]:
        assert process.poll() is None, (tmp_path / "log").read_text()
        return [number for number, state in jobs(queue) if state == "R"]

    until(lambda: len(done()) >= 2 and running(), "the first chunks", seconds=200, look=lambda: jobs(queue))
    put_back = running()[-1]
    queue.run("scontrol", "requeue", put_back)
    queue.let_it_return(put_back)
    until(lambda: len(done()) >= 5, "chunks after that", seconds=200, look=lambda: jobs(queue))
    assert running()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(done())
    found = prepare(mine, TOKENIZER)  # cancels what is left of the first start
    assert 5 <= before < len(local.shards("train"))
    assert contents(found) == contents(local) and found.fingerprint == local.fingerprint
    assert not jobs(queue)


def test_a_task_that_is_killed_is_named_and_the_same_command_continues(
    queue: Any, corpus: Path, local: PreparedData, until: Callable[..., None], tmp_path: Path
) -> None:
    mine = on_slurm(corpus, "killed")
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen([sys.executable, "-P", "-c", script(mine)], stdout=log, stderr=log)
    until(lambda: [state for _, state in jobs(queue) if state == "R"], "a task", seconds=120)
    victim = next(number for number, state in jobs(queue) if state == "R")
    queue.run("scancel", "--signal=KILL", "--full", victim)
    assert process.wait(timeout=300) == 1
    said = (tmp_path / "log").read_text()
    assert "1 task(s) failed" in said and "the same command continues" in said, said
    assert not jobs(queue)
    assert contents(prepare(mine, TOKENIZER)) == contents(local)


def test_a_queue_that_refuses_is_told(queue: Any, corpus: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)[Ii]nvalid partition.*sbatch did not take the job"):
        prepare(on_slurm(corpus, "refused", slurm={**OPTIONS, "partition": "nowhere"}), TOKENIZER)
    assert not jobs(queue)
