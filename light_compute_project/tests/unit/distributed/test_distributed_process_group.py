"""Who a process is, by what launchers say, and how the numbers of a batch must fit; messages between real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from litgpt_core.config.trainer import HardwareSettings
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.data.batch_rule import check_batch
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.world import World, first_host
from litgpt_core.training.start import processes_to_start

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "41234",
}


def test_nobody_started_it() -> None:
    assert World.find({"PATH": "/bin"}) == World()
    assert World.find({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == World(), "one task is one process"


def test_torchruns_variables() -> None:
    world = World.find(TORCHRUN)
    assert (world.rank, world.local_rank, world.world_size, world.local_world_size) == (5, 1, 8, 4)
    assert (world.node_rank, world.num_nodes, world.address, world.port) == (1, 2, "10.0.0.1", 29500)
    assert world.started_by == "torchrun"


def test_slurms_variables() -> None:
    world = World.find(SLURM)
    assert (world.rank, world.local_rank, world.node_rank) == (3, 1, 1)
    assert (world.world_size, world.local_world_size, world.num_nodes) == (4, 2, 2)
    assert (world.address, world.port, world.started_by) == ("gpu07", 20_000 + 41234 % 20_000, "slurm")
    assert World.find(SLURM | {"MASTER_ADDR": "head", "MASTER_PORT": "5"}).address == "head"


@pytest.mark.parametrize(
    "broken",
    [
        {k: v for k, v in TORCHRUN.items() if k != "MASTER_PORT"},
        TORCHRUN | {"RANK": "8"},
        TORCHRUN | {"WORLD_SIZE": "many"},
        SLURM | {"SLURM_STEP_NUM_TASKS": "3"},
        {k: v for k, v in SLURM.items() if k != "SLURM_JOB_ID"},
    ],
    ids=["no port", "rank outside", "no number", "uneven", "no job"],
)
def test_half_an_environment_is_refused(broken: dict[str, str]) -> None:
    with pytest.raises(EnvironmentProblem, match="the launcher's variables are not whole"):
        World.find(broken)


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("gpu[01-03,7],login", "gpu01"),
        ("n[3,5]", "n3"),
        ("r[1-2]n4", "r1n4"),
        ("x-1.y", "x-1.y"),
    ],
)
def test_the_first_host_of_a_node_list(nodelist: str, first: str) -> None:
    assert first_host(nodelist) == first


@pytest.mark.parametrize(("micro", "world", "rows"), [(None, 1, 32), (None, 4, 8), (2, 4, 2), (8, 4, 8)])
def test_rows_per_process(micro: int | None, world: int, rows: int) -> None:
    assert check_batch(global_batch_size=32, micro_batch_size=micro, world_size=world) == rows


@pytest.mark.parametrize(
    ("micro", "world", "advice"),
    [(8, 8, "micro_batch_size=4"), (5, 2, "micro_batch_size=4"), (None, 3, "global_batch_size=33"), (4, 3, "=33")],
)
def test_numbers_that_do_not_fit_are_all_named(micro: int | None, world: int, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_batch(global_batch_size=32, micro_batch_size=micro, world_size=world)
    text = str(caught.value)
    assert "global_batch_size=32" in text and f"{world} processes" in text and advice in text
    assert f"micro_batch_size={micro or 'null'}" in text


def test_what_is_started_here() -> None:
    assert processes_to_start(HardwareSettings(), World()) == 1
    assert processes_to_start(HardwareSettings(devices=3), World()) == 3
    assert processes_to_start(HardwareSettings(devices="auto", accelerator="cpu"), World()) == 1
    assert processes_to_start(HardwareSettings(devices="auto"), World.find(TORCHRUN)) == 1
    assert processes_to_start(HardwareSettings(devices=4, num_nodes=2), World.find(TORCHRUN)) == 1
    with pytest.raises(ConfigError, match="torchrun has started 4 processes on each of 2 nodes"):
        processes_to_start(HardwareSettings(devices=2), World.find(TORCHRUN))
    with pytest.raises(ConfigError, match="no launcher has started this process"):
        processes_to_start(HardwareSettings(num_nodes=2), World())


def test_a_team_of_one_answers_itself() -> None:
    group = ProcessGroup(World())
    assert group.is_single and group.is_rank_zero
    assert (group.broadcast(3), group.gather("x"), group.all_reduce_max(7)) == (3, ["x"], 7)
    assert group.broadcast_result(lambda: 1) == group.rank_zero_first(lambda: 1) == group.on_all_ranks(lambda: 1) == 1
    with pytest.raises(ConfigError, match="wrong"):
        group.on_all_ranks(lambda: (_ for _ in ()).throw(ConfigError("wrong")))


class Board:
    """A store that all ranks see."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.marks[key] = value

    def check(self, keys: list[str]) -> bool:
        return all(key in self.marks for key in keys)


def test_waiting_has_no_timeout_and_needs_every_rank_that_is_waited_for() -> None:
    board = Board()
    groups = [ProcessGroup(World(rank=rank, world_size=3), None, board) for rank in range(3)]  # type: ignore[arg-type]
    came: list[str] = []

    def first() -> None:
        groups[0].wait_for(1, 2)
        came.append("0 after 1 and 2")

    waiting = threading.Thread(target=first)
    waiting.start()
    for rank in (1, 2):
        assert not came
        groups[rank].wait_for(1, 2)
    waiting.join(timeout=30)
    assert came == ["0 after 1 and 2"]
    groups[0].wait_for(0)  # the next meeting is another one
    groups[1].wait_for(0)
    assert not waiting.is_alive()


SPEAKING = """
    import sys, os
    from litgpt_core.core.console import run_script
    from litgpt_core.core.errors import ConfigError
    from litgpt_core.distributed.connect import connect
    from litgpt_core.distributed.world import World

    def main():
        group = connect(World.find(), device="cpu", timeout_s=60)
        rank = group.world.rank
        assert group.broadcast(rank + 10) == 10
        assert group.gather(rank * 2) == [0, 2, 4]
        assert group.all_reduce_max(rank) == 2
        order = []
        group.rank_zero_first(lambda: order.append(rank))
        assert group.broadcast_result(lambda: rank) == 0
        def work():
            if rank >= 1:
                raise ConfigError(f"rank {rank} has a problem")
        group.on_all_ranks(work)

    run_script(main)
"""


@pytest.mark.serial
def test_three_processes_speak_and_one_tells_the_problem() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SPEAKING)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(3)
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2, 2], said
    assert "rank 1 has a problem" in said[1]
    assert "problem" not in said[0] and "problem" not in said[2], "only the first who has it tells it"
