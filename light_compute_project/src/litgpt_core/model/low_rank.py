"""A linear layer as two thin ones: W is about U V, with V (r, K) and U (O, r). Smaller where r (O + K) < O K."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.core.errors import ConfigError


class LowRankLinear(nn.Module):
    """y = U (V x) + b.

    Args:
        down: V, (r, K).
        up: U, (O, r).
        bias: (O,) or None.

    Raises:
        ConfigError: The two are not smaller than the matrix that they replace.
    """

    def __init__(self, down: Tensor, up: Tensor, *, bias: Tensor | None = None) -> None:
        super().__init__()
        rank, self.in_features = down.shape
        self.out_features = up.size(0)
        if rank >= break_even_rank(self.out_features, self.in_features):
            raise ConfigError(
                f"Rank {rank} for a matrix of {self.out_features} x {self.in_features} saves nothing.",
                needed=f"a rank below {break_even_rank(self.out_features, self.in_features):.0f}",
                fix="a smaller share of the parameters",
            )
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(up, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., O)"""
        return functional.linear(functional.linear(x, self.down), self.up, self.bias)


def break_even_rank(rows: int, columns: int) -> float:
    """The rank at which two thin matrices have as many parameters as one of (rows, columns)."""
    return rows * columns / (rows + columns)
