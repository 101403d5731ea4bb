"""The kernels that torch picks on CUDA, for fake tensors on a machine without one: shapes and what a derivative keeps.

torch chooses a kernel by the device that it finds. Here each operation whose kernel differs is replaced by the one that
CUDA's choice calls: flash or memory-efficient attention, RMSNorm in one kernel, dropout with its choices as bytes, one
product of all experts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.model import attend, moe
from litgpt_core.model.grouped import computing_dtype

aten = torch.ops.aten


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Flash where there is no mask and the numbers are narrow, else memory-efficient, which takes no groups."""
    if attn_mask is None and q.dtype in (torch.bfloat16, torch.float16):
        flash: Tensor = aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
        return flash
    assert q.size(1) == k.size(1) or not q.requires_grad, "no fused kernel: all scores would be held"
    mask = None if attn_mask is None else attn_mask.expand(q.size(0), q.size(1), -1, -1)
    assert mask is None or mask.dtype == q.dtype, "torch would make a mask of numbers, in every layer"
    if q.size(1) != k.size(1):
        k, v = (t.repeat_interleave(q.size(1) // t.size(1), dim=1) for t in (k, v))
    efficient = aten._scaled_dot_product_efficient_attention
    out: Tensor = efficient(q, k, v, mask, q.requires_grad, dropout_p, is_causal, scale=scale)[0]
    return out


def rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """One kernel, which keeps its input and one number a row."""
    out: Tensor = aten._fused_rms_norm(x, list(shape), weight, eps)[0]
    return out


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Keeps a byte for each number."""
    out: Tensor = aten.native_dropout(x, p, training)[0] if training and p else x
    return out


@contextmanager
def cuda_kernels() -> Iterator[None]:
    """Replace them while the block runs, and have the model's own choice of attention be that for CUDA."""
    replaced: list[tuple[Any, str, Any]] = [
        (moe, "has_grouped_kernel", lambda x, layers: computing_dtype(x) == torch.bfloat16),
        (functional, "scaled_dot_product_attention", attention),
        (functional, "rms_norm", rms_norm),
        (functional, "dropout", dropout),
        (attend, "_device_of", lambda q: "cuda"),
    ]
    before = [getattr(place, name) for place, name, _ in replaced]
    for place, name, function in replaced:
        setattr(place, name, function)
    try:
        yield
    finally:
        for (place, name, _), function in zip(replaced, before, strict=True):
            setattr(place, name, function)
