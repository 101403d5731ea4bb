"""The processes of a run find each other at its start, try the network that will move their gradients, and part at its
end.

Not here: messages between them (`process_group.py`), starting them (`launch.py`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from litgpt_core.core.errors import EnvironmentProblem, Interrupted, LightComputeError
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.world import World

if TYPE_CHECKING:
    import torch.distributed as dist

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_EXCHANGE_S = 60.0
"""How long the first sum over the backend that moves gradients may take: it makes the connections."""


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
    if device == "cuda":
        _choose_gpu(world)  # of this thread: the one below has a current device of its own
    outcome = _in_another_thread(
        lambda: _meet(world, device=device, timeout=timedelta(seconds=timeout_s)),
        patience_s=timeout_s + 2 * FIRST_EXCHANGE_S,
    )
    if isinstance(outcome, Exception):
        raise _not_connected(world, outcome, timeout_s=timeout_s) from outcome
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


def _choose_gpu(world: World) -> None:
    """Make this process's GPU the current one of the calling thread."""
    import torch

    if torch.cuda.device_count() < world.local_world_size:
        raise EnvironmentProblem(
            f"{world.local_world_size} processes on a node, and this one sees {torch.cuda.device_count()} GPUs",
            needed="as many GPUs as processes, all of them visible to every process",
            fix="--nproc_per_node=<GPUs>; with SLURM: --gpus-per-node, and no --gpus-per-task",
        )
    torch.cuda.set_device(world.local_rank)


def _in_another_thread(work: Callable[[], T], *, patience_s: float) -> T | Exception:
    """What `work` returns or raises. The calling thread stays open to signals; giving up, it prints all stacks."""
    results: list[T | Exception] = []

    def body() -> None:
        try:
            results.append(work())
        except (RuntimeError, ValueError, OSError) as problem:
            results.append(problem)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    until = time.monotonic() + patience_s
    while thread.is_alive() and time.monotonic() < until:
        thread.join(0.1)
    if not results:
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
        return TimeoutError(f"no answer within {patience_s:.0f} s; the stacks of all threads are above")
    return results[0]


def _not_connected(world: World, problem: Exception, *, timeout_s: float) -> EnvironmentProblem:
    who = f"rank {world.rank} of {world.world_size} on {socket.gethostname()}"
    said = (str(problem).splitlines() or [type(problem).__name__])[0]
    if isinstance(problem, BackendSilent):
        return EnvironmentProblem(
            f"{who} reached the others, but no sum came over the network that moves gradients: {said}",
            needed="a network that every node's processes reach each other on",
            fix="NCCL_SOCKET_IFNAME=<interface> (GLOO_SOCKET_IFNAME on CPUs); NCCL_DEBUG=INFO says what NCCL tries",
        )
    return EnvironmentProblem(
        f"{who} could not reach the others at {world.address}:{world.port} within {timeout_s:.0f} s: {said}",
        needed="all processes started, and a way for every node to reach that address",
        fix="look at the other processes' messages first; then a free MASTER_PORT, or GLOO_SOCKET_IFNAME and "
        "NCCL_SOCKET_IFNAME where a node has several networks",
    )


class BackendSilent(RuntimeError):
    """Processes that had found each other could not add up a number over the backend that moves gradients."""


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

    together = False
    try:
        yield
        together = True
    except Interrupted:
        together = True  # all ranks stop at the same step
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _BROKEN.search(str(error)):
            raise
        raise OthersLost(
            f"rank {group.world.rank} lost the others: {str(error).splitlines()[0]}",
            needed="all processes of the run; the first that ended has said why, unless the system killed it (memory?)",
            fix="the same command with run.resume=auto continues from the last checkpoint",
        ) from error
    finally:
        _disconnect(together=together)


def _disconnect(*, together: bool) -> None:
    """Give the connections up. NCCL warns about those that are left, and waits at the exit for what is pending.

    Args:
        together: All ranks do so now. Otherwise NCCL's operations are aborted, because the others may not answer.
    """
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    if together:
        dist.destroy_process_group()
    elif "nccl" in str(dist.get_backend()):
        with contextlib.suppress(RuntimeError, AssertionError, ValueError):  # the error that led here is the one to see
            dist.distributed_c10d._abort_process_group()


_BROKEN = re.compile(
    r"[Cc]onnection (closed|reset|refused)|[Tt]imed? ?out|Broken pipe|Socket closed|pair closure|failed to (recv|send)"
)


def _meet(world: World, *, device: str, timeout: timedelta) -> tuple[ProcessGroup, list[tuple[str, int, str]]]:
    import torch
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        init_method=f"tcp://{world.address}:{world.port}",
        rank=world.rank,
        world_size=world.world_size,
        timeout=timeout,
    )
    _first_exchange(world, device=device, timeout=min(timeout, timedelta(seconds=FIRST_EXCHANGE_S)))
    gloo = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(gloo, dist.ProcessGroup)
    # private, but torch offers no other way to the store that rank 0 opened: tests/contract says when it is gone
    group = ProcessGroup(world, gloo, dist.distributed_c10d._get_default_store())
    return group, group.gather((socket.gethostname(), world.local_rank, str(torch.__version__)))


def _first_exchange(world: World, *, device: str, timeout: timedelta) -> None:
    """One sum over the backend that will move gradients, so that a wrong network shows now and not in the first step.

    Raises:
        BackendSilent: It did not come in time, or is wrong.
    """
    import torch
    import torch.distributed as dist

    one = torch.ones((), device=device)
    try:
        work = dist.all_reduce(one, async_op=True)
        assert work is not None
        work.wait(timeout)
        total = int(one)
    except RuntimeError as error:
        raise BackendSilent(str(error).splitlines()[0]) from error
    if total != world.world_size:
        raise BackendSilent(f"{world.world_size} processes added 1 each and got {total}")


def limit_waiting(groups: Iterable[dist.ProcessGroup], *, seconds: float) -> None:
    """Set the timeout of groups that others made, such as those of a device mesh, which have torch's own."""
    import torch.distributed as dist

    set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout  # torch before 2.15
    for group in groups:
        set_timeout(timedelta(seconds=seconds), group)
