"""FSDP2 on a GPT: which parameters travel together, in which precision, over which processes.

Every block is one group, gathered right before it computes and let go right after; embeddings, positions, final norm
and output layer are another, which stays gathered from the forward to the backward pass. Under `bf16-mixed` weights are
gathered and multiplied in bfloat16, gradients are added up over processes in float32, and the parts that the optimizer
steps are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from litgpt_core.core.errors import ConfigError
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

    def apply(self, model: GPT, mesh: DeviceMesh) -> None:
        """Share `model` out, in place. Names and values stay; parameters become DTensors.

        Args:
            model: Whole, the same on every process; its blocks are compiled or checkpointed already, if they are to be.
            mesh: All processes in a row.
        """
        if self.copies > 1:
            mesh = init_device_mesh(mesh.device_type, (self.copies, self.group), mesh_dim_names=("copy", "shard"))
        policy = MixedPrecisionPolicy()
        if self.bf16:
            policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
        offload = CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy()
        for block in model.transformer.h:
            fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True, offload_policy=offload)
        fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False, offload_policy=offload)
        register_fsdp_forward_method(model, "hidden")


def choose_sharding(
    *, strategy: str, world_size: int, local_world_size: int, shard_size: int | None, precision: str, cpu_offload: bool
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
    return Sharding(group=group, copies=world_size // group, bf16=precision == "bf16-mixed", cpu_offload=cpu_offload)
