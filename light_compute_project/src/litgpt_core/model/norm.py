"""The two norms of the registry, and the function that picks one of them.

    LayerNorm   (x - mean) / sqrt(var + eps) * weight + bias     "OLMo" in the name: no weight, no bias
    RMSNorm      x / sqrt(mean(x^2) + eps) * weight              "Gemma" in the name: times (1 + weight)

Picking by name is LitGPT's rule; its checkpoints depend on it. Initial values are set in `init`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.model.config import GPTConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019), computed in fp32 or wider, returned in x's dtype."""

    def __init__(self, size: int, *, eps: float, add_unit_offset: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.add_unit_offset = add_unit_offset
        self.weight = nn.Parameter(torch.zeros(size) if add_unit_offset else torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)"""
        wide = torch.promote_types(x.dtype, torch.float32)
        weight = self.weight.to(wide)
        if self.add_unit_offset:
            weight = 1 + weight
        return functional.rms_norm(x.to(wide), weight.shape, weight, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        """What the repr of a model shows for this norm."""
        return f"{self.weight.numel()}, eps={self.eps}" + (", 1 + weight" if self.add_unit_offset else "")


def build_norm(config: GPTConfig, size: int) -> nn.Module:
    """The config's norm over the last dimension of `size`."""
    if config.norm_class_name == "RMSNorm":
        return RMSNorm(size, eps=config.norm_eps, add_unit_offset="Gemma" in config.name)
    return nn.LayerNorm(size, eps=config.norm_eps, elementwise_affine="OLMo" not in config.name)
