"""Small messages between the processes of one run, over gloo on the CPU, apart from the backend that moves gradients. A
run of one process has a group of one, whose every call returns at once.

Not here: who a process is (`world.py`), starting processes (`launch.py`), connecting them (`connect.py`), gradients and
shards (`strategy.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from litgpt_core.core.errors import Interrupted, LightComputeError
from litgpt_core.distributed.world import World

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch._C._distributed_c10d import Store

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
