"""FSDP2 on a GPT: which parameters travel together, in which precision, over which processes.

Every block is one group, gathered right before it computes and let go right after; the last one stays for its backward
pass, which comes next. An embedding that is not tied is a group of its own: hardly used, it need not stay. An output
layer that is not tied is one, too, whose gathering and gradients pass while blocks compute; but not with a loss in
chunks, which uses it again and again. What is left (positions, final norm, a tied or often used output layer) stays
gathered from the forward to the backward pass. Under `bf16-mixed` weights are gathered and multiplied in bfloat16,
gradients are added up over processes in float32, and the parts that the optimizer steps are float32.

With tensor parallelism (`tensor_parallel`) a block is sharded over the processes that have the same share of it, and
what is outside the blocks over all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from litgpt_core.core.errors import ConfigError
from litgpt_core.distributed.connect import limit_waiting
from litgpt_core.distributed.tensor_parallel import divide_blocks, share_of
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import Place
from litgpt_core.model.tensor_slice import cuts


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a model is shared out."""

    group: int
    """Processes that share one copy."""
    copies: int
    """Groups of them, each with a copy; 1 shares over all processes."""
    bf16: bool
    """Gather and compute in bfloat16."""
    cpu_offload: bool
    head_apart: bool = False
    """The output layer is used once in a step, so it can be a group of its own."""
    tensor: int = 1
    """Processes that compute each block together; `group` and `copies` then count such sets of processes."""
    collective_timeout: float | None = None
    """Seconds that the groups of a mesh made here wait; None: torch's own."""

    def divide(self, model: GPT, mesh: DeviceMesh) -> None:
        """Replace the blocks of `model`, on the meta device, by this process's shares of them, if they are divided.

        Args:
            model: Its blocks are neither compiled nor checkpointed yet.
            mesh: Of the processes that compute each block together.
        """
        if self.tensor > 1:
            divide_blocks(model, mesh.get_group())

    def apply(self, model: GPT, mesh: DeviceMesh) -> None:
        """Share `model` out, in place. Names and values stay; parameters become DTensors.

        Args:
            model: The same on every process, or on the meta device; its blocks are compiled or checkpointed already, if
                they are to be.
            mesh: All processes in a row; with divided blocks, those that have the same share.
        """
        everybody = mesh
        if self.tensor > 1:
            everybody = self._mesh(mesh.device_type, (self.tensor * self.group * self.copies,))
        if self.copies > 1:
            mesh = everybody = self._mesh(mesh.device_type, (self.copies, self.group), names=("copy", "shard"))
        policy = MixedPrecisionPolicy()
        if self.bf16:
            policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
        offload = CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy()
        own = [] if model.config.tie_embeddings else [model.transformer.wte]
        *blocks, last = model.transformer.h
        groups = [
            *((module, everybody, True) for module in own),
            *((block, mesh, True) for block in blocks),
            (last, mesh, False),
            *([(model.lm_head, everybody, False)] if self.head_apart and not model.config.tie_embeddings else []),
            (model, everybody, False),
        ]
        for module, among, freed in groups:
            fully_shard(module, mesh=among, mp_policy=policy, reshard_after_forward=freed, offload_policy=offload)
        register_fsdp_forward_method(model, "hidden")

    def _mesh(self, device: str, shape: tuple[int, ...], *, names: tuple[str, ...] | None = None) -> DeviceMesh:
        mesh = init_device_mesh(device, shape, mesh_dim_names=names)
        if self.collective_timeout is not None:
            limit_waiting(mesh.get_all_groups(), seconds=self.collective_timeout)
        return mesh

    def place_in(self, model: GPT) -> Place:
        """Writes whole tensors into parameters of `model`, which is divided and sharded: into each its share."""
        if self.tensor == 1:
            return copy_share
        rank, divided = dist.get_rank() % self.tensor, cuts(model.config)
        found = {id(p): divided[name] for name, p in model.state_dict(keep_vars=True).items() if name in divided}

        def place(target: Tensor, whole: Tensor) -> None:
            cut = found.get(id(target))
            copy_share(target, whole if cut is None else share_of(whole, cut, rank=rank, n=self.tensor))

        return place


def shard_of(whole: Tensor, like: DTensor) -> DTensor:
    """`whole` laid out as `like` is, on its device and in its dtype. Only this process's share is read and copied."""
    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    part = whole
    for dimension, (begin, size) in enumerate(zip(offset, shape, strict=True)):
        part = part.narrow(dimension, min(begin, part.size(dimension)), size)
    target = like.to_local()
    local = part.to(device=target.device, dtype=target.dtype, copy=True)
    return DTensor.from_local(
        local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def copy_share(target: Tensor, whole: Tensor) -> None:
    """Write values into a parameter or buffer: into a shard its share of them, into a plain tensor all."""
    target.copy_(shard_of(whole, target) if isinstance(target, DTensor) else whole)


def choose_sharding(
    *,
    strategy: str,
    world_size: int,
    local_world_size: int,
    shard_size: int | None,
    precision: str,
    cpu_offload: bool,
    tensor: int | Literal["auto"] = 1,
    head_apart: bool = False,
    collective_timeout: float | None = None,
) -> Sharding | None:
    """What the settings mean for so many processes; None if the model stays whole.

    Raises:
        ConfigError: The processes cannot be divided into groups of `shard_size`, or of `tensor`.
    """
    together = tensor_processes(tensor, local_world_size=local_world_size)
    _check_tensor(together, strategy=strategy, world_size=world_size, local_world_size=local_world_size)
    if world_size == 1 or strategy not in ("fsdp", "fsdp_hybrid"):
        return None
    group = world_size // together if strategy == "fsdp" else (shard_size or local_world_size)
    if world_size % group:
        raise ConfigError(
            f"trainer.shard_size={group} does not divide the run's {world_size} processes",
            needed="groups of the same size",
            fix=f"trainer.shard_size={local_world_size}",
        )
    return Sharding(
        group=group,
        copies=world_size // together // group,
        tensor=together,
        head_apart=head_apart,
        bf16=precision == "bf16-mixed",
        cpu_offload=cpu_offload,
        collective_timeout=collective_timeout,
    )


def tensor_processes(setting: int | Literal["auto"], *, local_world_size: int) -> int:
    """`trainer.tensor_parallel_size` on nodes of so many processes."""
    return local_world_size if setting == "auto" else setting


def _check_tensor(together: int, *, strategy: str, world_size: int, local_world_size: int) -> None:
    """Refuse processes that cannot be divided into sets on one node, of which each computes blocks together."""
    if together == 1:
        return
    given = f"trainer.tensor_parallel_size={together}"
    if strategy != "fsdp":
        raise ConfigError(
            f"{given} with trainer.strategy={strategy}", needed="trainer.strategy=fsdp", fix="trainer=fsdp_tensor"
        )
    if world_size % together or local_world_size % together:
        raise ConfigError(
            f"{given} does not divide {local_world_size} processes of each node",
            needed="whole sets of processes on a node, which exchange numbers in every layer",
            fix=f"trainer.devices={together}" if world_size == 1 else "trainer.tensor_parallel_size=auto",
        )
