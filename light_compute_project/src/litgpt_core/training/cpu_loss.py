"""The next-token loss by the C++ kernels (`kernels/loss.hpp`), as one operation of autograd.

Logits are held once: their gradient takes their place in the forward pass. With chunks those of one chunk are held:
its gradients of the hidden states and the head are computed in the forward pass too, and nothing is computed twice. The
slow implementation that the tests compare with is `model.loss.cross_entropy`, which also computes what the kernels do
not: z-loss, label smoothing, heads with a bias or a soft-cap.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from litgpt_core.model.gpt import GPT
from litgpt_core.model.loss import Head, cross_entropy
from litgpt_core.training.cpu_block import products_in_bfloat16
from litgpt_core.training.cpu_memory import StepMemory

IGNORED = -100


class CpuLoss:
    """Takes the place of `cross_entropy` for one model.

    Args:
        model: Its head is read at each call.
        library: The kernels.
        memory: Shared with the blocks.
        multiple: Of which the vocabulary must be a multiple.
    """

    def __init__(self, model: GPT, *, library: ctypes.CDLL, memory: StepMemory, multiple: int) -> None:
        self.model, self.library, self.memory, self.multiple = model, library, memory, multiple

    def __call__(
        self,
        hidden: Tensor,
        head: Head,
        targets: Tensor,
        *,
        chunk_size: int = 0,
        z_loss: float = 0.0,
        label_smoothing: float = 0.0,
        count: Tensor | None = None,
    ) -> Tensor:
        """See `cross_entropy`; `head` is that of the model."""
        if z_loss or label_smoothing or not self._supported():
            settings = {"chunk_size": chunk_size, "z_loss": z_loss, "label_smoothing": label_smoothing}
            return cross_entropy(hidden, head, targets, count=count, **settings)  # type: ignore[arg-type]
        rows, labels = hidden.float().reshape(-1, hidden.size(-1)), targets.reshape(-1)
        weight = self.model.lm_head.weight
        if 0 < chunk_size < len(rows):
            total: Tensor = _ChunkedLoss.apply(self, rows, weight, labels, chunk_size, torch.is_grad_enabled())
        else:
            total = _LossFunction.apply(self, rows, weight, labels)
        return total / (labels != IGNORED).sum().clamp(min=1) if count is None else total / count

    def _supported(self) -> bool:
        head, config = self.model.lm_head, self.model.config
        return (
            type(head) is nn.Linear
            and not config.lm_head_bias
            and config.final_logit_softcapping is None
            and head.weight.dtype == torch.float32
            and config.padded_vocab_size % self.multiple == 0
        )

    def forward(self, hidden: Tensor, head: Tensor, targets: Tensor, *, bfloat16: bool) -> tuple[Tensor, Tensor]:
        """Losses (N,) and the gradient of the logits (N * V,)."""
        (n, width), vocabulary, threads = hidden.shape, head.size(0), torch.get_num_threads()
        if n and not 0 <= int(targets.clamp(min=0).max()) < vocabulary:
            raise IndexError(f"a target is {int(targets.max())}, the vocabulary has {vocabulary} rows")
        slopes, losses = self.memory.take(n * vocabulary), torch.empty(n)
        scratch = self.memory.scratch(self.library.lc_loss_scratch(n, width, vocabulary, threads, 0, bfloat16))
        self.library.lc_loss_forward(
            *(hidden.data_ptr(), head.data_ptr(), targets.data_ptr(), IGNORED, n, width, vocabulary),
            *(slopes.data_ptr(), losses.data_ptr(), scratch.data_ptr(), threads, bfloat16),
        )
        return losses, slopes

    def backward(
        self,
        hidden: Tensor,
        head: Tensor,
        slopes: Tensor,
        scale: float,
        *,
        bfloat16: bool,
        add_to: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Gradients of hidden and head; gives `slopes` back.

        Args:
            hidden: (n, C).
            head: (V, C).
            slopes: What `forward` returned.
            scale: Gradient of the sum of losses.
            bfloat16: As in the forward pass.
            add_to: The head's gradient so far, to which is added in place.
        """
        (n, width), vocabulary, threads = hidden.shape, head.size(0), torch.get_num_threads()
        hidden_gradient = torch.empty_like(hidden)
        head_gradient = torch.empty_like(head) if add_to is None else add_to
        scratch = self.memory.scratch(self.library.lc_loss_scratch(n, width, vocabulary, threads, 1, bfloat16))
        self.library.lc_loss_backward(
            *(hidden.data_ptr(), head.data_ptr(), slopes.data_ptr(), scale, n, width, vocabulary),
            *(hidden_gradient.data_ptr(), head_gradient.data_ptr(), scratch.data_ptr(), threads, bfloat16),
            add_to is not None,
        )
        self.memory.give(slopes)
        return hidden_gradient, head_gradient


class _LossFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: CpuLoss, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        hidden, targets = hidden.contiguous(), targets.contiguous()
        ctx.bfloat16 = products_in_bfloat16()
        losses, ctx.slopes = kernel.forward(hidden, head, targets, bfloat16=ctx.bfloat16)
        ctx.save_for_backward(hidden, head)
        ctx.kernel = kernel
        return losses.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.slopes is None:
            raise RuntimeError("the training kernels keep nothing for a second backward pass of the same forward pass")
        hidden, head = ctx.saved_tensors
        slopes, ctx.slopes = ctx.slopes, None
        return (None, *ctx.kernel.backward(hidden, head, slopes, float(gradient), bfloat16=ctx.bfloat16), None)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: CpuLoss,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        chunk_size: int,
        backward_follows: bool,
    ) -> Tensor:
        hidden, targets, bfloat16 = hidden.contiguous(), targets.contiguous(), products_in_bfloat16()
        sums, hidden_gradients, head_gradient = [], [], None
        for rows, labels in zip(torch.split(hidden, chunk_size), torch.split(targets, chunk_size), strict=True):
            losses, slopes = kernel.forward(rows, head, labels, bfloat16=bfloat16)
            sums.append(losses.sum())
            if backward_follows:
                of_rows, head_gradient = kernel.backward(
                    rows, head, slopes, 1.0, bfloat16=bfloat16, add_to=head_gradient
                )
                hidden_gradients.append(of_rows)
            else:
                kernel.memory.give(slopes)
        if backward_follows:
            ctx.gradients = torch.cat(hidden_gradients), head_gradient
        return torch.stack(sums).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the training kernels keep nothing for a second backward pass of the same forward pass")
        (of_hidden, of_head), ctx.gradients = ctx.gradients, None
        return None, of_hidden.mul_(gradient), of_head.mul_(gradient), None, None, None
