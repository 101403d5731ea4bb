"""The three feed-forward networks; the mixture of experts is in `moe`.

    GptNeoxMLP   x --fc--> gelu --proj--> y                  I hidden units
    LLaMAMLP     x --fc_1--> silu --*--proj--> y             fc_1 is the gate, fc_2 the value (SwiGLU, Shazeer 2020)
                  '--fc_2-----------'
    GemmaMLP     the same with gelu (GeGLU)

All map (..., C) to (..., C).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.model.config import GPTConfig


class GptNeoxMLP(nn.Module):
    """Two layers with a gelu between."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.approximate = config.gelu_approximate
        self.fc = nn.Linear(config.n_embd, config.intermediate_size, bias=config.bias)
        self.proj = nn.Linear(config.intermediate_size, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)"""
        y: Tensor = self.proj(functional.gelu(self.fc(x), approximate=self.approximate))
        return y


class LLaMAMLP(nn.Module):
    """A gate that decides, elementwise, how much of the value passes."""

    def __init__(self, config: GPTConfig, *, intermediate_size: int | None = None) -> None:
        super().__init__()
        self.approximate = config.gelu_approximate
        hidden = intermediate_size or config.intermediate_size
        self.fc_1 = nn.Linear(config.n_embd, hidden, bias=config.bias)
        self.fc_2 = nn.Linear(config.n_embd, hidden, bias=config.bias)
        self.proj = nn.Linear(hidden, config.n_embd, bias=config.bias)

    def gate(self, x: Tensor) -> Tensor:
        """How much of each hidden unit passes."""
        return functional.silu(x)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)"""
        y: Tensor = self.proj(self.gate(self.fc_1(x)) * self.fc_2(x))
        return y


class GemmaMLP(LLaMAMLP):
    """LLaMAMLP with gelu as the gate."""

    def gate(self, x: Tensor) -> Tensor:
        """How much of each hidden unit passes."""
        return functional.gelu(x, approximate=self.approximate)
