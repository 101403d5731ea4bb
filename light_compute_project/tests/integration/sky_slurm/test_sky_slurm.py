"""Rentals with the real SkyPilot on a real SLURM, as a user types them: up, fetch, watch, down, ledger. No account.

Nightly: it installs SkyPilot, and waits for the deadlines of machines, which are five minutes at least.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import USER_CACHE
from tests.integration.sky_slurm.far_cluster import GPU, FarCluster
from tests.integration.slurm.cluster import wait_for

from litgpt_core.core.command_line import child_command
from litgpt_core.deploy.rental.ledger import Ledger, RentalState
from litgpt_core.deploy.rental.request import NODE_SHARE
from litgpt_core.deploy.rental.skypilot import SkyPilot

pytestmark = [pytest.mark.nightly, pytest.mark.serial, pytest.mark.timeout(1800)]

EXACT = [  # longer than `sky launch` goes on after the training has begun: 3 minutes on 2 fast cores
    "+experiment=smoke",
    "trainer=deterministic",
    "trainer.accelerator=cpu",
    "trainer.max_steps=2000",
    "trainer.log_interval=1",
    "trainer.eval_interval=500",
    "trainer.eval_tokens=2048",
    "trainer.save_interval=1000000",
    "trainer.save_every=2s",
    "trainer.global_batch_size=32",
    "trainer.micro_batch_size=32",
    "trainer.sample_tokens=0",
    "model.dropout=0.1",
    "logger=none",
]
ENDLESS = [*EXACT, "trainer.max_steps=1000000", "trainer.log_interval=100", "trainer.eval_interval=1000000"]
POLL = ["--poll", "5s", "--pull_every", "1s"]
TRACE_KEYS = ("step", "tokens", "train_loss", "val_loss", "val_bpb", "lr", "grad_norm")


def install(python: str) -> str:
    """The shell line that "installs" on a node: a Python of this machine with the code that travelled."""
    start = f'env PYTHONPATH="%s"/light_compute_project/src XDG_CACHE_HOME={USER_CACHE} OMP_NUM_THREADS=1 {python}'
    text = f'#!/bin/sh\\nexec {start} "$@"\\n'
    return f"mkdir -p .venv/bin && printf '{text}' \"$PWD\" > .venv/bin/python && chmod +x .venv/bin/python"


def words_of(far: FarCluster, name: str, training: list[str], *options: str, setup: str = "") -> list[str]:
    """`lcp deploy up` of a run on this far cluster."""
    where = ["--prices", str(far.folder / "prices.yaml"), "--gpu", f"{GPU}:1", "--disk", "1", "--dirty", "--yes"]
    setup = setup or install(child_command("")[0])
    given = [f"run.name={name}", f"run.dir={far.folder}/runs", f"data.cache_dir={far.folder}/data"]
    return child_command(
        "deploy", "up", *training, *given, *where, "--setup", setup, "--setup_minutes", "1", *POLL, *options
    )


def deploy(far: FarCluster, *words: str) -> subprocess.CompletedProcess[str]:
    return far.run(*child_command("deploy", *words))


def rows(far: FarCluster, run: str) -> list[tuple[Any, ...]]:
    lines = (far.folder / "runs" / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [tuple(json.loads(line)[key] for key in TRACE_KEYS) for line in lines]


def state_of(far: FarCluster, run: str) -> RentalState:
    """The rental of a run, as the ledger has it."""
    return Ledger(far.folder / "rentals" / "ledger.jsonl").find(run)


def checkpoints(far: FarCluster, run: str) -> list[int]:
    """Steps of the checkpoints of a run that are on the laptop."""
    return sorted(int(path.name[5:]) for path in (far.folder / "runs" / run / "checkpoints").glob("step-*"))


def wait_for_checkpoint(far: FarCluster, run: str, up: subprocess.Popen[bytes], log: Path) -> None:
    """Until a checkpoint of a run is on the laptop, while its `up` goes on."""

    def here() -> bool:
        assert up.poll() is None, f"{log.read_text()}\n{far.consoles()}"
        return bool(checkpoints(far, run))

    wait_for(here, f"a checkpoint of {run} is here", seconds=500, look=log.read_text)


def nothing_is_left(far: FarCluster) -> None:
    """No job, no folder of a machine, no cluster that SkyPilot knows, no process of a rental."""
    assert not far.jobs()
    wait_for(
        lambda: not far.node_folders(),
        "a folder is left on a node",
        look=lambda: f"{far.node_folders()}\n{far.consoles()}\n{far.tree()}",
    )
    assert "lcp-" not in far.sky("status", "--refresh")
    for words in (("deploy", "guard"), ("litgpt_core", "train"), ("node.sh",)):
        wait_for(lambda words=words: not far.processes(*words), f"a process is left: {words}", look=far.tree)


def note(what: str, begin: float) -> None:
    """A measured time, for `pytest -s` and the report of a failure."""
    print(f"measured: {what}: {time.monotonic() - begin:.0f} s")


@pytest.fixture
def log(far: FarCluster, request: pytest.FixtureRequest) -> Path:
    return far.folder / f"{request.node.name[:40]}.log"


def test_a_training_is_fetched_and_ended_by_hand_and_nothing_is_left(far: FarCluster, log: Path) -> None:
    begin = time.monotonic()
    up = far.start_command(*words_of(far, "hand", ENDLESS), log=log)
    wait_for_checkpoint(far, "hand", up, log)
    note("up until the first checkpoint is here", begin)
    before = checkpoints(far, "hand")[-1]
    fetched = deploy(far, "fetch", "hand")
    assert fetched.returncode == 0 and checkpoints(far, "hand")[-1] > before, fetched.stdout + fetched.stderr
    begin = time.monotonic()
    down = deploy(far, "down", "hand")
    note("down", begin)
    assert down.returncode == 0 and "SkyPilot has no machine of it" in down.stdout, down.stdout + down.stderr
    assert up.wait(timeout=120) == 1 and "ended by hand" in log.read_text()
    nothing_is_left(far)
    assert deploy(far, "down", "hand").returncode == 0, "down twice is fine"
    assert "no rental is open" in deploy(far, "down", "--all").stdout


@pytest.fixture(scope="module")
def whole(far: FarCluster) -> list[tuple[Any, ...]]:
    """The trace of the run that nobody disturbs, on the laptop."""
    folders = [f"run.dir={far.folder}/runs", f"data.cache_dir={far.folder}/data"]
    done = far.run(*child_command("train", *EXACT, *folders, "run.name=whole"), seconds=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return rows(far, "whole")


def test_a_machine_that_is_taken_away_is_replaced_and_the_run_is_bit_equal(
    far: FarCluster, whole: list[tuple[Any, ...]], log: Path
) -> None:
    up = far.start_command(*words_of(far, "taken", EXACT), log=log)
    wait_for_checkpoint(far, "taken", up, log)
    [job] = far.jobs("taken")
    far.run("scancel", job)
    begin = time.monotonic()
    wait_for(lambda: not state_of(far, "taken").open_machines, "the preemption is noticed", seconds=200)
    note("preemption until it is in the ledger", begin)
    kept = checkpoints(far, "taken")[-1]
    assert 0 < kept < 2000 and not (far.folder / "runs" / "taken" / "final").exists()
    wait_for(
        lambda: len(state := state_of(far, "taken").machines) == 2 and state[1].number is not None,
        "the next machine",
        seconds=300,
        look=log.read_text,
    )
    note("preemption until the next machine runs", begin)
    assert up.wait(timeout=1200) == 0, log.read_text()
    note("preemption until the run is here and the machine ended", begin)
    assert "finished; 2 machines" in log.read_text()
    assert (far.folder / "runs" / "taken" / "final" / "lit_model.pth").is_file()
    train_log = next((far.folder / "rentals").glob("taken-*/logs/train.log")).read_text()
    assert f"step-{kept:08d}" in train_log, train_log
    assert [row[0] for row in whole] == list(range(1, 2001)) and rows(far, "taken") == whole
    listed = deploy(far, "ledger").stdout
    assert "taken away" in listed and "ended: finished" in listed and "RUNNING" not in listed
    nothing_is_left(far)


def test_a_set_up_that_fails_is_shown_and_ends_the_machine(far: FarCluster, log: Path) -> None:
    failing = "echo there is no package frobnicate >&2; exit 7"
    begin = time.monotonic()
    up = far.start_command(*words_of(far, "broken", EXACT, setup=failing), log=log)
    assert up.wait(timeout=300) == 1, log.read_text()
    note("up until a failing set-up has ended the rental", begin)
    said = log.read_text()
    assert "set-up failed with 7" in said and "there is no package frobnicate" in said
    state = state_of(far, "broken")
    assert state.is_over and len(state.machines) == 1
    nothing_is_left(far)


CAP, LASTS_S = 0.21, 720.0
"""Dollars, and their time at the ceiling of $1.05 an hour: training stops after 655 s, a machine after 698 s."""


def job_end(far: FarCluster, number: str) -> float:
    """When a job ended, seconds since the epoch, as SLURM says."""
    shown = far.run("scontrol", "show", "job", number, "--oneliner").stdout
    [text] = re.findall(r"EndTime=(\S+)", shown)
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def test_the_cap_ends_a_training_and_a_machine_whose_laptop_is_dead_ends_itself(far: FarCluster, log: Path) -> None:
    paid = ["--budget", str(CAP), "--poll", "10s", "--pull_every", "5s"]
    up = far.start_command(*words_of(far, "cap", ENDLESS, *paid), log=log)
    other_log = log.with_suffix(".alone")
    alone = far.start_command(*words_of(far, "alone", ENDLESS, *paid), log=other_log)
    wait_for_checkpoint(far, "alone", alone, other_log)
    wait_for_checkpoint(far, "cap", up, log)
    [capped_job], [alone_job] = far.jobs("cap"), far.jobs("alone")
    state = state_of(far, "alone")
    assert far.kill("deploy", "up", "run.name=alone") == 1 and far.kill("deploy", "guard", state.request.key) == 1
    assert alone.wait(timeout=10) != 0

    deadline = state.machines[0].asked_at + NODE_SHARE * LASTS_S
    wait_for(lambda: not far.jobs("alone"), "the machine ends itself", seconds=deadline + 90 - time.time())
    late = job_end(far, alone_job) - deadline
    print(f"measured: the machine without a laptop ended {late:.0f} s after its deadline")
    assert -2 <= late <= 60 and state_of(far, "alone").open_machines, "nobody was there to note it"

    assert up.wait(timeout=300) == 1, log.read_text()
    capped = state_of(far, "cap")
    # the training's own stop, or this computer's, when a look at a busy machine takes longer than the time between them
    assert capped.is_over and "budget" in str(capped.closed), log.read_text()
    end = capped.machines[0].asked_at + LASTS_S
    proven = capped.machines[0].ended_at
    assert proven is not None
    print(f"measured: cap: the machine ended {job_end(far, capped_job) - end:.0f} s after the budget's end, proven")
    print(f"measured: {proven - end:.0f} s after it; {capped.closed}")
    assert job_end(far, capped_job) <= end + capped.request.poll_s
    assert proven <= end + capped.request.poll_s + SkyPilot.ending_s, "the ledger counts until the proof"
    down = deploy(far, "down", "alone")
    assert down.returncode == 0, down.stdout + down.stderr
    nothing_is_left(far)
