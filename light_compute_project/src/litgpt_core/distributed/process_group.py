"""Small messages between the processes of one run, over gloo on the CPU, apart from the backend that moves gradients. A
run of one process has a group of one, whose every call returns at once.

Not here: who a process is (`world.py`), starting processes (`launch.py`), gradients and shards (`strategy.py`).
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from litgpt_core.core.errors import EnvironmentProblem, Interrupted, LightComputeError
from litgpt_core.distributed.world import World

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch._C._distributed_c10d import Store

logger = logging.getLogger(__name__)
T = TypeVar("T")


class FollowerStopped(LightComputeError):
    """Another rank has met the problem and tells it; this one only leaves with the same exit code."""

    silent = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run has stopped")
        self.exit_code = exit_code


class ProcessGroup:
    """The ranks of a run, connected. Every method is collective: all ranks call it, in the same order.

    Args:
        world: Who this is.
        gloo: torch's process group; None for a group of one.
        store: Where rank 0 keeps the marks that waiting for long work needs.
    """

    def __init__(self, world: World, gloo: dist.ProcessGroup | None = None, store: Store | None = None) -> None:
        self.world, self.gloo = world, gloo
        self._store, self._meetings = store, 0

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is rank 0, which writes files and logs."""
        return self.world.rank == 0

    @property
    def is_single(self) -> bool:
        """Whether there is only this process."""
        return self.gloo is None

    def broadcast(self, value: T) -> T:
        """Rank 0's `value`, on every rank."""
        if self.gloo is None:
            return value
        import torch.distributed as dist

        box: list[Any] = [value if self.is_rank_zero else None]
        dist.broadcast_object_list(box, src=0, group=self.gloo)
        return box[0]  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """Every rank's `value`, in the order of ranks, on every rank."""
        if self.gloo is None:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world.world_size
        dist.all_gather_object(values, value, group=self.gloo)
        return values

    def all_reduce_max(self, number: int) -> int:
        """The largest of all ranks' numbers; the cheapest message, so it also passes on a signal that one rank got."""
        if self.gloo is None:
            return number
        import torch
        import torch.distributed as dist

        box = torch.tensor(number, dtype=torch.int64)
        dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self.gloo)
        return int(box)

    def raise_together(self, problem: Exception | None) -> None:
        """Raise if any rank has a problem: the first that has one raises it, the others `FollowerStopped`."""
        found = self.gather(
            None if problem is None else (getattr(problem, "exit_code", 1), getattr(problem, "silent", False))
        )
        speaker = next((rank for rank, state in enumerate(found) if state and not state[1]), None)
        if problem is not None and (speaker is None or self.world.rank == speaker):
            raise problem
        codes = [state[0] for state in found if state]
        if codes:
            raise FollowerStopped(codes[0])

    def wait_for(self, *ranks: int) -> None:
        """The given ranks mark that they are here; the others wait for them, as long as it takes.

        For work that one does and that may last: a collective operation would give up after its timeout.
        """
        if self._store is None:
            return
        self._meetings += 1
        marks = [f"here/{self._meetings}/{rank}" for rank in ranks]
        if self.world.rank in ranks:
            self._store.set(f"here/{self._meetings}/{self.world.rank}", "1")
            return
        while not self._store.check(marks):
            time.sleep(0.02)

    def on_all_ranks(self, work: Callable[[], T]) -> T:
        """Every rank carries out `work` at once; a problem that several meet is reported once."""
        result, problem = self._try(work)
        self.raise_together(problem)
        return result  # type: ignore[return-value]

    def broadcast_result(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, which alone carries it out, on every rank; its error ends all ranks."""
        return self.broadcast(self.rank_zero_only(work))  # type: ignore[return-value]

    def rank_zero_only(self, work: Callable[[], T]) -> T | None:
        """Rank 0 alone carries out `work`, however long it takes; its error ends all ranks. None on the other ranks."""
        result, problem = self._try(work) if self.is_rank_zero else (None, None)
        self.wait_for(0)
        self.raise_together(problem)
        return result

    def rank_zero_first(self, work: Callable[[], T]) -> T:
        """Every rank carries out `work`, rank 0 before the others, which then find on the disk what it has prepared."""
        result: T | None = None
        for turn in (True, False):
            problem = None
            if self.is_rank_zero == turn:
                result, problem = self._try(work)
            self.wait_for(*([0] if turn else range(1, self.world.world_size)))
            self.raise_together(problem)
        return result  # type: ignore[return-value]

    @staticmethod
    def _try(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
        try:
            return work(), None
        except Interrupted:  # a signal: it came anywhere, so there is no message that the others would wait for
            raise
        except Exception as error:
            return None, error


def connect(world: World, *, device: str, timeout_s: float) -> ProcessGroup:
    """Join the run's process group and have everybody answer once.

    Args:
        world: Who this is; alone, nothing is connected.
        device: `cpu` or `cuda`: what gradients live on.
        timeout_s: How long to wait for the others, here and in every later collective operation.

    Raises:
        EnvironmentProblem: Somebody did not come, or has other versions.
    """
    if world.world_size == 1:
        return ProcessGroup(world)
    where = f"{world.address}:{world.port}"
    met: list[tuple[ProcessGroup, list[tuple[str, int, str]]] | Exception] = []

    def meet() -> None:
        try:
            met.append(_meet(world, device=device, timeout=timedelta(seconds=timeout_s)))
        except (RuntimeError, ValueError, OSError) as problem:
            met.append(problem)

    thread = threading.Thread(target=meet, daemon=True)  # apart from the main thread, which stays open to signals
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    (outcome,) = met
    if isinstance(outcome, Exception):
        raise EnvironmentProblem(
            f"rank {world.rank} of {world.world_size} on {socket.gethostname()} could not reach the others at {where} "
            f"within {timeout_s:.0f} s: {str(outcome).splitlines()[0]}",
            needed="all processes started, and a way for every node to reach that address",
            fix="look at the other processes' messages first; then a free MASTER_PORT, or GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME where a node has several networks",
        ) from outcome
    group, answers = outcome
    versions = {version for _, _, version in answers}
    if len(versions) > 1:
        raise EnvironmentProblem(
            f"the processes have different versions of torch: {sorted(versions)}",
            needed="one environment on all nodes",
            fix="uv sync on every node, or a shared folder",
        )
    seats = [(host, local) for host, local, _ in answers]
    if device == "cuda" and len(set(seats)) < len(seats):
        raise EnvironmentProblem(
            f"two processes want the same GPU: {seats}", needed="one process for each", fix="--nproc_per_node=<GPUs>"
        )
    if group.is_rank_zero:
        hosts = sorted({host for host, _ in seats})
        logger.info("%d processes on %s are connected", world.world_size, ", ".join(hosts))
    return group


class OthersLost(LightComputeError):
    """A process of the run ended in the middle of what all do together."""

    exit_code = 1


@contextlib.contextmanager
def told_when_others_are_lost(group: ProcessGroup) -> Iterator[None]:
    """Around the work: a broken connection becomes a plain message; after the work the connection is given up.

    Raises:
        OthersLost: Instead of the communication library's error.
    """
    if group.is_single:
        yield
        return
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _BROKEN.search(str(error)):
            raise
        raise OthersLost(
            f"rank {group.world.rank} lost the others: {str(error).splitlines()[0]}",
            needed="all processes of the run; the first that ended has said why, unless the system killed it (memory?)",
            fix="the same command with run.resume=auto continues from the last checkpoint",
        ) from error
    if dist.is_initialized():
        dist.destroy_process_group()


_BROKEN = re.compile(
    r"[Cc]onnection (closed|reset|refused)|[Tt]imed? ?out|Broken pipe|Socket closed|pair closure|failed to (recv|send)"
)


def _meet(world: World, *, device: str, timeout: timedelta) -> tuple[ProcessGroup, list[tuple[str, int, str]]]:
    import torch
    import torch.distributed as dist

    if device == "cuda":
        if torch.cuda.device_count() < world.local_world_size:
            raise ValueError(
                f"{world.local_world_size} processes on a node, and this one sees {torch.cuda.device_count()} GPUs: "
                "all must see all (SLURM: --gpus-per-node, and no --gpus-per-task)"
            )
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        init_method=f"tcp://{world.address}:{world.port}",
        rank=world.rank,
        world_size=world.world_size,
        timeout=timeout,
    )
    gloo = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(gloo, dist.ProcessGroup)
    # private, but torch offers no other way to the store that rank 0 opened: tests/contract says when it is gone
    group = ProcessGroup(world, gloo, dist.distributed_c10d._get_default_store())
    return group, group.gather((socket.gethostname(), world.local_rank, str(torch.__version__)))
