"""FSDP2 on a GPT: which parameters travel together, in which precision, over which processes.

Every block is one group, gathered right before it computes and let go right after; the last one stays for its backward
pass, which comes next. An embedding that is not tied is a group of its own: hardly used, it need not stay. Positions,
final norm and output layer (and a tied embedding) stay gathered from the forward to the backward pass, because a loss
in chunks uses the output layer again and again. Under `bf16-mixed` weights are gathered and multiplied in bfloat16,
gradients are added up over processes in float32, and the parts that the optimizer steps are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
from litgpt_core.model.gpt import GPT


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
    collective_timeout: float | None = None
    """Seconds that the groups of a mesh made here wait; None: torch's own."""

    def apply(self, model: GPT, mesh: DeviceMesh) -> None:
        """Share `model` out, in place. Names and values stay; parameters become DTensors.

        Args:
            model: The same on every process, or on the meta device; its blocks are compiled or checkpointed already, if
                they are to be.
            mesh: All processes in a row.
        """
        if self.copies > 1:
            mesh = init_device_mesh(mesh.device_type, (self.copies, self.group), mesh_dim_names=("copy", "shard"))
            if self.collective_timeout is not None:
                limit_waiting(mesh.get_all_groups(), seconds=self.collective_timeout)
        policy = MixedPrecisionPolicy()
        if self.bf16:
            policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
        offload = CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy()
        own = [] if model.config.tie_embeddings else [model.transformer.wte]
        *blocks, last = model.transformer.h
        for module in (*own, *blocks):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True, offload_policy=offload)
        for module in (last, model):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False, offload_policy=offload)
        register_fsdp_forward_method(model, "hidden")


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
    collective_timeout: float | None = None,
) -> Sharding | None:
    """What the settings mean for so many processes; None if the model stays whole.

    Raises:
        ConfigError: The processes cannot be divided into groups of `shard_size`.
    """
    if world_size == 1 or strategy not in ("fsdp", "fsdp_hybrid"):
        return None
    group = world_size if strategy == "fsdp" else (shard_size or local_world_size)
    if world_size % group:
        raise ConfigError(
            f"trainer.shard_size={group} does not divide the run's {world_size} processes",
            needed="groups of the same size",
            fix=f"trainer.shard_size={local_world_size}",
        )
    return Sharding(
        group=group,
        copies=world_size // group,
        bf16=precision == "bf16-mixed",
        cpu_offload=cpu_offload,
        collective_timeout=collective_timeout,
    )
