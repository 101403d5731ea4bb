"""The LightningModule: one step of training and of validation, and nothing about files, logs or schedules of saving.

batch (inputs, targets), each (B, T); of packed conversations also segments (B, T) and the step's number of targets
  -> model.hidden (B, T, C) -> loss.cross_entropy over lm_head -> loss      training_step, compiled as one graph
  -> backward (Trainer) -> one float32 buffer of gradients, if flat         on_after_backward
  -> clip and measure the gradient norm                                     configure_gradient_clipping
  -> learning rate of this step -> optimizer.step                           optimizer_step
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from litgpt_core.config.trainer import BatchSettings
from litgpt_core.distributed.sharding import Sharding
from litgpt_core.distributed.tensor_parallel import clip_gradients, sum_partial_gradients
from litgpt_core.model.distillation import distillation_loss
from litgpt_core.model.gpt import GPT
from litgpt_core.model.lora import adapters
from litgpt_core.model.loss import cross_entropy, token_losses
from litgpt_core.model.moe import leave_experts_out
from litgpt_core.model.optional_settings import DistillSettings
from litgpt_core.model.tensor_slice import cuts
from litgpt_core.optim.build import build_flat_optimizer, build_optimizer, set_learning_rate
from litgpt_core.optim.flat import FlatParameters
from litgpt_core.optim.schedule import learning_rate_factor
from litgpt_core.optim.settings import CustomOptimSettings, OptimSettings
from litgpt_core.training.activation_checkpointing import checkpoint_blocks
from litgpt_core.training.cpu_kernels import kernels_if_possible, leave_kernels
from litgpt_core.training.cpu_loss import CpuLoss
from litgpt_core.training.hardware import Hardware

Batch = tuple[Tensor, ...]
Fill = Callable[[GPT, torch.device], None]
WHOLE_GRAPH_LAYERS = 24
"""Up to this depth a single GPU's step is compiled as one graph. Compile time grows with depth, while blocks share one
graph; deeper models, and several processes, are compiled block by block. Provisional: not measured on a GPU.
"""
EVAL_CHUNK = 4096
"""Tokens whose logits a validation holds at once where it does not run on a CPU, unless `loss_chunk_size` says."""


@dataclass(frozen=True)
class Teacher:
    """The model whose distribution is learnt, and how. Not a module, so that its weights are not the module's."""

    model: GPT
    settings: DistillSettings


class TrainingModule(LightningModule):
    """A GPT with its loss, optimizer and learning rate.

    Args:
        model: The network; its names have the prefix `model.` in the state dict.
        optim: Optimizer and schedule.
        batch: Loss, clipping, and what blocks keep for the backward pass.
        max_steps: Of the whole run, for the schedule.
        hardware: Whether to compile.
        sharding: How the model is shared out over processes, if it is.
        processes: That train together.
        fill: Gives a sharded model, which is on the meta device until then, its values.
        sync_gradients_once: Add the gradients of a sharded model up over processes once per optimizer step, not after
            every micro-batch.
        teacher: Whose distribution the model learns, if it does; no part of the module's state.
        distill: How.

    Attributes:
        step_loss: Mean loss of the current optimizer step in nats per token, a tensor on the device; reading it waits
            for the device.
        grad_norm: Global gradient norm of the last step before clipping, likewise.
        learning_rate: Rate of the last step.
        eval_loss: Mean loss of the last validation in nats per token.
    """

    def __init__(
        self,
        model: GPT,
        *,
        optim: OptimSettings,
        batch: BatchSettings,
        max_steps: int,
        hardware: Hardware,
        sharding: Sharding | None = None,
        processes: int = 1,
        fill: Fill | None = None,
        sync_gradients_once: bool = False,
        teacher: GPT | None = None,
        distill: DistillSettings | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.strict_loading = not adapters(model)  # a checkpoint of adapters does not hold the base weights
        self.optim_settings, self.batch_settings, self.hardware = optim, batch, hardware
        self.max_steps = max_steps
        self._sharding, self._prepared, self._fill = sharding, False, fill
        self._sync_once = sync_gradients_once and sharding is not None
        self._processes = processes
        self._teacher = None if teacher is None or distill is None else Teacher(teacher, distill)
        self._compile()
        self.step_loss, self.grad_norm = torch.zeros(()), torch.zeros(())
        self.learning_rate = 0.0
        self.eval_loss = float("nan")
        self._micro_losses: list[Tensor] = []
        self._eval_parts: list[Tensor] = []
        self._flat: FlatParameters | None = None
        self._was_training = True

    def _compile(self) -> None:
        """Choose what is one graph: the whole loss, or every block and, on a GPU without shards, the head's loss.

        Several processes: DDP's own splitting of graphs would cut blocks, and refuses checkpoints in some versions of
        torch. A block is small enough for its gradients to be sent while the one before it computes.
        """
        on_gpu = self.hardware.compile and self.hardware.device != "cpu" and self._sharding is None
        self._whole_graph = on_gpu and self._processes == 1 and self.model.config.n_layer <= WHOLE_GRAPH_LAYERS
        self._loss: Callable[..., Tensor] = _training_loss
        self._head_loss: Callable[..., Tensor] = cross_entropy
        if self.hardware.compile:
            leave_experts_out(self.model)
            if self._processes > 1:
                torch._dynamo.config.optimize_ddp = False
        if self._whole_graph:
            self._loss = torch.compile(_training_loss, dynamic=False)
        elif on_gpu:
            self._head_loss = torch.compile(cross_entropy, dynamic=False)

    @property
    def network(self) -> GPT:
        """What losses are computed with: the model, or its working copy in bfloat16."""
        if self._flat is None:
            return self.model
        assert isinstance(self._flat.working, GPT)
        return self._flat.working

    def configure_model(self) -> None:
        """Share the model out, if it is to be; called before the optimizer exists, and again by every later use."""
        if self._sharding is not None and not self._prepared:
            assert self.device_mesh is not None
            if self._sharding.tensor > 1:
                self._sharding.divide(self.model, self.device_mesh["tensor_parallel"])
            self._prepare_blocks()
            self._sharding.apply(self.model, self.device_mesh["data_parallel"])
            if self._fill is not None:
                self._fill(self.model, self.trainer.strategy.root_device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Add gradients up over processes in the step's last micro-batch alone, if that is wanted."""
        if self._sync_once:
            assert isinstance(self.model, FSDPModule)
            last = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
            self.model.set_is_last_backward(last)
            self.model.set_requires_gradient_sync(last)

    def on_fit_start(self) -> None:
        """Weights may have been loaded since the working copy was made."""
        if self._teacher is not None:
            self._teacher.model.to(self.device)
        self.weights_replaced()
        if self._sharding is None:
            self._prepare_blocks()

    def _prepare_blocks(self) -> None:
        """Checkpoint activations; compile block by block where not the whole loss is one graph.

        All blocks of a kind share one compiled graph, so a cold compile takes 23 s instead of 46 s at 4 layers of 128
        on 2 busy AMD EPYC cores, at the same speed afterwards (26.9k and 27.0k tokens/s).
        """
        self._prepared = True
        kept = self.batch_settings.activation_checkpointing
        checkpoint_blocks(self.network, kept)
        place = None if self._flat is None else self._flat.place_of_gradient
        kernels = self.hardware.cpu_kernels and kernels_if_possible(self.model, checkpointing=kept, place=place)
        self._head_loss = kernels or self._head_loss
        if self.hardware.compile and not kernels and not self._whole_graph:
            for block in self.network.transformer.h:
                block.compile(dynamic=False)

    def on_fit_end(self) -> None:
        """Free the memory of the training kernels."""
        leave_kernels(self.model)
        self._head_loss = cross_entropy if isinstance(self._head_loss, CpuLoss) else self._head_loss

    def weights_replaced(self) -> None:
        """To be called after other weights were copied into `model`."""
        if self._flat is not None:
            self._flat.publish()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch, a scalar in nats per token; with z-loss and label smoothing if they are set.

        Where a batch says how many targets the whole step has, the micro-batch's sum is divided by that number. The
        Trainer divides by the number of micro-batches and averages over processes, so both are multiplied in: the
        step's loss is the sum over all targets of the global batch by their number, however it is divided.
        """
        inputs, targets, *packed = batch
        segments, count = packed if packed else (None, None)
        if count is not None:
            together = 1 if self._sharding is None else self._sharding.tensor
            count = count / (self.trainer.accumulate_grad_batches * (self.trainer.world_size // together))
        s = self.batch_settings
        loss = self._loss(
            self.network,
            inputs,
            targets,
            segments,
            count,
            head_loss=self._head_loss,
            chunk_size=s.loss_chunk_size,
            z_loss=s.z_loss,
            smoothing=s.label_smoothing,
            teacher=self._teacher,
        )
        self._micro_losses.append(loss.detach())
        return loss

    def on_after_backward(self) -> None:
        """Add this micro-batch's gradients up in float32."""
        if self._flat is not None:
            self._flat.collect_gradients()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to `max_norm` and keep the norm; measured also when nothing is clipped."""
        limit = self.batch_settings.max_norm
        if self._flat is not None:
            self.grad_norm = self._flat.clip(limit)
            return
        if self._sharding is not None and self._sharding.tensor > 1:
            assert self.device_mesh is not None
            sum_partial_gradients(self.model, self.device_mesh["tensor_parallel"].get_group())
            divided = set(cuts(self.model.config))
            self.grad_norm = clip_gradients(self.model, divided, n=self._sharding.tensor, max_norm=limit)
            return
        if limit is None:
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        else:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.grad_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Set this step's learning rate, then step; the rate is a pure function of the step, so nothing of it needs
        saving.
        """
        factor = learning_rate_factor(self.global_step, self.optim_settings.schedule, max_steps=self.max_steps)
        self.learning_rate = set_learning_rate(optimizer.optimizer, factor)
        optimizer.step(closure=optimizer_closure)
        self.step_loss = torch.stack(self._micro_losses).mean()
        self._micro_losses.clear()

    def on_validation_epoch_start(self) -> None:
        """Reset the sums; Lightning does not know of the working copy, so its dropout is switched off here."""
        self._eval_parts.clear()
        self._was_training = self.network.training
        self.network.eval()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch's summed loss and count of targets.

        On a CPU without the compiler, which would make another graph for the forward pass alone. On other devices in
        chunks: uncompiled float32 logits of a whole batch take twice the memory of a compiled training step.
        """
        inputs, targets, *packed = batch
        with torch.compiler.set_stance("force_eager" if self.hardware.device == "cpu" else "default"):
            total, count = token_losses(
                self.network.hidden(inputs, segments=packed[0] if packed else None),
                self.network.head,
                targets,
                chunk_size=self.batch_settings.loss_chunk_size or (0 if self.hardware.device == "cpu" else EVAL_CHUNK),
            )
        self._eval_parts.append(torch.stack([total, count]))  # reading them would wait for the device at every batch

    def on_validation_epoch_end(self) -> None:
        """Token-weighted mean over all ranks."""
        sums = torch.zeros(2, dtype=torch.float64)
        for part in torch.stack(self._eval_parts).cpu().double() if self._eval_parts else ():
            sums += part
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum").cpu()
        self.eval_loss = float(sums[0] / sums[1])
        self.network.train(self._was_training)
        for part in self.model.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # a forward pass alone leaves the outer group and the last block gathered

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer with the groups of `optim/build.py`."""
        precision = self.hardware.precision
        fast_bf16 = self.hardware.fast_bf16 and precision.startswith("bf16")
        if not self.hardware.flat:
            return build_optimizer(
                self.model,
                self.optim_settings,
                fast_bf16=fast_bf16,
                fused=precision != "16-mixed",
                replicas=dist.group.WORLD if self._processes > 1 and self._sharding is None else None,
            )
        assert not isinstance(self.optim_settings, CustomOptimSettings)  # hardware.flat is never chosen for it
        dtype = torch.bfloat16 if precision == "bf16-master" else torch.float32
        optimizer = build_flat_optimizer(self.model, self.optim_settings, dtype=dtype, fast_bf16=fast_bf16)
        self._flat = optimizer.flat
        return optimizer


def _training_loss(
    model: GPT,
    inputs: Tensor,
    targets: Tensor,
    segments: Tensor | None,
    count: Tensor | None,
    *,
    head_loss: Callable[..., Tensor],
    chunk_size: int,
    z_loss: float,
    smoothing: float,
    teacher: Teacher | None = None,
) -> Tensor:
    hidden = model.hidden(inputs, segments=segments)
    if teacher is not None:
        with torch.no_grad():
            source = teacher.model.hidden(inputs, segments=segments)
        return distillation_loss(
            hidden,
            model.head,
            source,
            teacher.model.head,
            targets,
            settings=teacher.settings,
            vocab_size=model.config.vocab_size,
            chunk_size=chunk_size,
            z_loss=z_loss,
            label_smoothing=smoothing,
            count=count,
        )
    return head_loss(
        hidden, model.head, targets, chunk_size=chunk_size, z_loss=z_loss, label_smoothing=smoothing, count=count
    )
