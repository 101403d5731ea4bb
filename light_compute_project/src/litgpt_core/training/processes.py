"""Which process of how many this is, and how the processes of one run speak to each other.

`World.find` reads what a launcher says in the environment: torchrun's variables (our own `launch.py` sets the same), or
those of a SLURM step. `Team` is the connection: small messages between ranks over gloo on the CPU, beside whatever
moves gradients. A run of one process has a team of one, whose every call answers at once.

Not here: starting processes (`launch.py`), gradients and shards (`strategy.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from litgpt_core.console import skip_teardown
from litgpt_core.errors import ConfigError, EnvironmentProblem, Interrupted, LightComputeError

if TYPE_CHECKING:
    import torch.distributed as dist

logger = logging.getLogger(__name__)
T = TypeVar("T")

PARENT = "LIGHT_COMPUTE_PARENT"
"""Process number of the launcher, in the environment of what it started."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    """Among all."""
    local_rank: int = 0
    """Among those of this node."""
    world_size: int = 1
    local_world_size: int = 1
    """Processes on this node."""
    node_rank: int = 0
    address: str = ""
    """Host where rank 0 listens."""
    port: int = 0
    started_by: str = "nobody"
    """`torchrun` (or our own launcher), `slurm`, or `nobody`."""

    @property
    def num_nodes(self) -> int:
        """Nodes, if all have the same number of processes."""
        return self.world_size // self.local_world_size

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> World:
        """What the environment says.

        Raises:
            EnvironmentProblem: It says half of what is needed, or something that is no number.
        """
        try:
            if "RANK" in environment and "WORLD_SIZE" in environment:
                return cls._of_torchrun(environment)
            if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
                return cls._of_slurm(environment)
        except (KeyError, ValueError) as problem:
            raise EnvironmentProblem(
                f"the launcher's variables are not whole: {problem}",
                needed="RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, as torchrun has them",
                fix="torchrun --nproc_per_node=2 light_compute_project/scripts/train.py ..., or unset RANK WORLD_SIZE",
            ) from problem
        return cls()

    @classmethod
    def _of_torchrun(cls, variables: Mapping[str, str]) -> World:
        rank, size = int(variables["RANK"]), int(variables["WORLD_SIZE"])
        local_size = int(variables.get("LOCAL_WORLD_SIZE", size))
        if not 0 <= rank < size:
            raise ValueError(f"RANK={rank} of WORLD_SIZE={size}")
        return cls(
            rank=rank,
            local_rank=int(variables.get("LOCAL_RANK", rank % local_size)),
            world_size=size,
            local_world_size=local_size,
            node_rank=int(variables.get("GROUP_RANK", rank // local_size)),
            address=variables["MASTER_ADDR"] if size > 1 else "",
            port=int(variables["MASTER_PORT"]) if size > 1 else 0,
            started_by="torchrun",
        )

    @classmethod
    def _of_slurm(cls, variables: Mapping[str, str]) -> World:
        size, nodes = int(variables["SLURM_STEP_NUM_TASKS"]), int(variables["SLURM_STEP_NUM_NODES"])
        if size % nodes:
            raise ValueError(
                f"{size} tasks on {nodes} nodes: as many tasks on every node are needed (--ntasks-per-node)"
            )
        return cls(
            rank=int(variables["SLURM_PROCID"]),
            local_rank=int(variables["SLURM_LOCALID"]),
            world_size=size,
            local_world_size=size // nodes,
            node_rank=int(variables["SLURM_NODEID"]),
            address=variables.get("MASTER_ADDR") or first_host(variables["SLURM_STEP_NODELIST"]),
            port=int(variables.get("MASTER_PORT") or 20_000 + int(variables["SLURM_JOB_ID"]) % 20_000),
            started_by="slurm",
        )


def first_host(nodelist: str) -> str:
    """The first name of a SLURM node list: `node[01-03,7],login` -> `node01`."""
    first = re.match(r"[^,\[]+(\[[^\]]*\])?[^,\[]*", nodelist)
    if first is None:
        raise ValueError(f"no host in the node list {nodelist!r}")
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def die_with_launcher() -> None:
    """Ask Linux for SIGTERM when the launcher's process ends, however it ends; leave at once if it has ended already.

    Elsewhere a launcher that is killed outright leaves its processes to notice by the closed connection.
    """
    parent = os.environ.get(PARENT)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        sys.exit(143)


class FollowerStopped(LightComputeError):
    """Another rank has met the problem and tells it; this one only leaves with the same exit code."""

    silent = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run has stopped")
        self.exit_code = exit_code


class Team:
    """The ranks of a run, connected. Every method but `is_first` is collective: all ranks call it, in the same order.

    Args:
        world: Who this is.
        group: Gloo's process group; None for a team of one.
    """

    def __init__(self, world: World, group: dist.ProcessGroup | None = None) -> None:
        self.world, self.group = world, group

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes and speaks."""
        return self.world.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        return self.group is None

    def share(self, value: T) -> T:
        """Rank 0's `value`, on every rank."""
        if self.group is None:
            return value
        import torch.distributed as dist

        box: list[Any] = [value if self.is_first else None]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """Every rank's `value`, in the order of ranks, on every rank."""
        if self.group is None:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def highest(self, number: int) -> int:
        """The largest of all ranks' numbers. The cheapest message: a signal that one rank got is asked for this way."""
        if self.group is None:
            return number
        import torch
        import torch.distributed as dist

        box = torch.tensor(number, dtype=torch.int64)
        dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self.group)
        return int(box)

    def agree(self, problem: Exception | None) -> None:
        """Go on only if nobody has a problem: the first who has one raises it, the others leave quietly likewise."""
        found = self.gather(
            None if problem is None else (getattr(problem, "exit_code", 1), getattr(problem, "silent", False))
        )
        speaker = next((rank for rank, state in enumerate(found) if state and not state[1]), None)
        if problem is not None and (speaker is None or self.world.rank == speaker):
            raise problem
        codes = [state[0] for state in found if state]
        if codes:
            raise FollowerStopped(codes[0])

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives, done by everybody at once; a problem that all meet is told once."""
        result, problem = self._try(work)
        self.agree(problem)
        return result  # type: ignore[return-value]

    def first_alone(self, work: Callable[[], T]) -> T:
        """What `work` gives on rank 0, the only one that does it; its error ends all."""
        result, problem = self._try(work) if self.is_first else (None, None)
        self.agree(problem)
        return self.share(result)  # type: ignore[return-value]

    def first_then_others(self, work: Callable[[], T]) -> T:
        """Everybody does `work`, rank 0 before the others, who then find on the disk what it has prepared."""
        result: T | None = None
        for turn in (True, False):
            problem = None
            if self.is_first == turn:
                result, problem = self._try(work)
            self.agree(problem)
        return result  # type: ignore[return-value]

    @staticmethod
    def _try(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
        try:
            return work(), None
        except Interrupted:  # a signal: it came anywhere, so there is no message that the others would wait for
            raise
        except Exception as error:
            return None, error


def connect(world: World, *, device: str, timeout_s: float) -> Team:
    """Join the run's process group and have everybody answer once.

    Args:
        world: Who this is; alone, nothing is connected.
        device: `cpu` or `cuda`: what gradients live on.
        timeout_s: How long to wait for the others, here and in every later collective operation.

    Raises:
        EnvironmentProblem: Somebody did not come, or has other versions.
    """
    if world.world_size == 1:
        return Team(world)
    skip_teardown()
    where = f"{world.address}:{world.port}"
    met: list[tuple[Team, list[tuple[str, int, str]]] | Exception] = []

    def meet() -> None:
        try:
            met.append(_meet(world, device=device, timeout=timedelta(seconds=timeout_s)))
        except (RuntimeError, ValueError, OSError) as problem:
            met.append(problem)

    thread = threading.Thread(target=meet, daemon=True)  # beside the main thread, which stays open to signals
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
    team, answers = outcome
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
    if team.is_first:
        hosts = sorted({host for host, _ in seats})
        logger.info("%d processes on %s are connected", world.world_size, ", ".join(hosts))
    return team


class OthersLost(LightComputeError):
    """A process of the run ended in the middle of what all do together."""

    exit_code = 1


@contextlib.contextmanager
def told_when_others_are_lost(team: Team) -> Iterator[None]:
    """Around the work: a broken connection becomes a plain message; after the work the connection is given up.

    Raises:
        OthersLost: Instead of the communication library's error.
    """
    if team.alone:
        yield
        return
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _BROKEN.search(str(error)):
            raise
        raise OthersLost(
            f"rank {team.world.rank} lost the others: {str(error).splitlines()[0]}",
            needed="all processes of the run; the first that ended has said why, unless the system killed it (memory?)",
            fix="the same command with run.resume=auto continues from the last checkpoint",
        ) from error
    if dist.is_initialized():
        dist.destroy_process_group()


_BROKEN = re.compile(r"[Cc]onnection (closed|reset|refused)|[Tt]imed out waiting|Broken pipe|Socket closed")


def _meet(world: World, *, device: str, timeout: timedelta) -> tuple[Team, list[tuple[str, int, str]]]:
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
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)
    team = Team(world, group)
    return team, team.gather((socket.gethostname(), world.local_rank, str(torch.__version__)))


def check_batch(*, global_batch_size: int, micro_batch_size: int | None, world_size: int) -> int:
    """Rows per forward pass and process.

    Raises:
        ConfigError: The three numbers do not fit; all three are named.
    """
    micro = micro_batch_size or global_batch_size // world_size
    if micro and global_batch_size % (micro * world_size) == 0:
        return micro
    fitting = [
        n for n in range(1, global_batch_size + 1) if global_batch_size % (n * world_size) == 0 and n <= max(micro, 1)
    ]
    advice = (
        f"trainer.micro_batch_size={fitting[-1]}"
        if fitting
        else f"trainer.global_batch_size={-(-global_batch_size // world_size) * world_size}"
    )
    raise ConfigError(
        f"trainer.global_batch_size={global_batch_size} cannot be shared by {world_size} processes with "
        f"trainer.micro_batch_size={micro_batch_size if micro_batch_size else 'null'}",
        needed="global_batch_size = micro_batch_size * processes * a whole number of micro-batches",
        fix=advice,
    )
