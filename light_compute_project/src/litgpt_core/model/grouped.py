"""Matrix products of sorted rows with one matrix per block of rows, as one kernel: what a mixture of experts needs.

    x (rows, I)    [ block 0 | block 1 |   | block 3 ]     a block may be empty
    weights           W_0 (O, I)  W_1  W_2  W_3
    y (rows, O)    [ x W_0^T | x W_1^T |   | x W_3^T ]

All shapes are known to the host, so it never waits for the device, and torch.compile makes one graph. The kernel wants
the matrices in one tensor: they are copied for each pass, and not kept from the forward to the backward pass, so that
FSDP2 can free them in between. The slow reference is the loop over blocks in `moe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

ALIGNMENT = 8
"""Numbers of 2 bytes to which the kernel wants rows aligned."""


def grouped_product(x: Tensor, ends: Tensor, weights: Sequence[Tensor] | Tensor) -> Tensor:
    """(rows, I), (E,) int32 and E matrices (O, I) -> (rows, O), in the dtype of `x`.

    Args:
        x: Sorted by block.
        ends: Number of rows up to the end of each block, not falling; the last is the number of rows.
        weights: One for each block, cast to the dtype of `x`; or all of them in one tensor (E, O, I) of that dtype,
            which is not copied.
    """
    if isinstance(weights, Tensor):
        return functional.grouped_mm(x, weights.mT, offs=ends)
    result: Tensor = _Grouped.apply(x, ends, *weights)
    return result


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ends: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, ends, *weights)
        return functional.grouped_mm(x, _stacked(weights, x.dtype).mT, offs=ends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, ends, *weights = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = functional.grouped_mm(gradient, _stacked(weights, x.dtype), offs=ends)
        of_weights = functional.grouped_mm(gradient.mT, x, offs=ends)  # (E, O, I)
        return of_x, None, *(g.to(w.dtype) for g, w in zip(of_weights.unbind(), weights, strict=True))


def _stacked(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """(E, O, I), in one pass over the weights."""
    together = torch.empty(len(weights), *weights[0].shape, dtype=dtype, device=weights[0].device)
    torch._foreach_copy_(list(together.unbind()), list(weights))
    return together


def computing_dtype(x: Tensor) -> torch.dtype:
    """What linear layers compute in: autocast's dtype where it is on."""
    kind = x.device.type
    mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if mixed else x.dtype


def has_grouped_kernel(x: Tensor, layers: Sequence[nn.Module]) -> bool:
    """Whether one kernel multiplies rows like `x` with these layers: on CUDA from Ampere on, in bfloat16, plain layers
    without bias, of sizes that it takes, and without hooks, which would not be called.
    """
    if x.device.type != "cuda" or computing_dtype(x) != torch.bfloat16 or not _new_enough(x.device):
        return False
    return all(type(layer) is nn.Linear and _fits(layer) for layer in layers)


def _fits(layer: nn.Linear) -> bool:
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    aligned = not (layer.in_features % ALIGNMENT or layer.out_features % ALIGNMENT)
    return aligned and not hooked and len(list(layer.parameters())) == 1


@cache
def _new_enough(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)
