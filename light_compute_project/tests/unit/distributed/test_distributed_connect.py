"""Connecting: the GPU of the right thread, a first sum over the backend, waiting that ends, parting without a hang."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from litgpt_core.core.errors import EnvironmentProblem, Interrupted
from litgpt_core.distributed import connect as connecting
from litgpt_core.distributed.connect import BackendSilent, OthersLost, connect, limit_waiting, told_when_others_are_lost
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.world import World

TWO = World(rank=1, world_size=2, local_rank=1, local_world_size=2, address="10.0.0.1", port=29500)


def test_the_gpu_is_chosen_in_the_thread_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's current device belongs to a thread, and connecting happens in another one."""
    chosen: list[tuple[int, int]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: chosen.append((threading.get_ident(), index)))
    group = ProcessGroup(World())
    monkeypatch.setattr(connecting, "_meet", lambda world, **_: (group, [("a", 0, "2"), ("a", 1, "2")]))
    assert connect(TWO, device="cuda", timeout_s=5) is group
    assert chosen == [(threading.get_ident(), 1)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EnvironmentProblem, match="2 processes on a node, and this one sees 1 GPUs"):
        connect(TWO, device="cuda", timeout_s=5)


def test_a_meeting_without_end_is_left_with_all_stacks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    over = threading.Event()
    monkeypatch.setattr(connecting, "_meet", lambda world, **_: over.wait(20))
    monkeypatch.setattr(connecting, "FIRST_EXCHANGE_S", 0.1)
    began = time.monotonic()
    with pytest.raises(EnvironmentProblem, match=r"rank 1 of 2 on .* could not reach the others at 10\.0\.0\.1:29500"):
        connect(TWO, device="cpu", timeout_s=0.1)
    assert time.monotonic() - began < 10
    over.set()
    assert "_in_another_thread" in capfd.readouterr().err, "where every thread stood"


class Work:
    """A collective operation that answers as told."""

    def __init__(self, answer: Exception | None) -> None:
        self.answer, self.waited = answer, timedelta()

    def wait(self, timeout: timedelta) -> None:
        self.waited = timeout
        if self.answer is not None:
            raise self.answer


@pytest.mark.parametrize(
    ("total", "answer", "said"),
    [(2.0, None, None), (1.0, None, "added 1 each and got 1"), (2.0, RuntimeError("Timed out\nat ..."), "Timed out")],
)
def test_the_first_sum_must_come_and_be_right(
    total: float, answer: Exception | None, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(answer)

    def all_reduce(tensor: Any, *, async_op: bool) -> Work:
        assert async_op
        tensor.fill_(total)
        return work

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    arguments: dict[str, Any] = {"device": "cpu", "timeout": timedelta(seconds=7)}
    if said is None:
        connecting._first_exchange(TWO, **arguments)
    else:
        with pytest.raises(BackendSilent, match=said) as caught:
            connecting._first_exchange(TWO, **arguments)
        problem = connecting._not_connected(TWO, caught.value, timeout_s=9)
        assert "no sum came over the network" in problem.given and "NCCL_SOCKET_IFNAME" in problem.fix
    assert work.waited == timedelta(seconds=7)


def test_groups_that_others_made_get_the_runs_timeout() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        made = dist.new_group(backend="gloo")
        assert isinstance(made, dist.ProcessGroup)
        limit_waiting([made], seconds=17)
        assert made._get_backend(torch.device("cpu")).options._timeout == timedelta(seconds=17)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("problem", "raised", "ending"),
    [
        (None, None, "destroyed"),
        (Interrupted("stopped"), Interrupted, "destroyed"),
        (RuntimeError("Connection closed by peer"), OthersLost, "aborted"),
        (ValueError("a bug"), ValueError, "aborted"),
    ],
)
def test_nobody_waits_for_those_who_may_not_answer(
    problem: Exception | None, raised: type[Exception] | None, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error NCCL's operations are aborted; where all stop together the group is destroyed in order."""
    calls: list[str] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend", lambda: "cpu:gloo,cuda:nccl")
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("destroyed"))
    monkeypatch.setattr(dist.distributed_c10d, "_abort_process_group", lambda: calls.append("aborted"))
    dist_group: Any = object()
    group = ProcessGroup(World(world_size=2), dist_group)

    def run() -> None:
        with told_when_others_are_lost(group):
            if problem is not None:
                raise problem

    if raised is None:
        run()
    else:
        with pytest.raises(raised):
            run()
    assert calls == [ending]
