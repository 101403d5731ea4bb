"""What several processes do with one model, as strategies of Lightning's Trainer.

    ddp           each process holds everything; gradients are averaged (Lightning's DDPStrategy as it is)
    fsdp          FSDP2: every block, and the rest of the model, is shared out over all processes
    fsdp_hybrid   shared out within `trainer.shard_size` processes, copied across such groups

With `trainer.tensor_parallel_size` processes compute each block together, and fsdp shards every share of it.

A checkpoint looks the same whatever wrote it: whole weights and the optimizer's plain state dict, or parts
(`checkpoint/sharded.py`). Either is read by one process or by any number under either strategy.

Not here: who the processes are (`distributed/world.py`), files (`checkpoint_io.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.tensor import DTensor

from litgpt_core.checkpoint import sharded
from litgpt_core.checkpoint.verification import is_sharded
from litgpt_core.distributed.connect import limit_waiting
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.sharding import shard_of
from litgpt_core.distributed.tensor_parallel import gather_shares, share_of
from litgpt_core.distributed.world import World
from litgpt_core.model.tensor_slice import Cut, cuts
from litgpt_core.training.checkpoint_io import WEIGHT_PREFIX, LitGPTDirectoryIO

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan

SHARDED_FROM = 2_000_000_000
"""Parameters from which `trainer.sharded_checkpoints=auto` writes parts."""


class WorldEnvironment(ClusterEnvironment):
    """Tells Lightning what `World` found; the processes run already."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def creates_processes_externally(self) -> bool:
        """They are there."""
        return True

    @property
    def main_address(self) -> str:
        """Where rank 0 listens."""
        return self.world.address

    @property
    def main_port(self) -> int:
        """The port there."""
        return self.world.port

    @staticmethod
    def detect() -> bool:
        """Never by itself: it is passed in."""
        return False

    def world_size(self) -> int:
        """All processes."""
        return self.world.world_size

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Among all."""
        return self.world.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """Among those of this node."""
        return self.world.local_rank

    def node_rank(self) -> int:
        """Of this node."""
        return self.world.node_rank


def build_strategy(plan: Plan, *, group: ProcessGroup, directory_io: LitGPTDirectoryIO) -> Strategy | str:
    """The Trainer's strategy; "auto" for one process."""
    settings = plan.resolved.config.trainer
    if group.is_single:
        return "auto"
    timeout = timedelta(seconds=settings.hardware.collective_timeout)
    if not plan.resolved.shards_model:
        return DDPStrategy(
            timeout=timeout,
            gradient_as_bucket_view=True,
            find_unused_parameters=plan.resolved.model.n_expert > 0,  # an expert that no token went to has no gradient
        )
    return ShardedStrategy(
        group,
        directory_io=directory_io,
        in_parts=_in_parts(plan),
        cpu_offload=settings.hardware.cpu_offload and plan.resolved.hardware.device == "cuda",
        cuts=cuts(plan.resolved.model) if plan.resolved.tensor_parallel > 1 else {},
        data_parallel_size=group.world.world_size // plan.resolved.tensor_parallel,
        tensor_parallel_size=plan.resolved.tensor_parallel,
        timeout=timeout,
    )


def _in_parts(plan: Plan) -> bool:
    """Whether every process writes its own part of a checkpoint. Not with adapters, which one process merges, and not
    of divided blocks, whose `qkv` one process puts together in LitGPT's order.
    """
    parts, adapted = (
        plan.resolved.config.trainer.checkpointing.sharded_checkpoints,
        plan.resolved.config.lora is not None,
    )
    whole = adapted or plan.resolved.tensor_parallel > 1
    return plan.resolved.n_params >= SHARDED_FROM and not whole if parts == "auto" else parts


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 through Lightning's ModelParallelStrategy, with this project's checkpoints.

    The module applies `fully_shard` itself, in `configure_model`.

    Args:
        group: All processes.
        directory_io: Writes and reads checkpoint directories.
        in_parts: Every process writes its own part; else rank 0 writes whole tensors.
        cpu_offload: Weights and optimizer state stay in the host's memory.
        cuts: How weights of the blocks are divided among the processes that compute them together, by name.
    """

    def __init__(
        self,
        group: ProcessGroup,
        *,
        directory_io: LitGPTDirectoryIO,
        in_parts: bool,
        cpu_offload: bool = False,
        cuts: Mapping[str, Cut] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(save_distributed_checkpoint=in_parts, **arguments)
        self.group, self.directory_io, self.in_parts = group, directory_io, in_parts
        self.cpu_offload = cpu_offload
        self.cuts = cuts or {}

    def setup_environment(self) -> None:
        """As Lightning does it; and the mesh's groups wait no longer than the others."""
        super().setup_environment()
        assert self.device_mesh is not None and self._timeout is not None
        limit_waiting(self.device_mesh.get_all_groups(), seconds=self._timeout.total_seconds())

    def model_to_device(self) -> None:
        """Move the model to the device, unless its shards stay in the host's memory (`trainer.cpu_offload`).

        There `fully_shard` has placed everything already, and moving the shards makes FSDP2 refuse the first forward
        pass ("FSDP parameters should be materialized on CPU").
        """
        if not self.cpu_offload:
            super().model_to_device()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning asks for it: `load_optimizer_state_dict`."""
        return True

    # ---- out ----

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's weights: parts, or whole ones on rank 0 and nothing elsewhere."""
        assert self.lightning_module is not None
        weights = self.lightning_module.state_dict()
        return weights if self.in_parts else self._whole(weights)

    def whole_weights(self) -> dict[str, Any]:
        """The model's whole weights on rank 0, whatever checkpoints look like; collective."""
        assert self.lightning_module is not None
        whole = self._whole(self.lightning_module.state_dict())
        return {name.removeprefix(WEIGHT_PREFIX): tensor for name, tensor in whole.items()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The optimizer's plain state dict: parts, or whole tensors on rank 0 and none elsewhere."""
        state = (optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()
        if self.in_parts:
            return dict(state)
        tensors, rest = sharded.flatten_state(state)
        return sharded.unflatten_state(self._whole(tensors), rest)

    def _whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gather every tensor; names of one parameter (tied weights) share one tensor afterwards, too."""
        assert self.lightning_module is not None
        owner = {name: id(p) for name, p in self.lightning_module.named_parameters(remove_duplicate=False)}
        whole: dict[str, Tensor] = {}
        gathered: dict[int, Tensor] = {}
        for name, tensor in tensors.items():
            one = owner.get(name, id(tensor))
            if one not in gathered:
                full = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
                if (cut := self._cut(name, full)) is not None:
                    full = gather_shares(full, cut, self.device_mesh["tensor_parallel"].get_group())
                gathered[one] = full.cpu() if self.group.is_rank_zero else torch.empty(0)
            if self.group.is_rank_zero:
                whole[name] = gathered[one]
        return whole

    def _cut(self, name: str, tensor: Tensor) -> Cut | None:
        """How a weight, or a number of the optimizer for each of its, is divided; None if every process has it."""
        if not self.cuts or not tensor.ndim:
            return None
        if name.startswith(sharded.OPTIMIZER):
            assert self.lightning_module is not None
            names = {id(p): name for name, p in self.lightning_module.named_parameters()}
            parameters = [p for group in self.optimizers[0].param_groups for p in group["params"]]
            name = names[id(parameters[int(name.split("/")[1])])]
        return self.cuts.get(name.removeprefix(WEIGHT_PREFIX).removeprefix(sharded.MODEL))

    def _share(self, name: str, whole: Tensor) -> Tensor:
        """What of a whole tensor this process has before FSDP2 shards it."""
        cut = self._cut(name, whole)
        if cut is None:
            return whole
        mesh = self.device_mesh["tensor_parallel"]
        return share_of(whole, cut, rank=mesh.get_local_rank(), n=mesh.size())

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write the directory; collective."""
        if self.in_parts:
            self.directory_io.save_parts(checkpoint, Path(filepath), group=self.group)
        elif self.group.is_rank_zero:
            self.directory_io.save_checkpoint(checkpoint, filepath)

    # ---- in ----

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What the Trainer expects; weights and optimizer state of a sharded checkpoint are read later, in place."""
        directory = Path(checkpoint_path)
        if not is_sharded(directory):
            return self.directory_io.load_checkpoint(directory, mmap=True)  # every process copies its share
        rest = self.directory_io.load_rest(directory)
        return {**rest, "state_dict": {}, "parts": directory}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give every parameter its part."""
        module = self.lightning_module
        assert module is not None
        ours = module.state_dict()
        if (directory := checkpoint.get("parts")) is not None:
            names = {sharded.MODEL + name.removeprefix(WEIGHT_PREFIX): tensor for name, tensor in ours.items()}
            self._read_shards(directory, names)
            return
        whole = checkpoint["state_dict"]
        with torch.no_grad():
            for name, tensor in ours.items():
                if strict or name in whole:  # of a run with adapters a checkpoint holds the adapters alone
                    tensor.copy_(_like(self._share(name, whole[name]), tensor))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give every parameter's state its part."""
        (optimizer,), (saved,) = self.optimizers, checkpoint["optimizer_states"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if (directory := checkpoint.get("parts")) is not None:
            tensors = {}
            for name, (shape, dtype) in sharded.tensor_shapes(directory).items():
                if name.startswith(sharded.OPTIMIZER):
                    parameter = parameters[int(name.split("/")[1])]
                    of_each = len(shape) > 0 and (shape == parameter.shape or self.cuts)
                    tensors[name] = (
                        torch.zeros_like(parameter, dtype=dtype) if of_each else torch.zeros(shape, dtype=dtype)
                    )
            self._read_shards(directory, tensors)
            optimizer.load_state_dict(sharded.unflatten_state(tensors, saved))
            return
        state = {
            index: {
                key: _like(self._share(f"{sharded.OPTIMIZER}{index}/{key}", value), parameters[index])
                if isinstance(value, Tensor) and value.ndim
                else value
                for key, value in entries.items()
            }
            for index, entries in saved["state"].items()
        }
        optimizer.load_state_dict({**saved, "state": state})

    @torch.no_grad()
    def _read_shards(self, directory: Path, into: Mapping[str, Tensor]) -> None:
        """Every process reads its shards; of a divided tensor the whole, one after the other, and keeps its share."""
        divided = {name for name, tensor in into.items() if self._cut(name, tensor) is not None}
        plain = {name: tensor for name, tensor in into.items() if name not in divided}
        sharded.read_shards(directory, plain, group=self.group.gloo)
        shapes = sharded.tensor_shapes(directory) if divided else {}
        for name in sorted(divided):
            shape, dtype = shapes[name]
            whole = torch.empty(shape, dtype=dtype)
            sharded.read_shards(directory, {name: whole}, group=self.group.gloo)
            into[name].copy_(_like(self._share(name, whole), into[name]))


def _like(whole: Tensor, part: Tensor) -> Tensor:
    """A whole tensor, laid out as `part` is; a copy, because `whole` may be a part of a file."""
    return shard_of(whole, part) if isinstance(part, DTensor) else whole.to(part.device, copy=True)
