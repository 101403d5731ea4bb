"""Which process of how many this is, as the launcher says in the environment.

torchrun's variables (our own `launch.py` sets the same), or those of a SLURM step. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.signals import SIGNALS, ending_with

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
                fix="torchrun --nproc_per_node=2 -m litgpt_core train ..., or unset RANK WORLD_SIZE",
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
            address=variables.get("MASTER_ADDR") or address_of(first_host(variables["SLURM_STEP_NODELIST"])),
            port=int(variables.get("MASTER_PORT") or 20_000 + int(variables["SLURM_JOB_ID"]) % 20_000),
            started_by="slurm",
        )


def first_host(nodelist: str) -> str:
    """The first name of a SLURM node list: `node[01-03,7],login` -> `node01`."""
    first = re.match(r"[^,\[]+(\[[^\]]*\])?[^,\[]*", nodelist)
    if first is None:
        raise ValueError(f"no host in the node list {nodelist!r}")
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def address_of(node: str) -> str:
    """A node's name where it can be looked up, else the address that SLURM itself uses."""
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        if shutil.which("scontrol") is None:
            return node
        done = subprocess.run(
            ["scontrol", "show", "node", node, "--oneliner"], capture_output=True, text=True, timeout=60, check=False
        )
        words = [word for word in done.stdout.split() if word.startswith("NodeAddr=")]
        return words[0].partition("=")[2] if words else node
    return node


def let_signals_in() -> None:
    """A launcher starts its processes with signals held back, so that none comes before there is a handler for it."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def die_with_launcher() -> None:
    """Ask Linux for SIGTERM when the launcher's process ends, however it ends; leave at once if it has ended already.

    Elsewhere a launcher that is killed outright leaves its processes to notice by the closed connection.
    """
    parent = os.environ.get(PARENT)
    if parent is not None and (ask := ending_with(int(parent))) is not None:
        ask()
