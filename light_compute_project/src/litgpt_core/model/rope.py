"""Rotary position embedding (Su et al. 2021): each pair of a head's dimensions is turned by position * theta.

                        one head, hs = 8, rotary_percentage = 0.75, so n = rope_n_elem = 6
    halves (default)    [ a0 a1 a2 | b0 b1 b2 | kept kept ]     pair i = (a_i, b_i), turned by theta_i = base^(-2i/n)
    rope_interleave     [ a0 b0 a1 b1 a2 b2 | kept kept ]       same pairs as neighbours; the output is in halves

Angles are fp32 whatever the model's dtype: at position 10,000 a bf16 angle is wrong by whole turns. Only the n/2
frequencies are kept; cos and sin are made once per forward pass, for its positions: no table limits the length.

Frequencies can be bent for longer contexts by `rope_adjustments` (see `frequencies`). YaRN follows LitGPT 0.5.13
literally, because a checkpoint must compute the same in both: its ramp runs the other way round than in the paper
(Peng et al. 2023), so that the fast dimensions are the interpolated ones. Not here: which layer uses which base
(`gpt`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from litgpt_core.model.config import GPTConfig

RopeTable = tuple[Tensor, Tensor]
"""cos and sin, each (T, rope_n_elem / 2) or, where positions differ by sequence, (B, 1, T, rope_n_elem / 2), fp32."""


class RotaryEmbedding(nn.Module):
    """Positions -> cos and sin. Two tables if `rope_local_base_freq` is set: [rope_base, local base].

    The frequencies are a buffer outside the state dict. They are made anew whenever the module is cast or moved, so
    that `model.to(torch.bfloat16)` cannot round them and `to_empty` cannot lose them.
    """

    theta: Tensor  # (tables, rope_n_elem / 2)

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.scaling = attention_scaling(config.rope_adjustments)
        self.register_buffer("theta", self._build(torch.get_default_device()), persistent=False)

    def forward(self, positions: Tensor) -> list[RopeTable]:
        """(T,) or (B, T) int -> one (cos, sin) per base, of the shapes of `RopeTable`"""
        scaled = positions.float() / self.config.rope_condense_ratio
        if positions.dim() == 1:
            angles = scaled[:, None] * self.theta[:, None, :]  # (tables, T, n/2)
        else:
            angles = scaled[:, None, :, None] * self.theta[:, None, None, None, :]  # (tables, B, 1, T, n/2)
        cos, sin = angles.cos() * self.scaling, angles.sin() * self.scaling
        return list(zip(cos.unbind(), sin.unbind(), strict=True))

    def reset_parameters(self) -> None:
        """Fill the frequencies in again; sharding libraries call this after `to_empty`."""
        self.theta = self._build(self.theta.device)

    def _build(self, device: torch.device) -> Tensor:
        c = self.config
        tables = [frequencies(c.rope_n_elem, base=c.rope_base, adjustments=c.rope_adjustments)]
        if c.rope_local_base_freq is not None:
            tables.append(frequencies(c.rope_n_elem, base=c.rope_local_base_freq))
        return torch.stack(tables).to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reset_parameters()
        return self


def apply_rope(x: Tensor, table: RopeTable | None, *, interleaved: bool = False) -> Tensor:
    """Turn the first rope_n_elem dimensions of every head and keep the rest.

    Args:
        x: (..., T, hs).
        table: cos and sin, (T, rope_n_elem / 2) each; None leaves x as it is.
        interleaved: The pairs are neighbours in x. The output is in halves all the same: scores do not depend on the
            order as long as queries and keys share it.

    Returns:
        (..., T, hs) in x's dtype.
    """
    if table is None:
        return x
    cos, sin = table
    n = 2 * cos.size(-1)
    turned, kept = x[..., :n], x[..., n:]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, dim=-1)
    a, b = a * cos - b * sin, b * cos + a * sin
    return torch.cat((a.to(x.dtype), b.to(x.dtype), kept), dim=-1)


def frequencies(n_elem: int, *, base: float, adjustments: dict[str, Any] | None = None) -> Tensor:
    """Radians per position of each pair: (n_elem / 2,) fp32, on the CPU.

    plain    theta_i = base^(-2i / n_elem)
    linear   {factor}: theta / factor (Chen et al. 2023)
    llama3   {factor, low_freq_factor, high_freq_factor, original_max_seq_len}: slow pairs are divided by factor
    yarn     {factor, beta_fast, beta_slow, original_max_seq_len [, mscale, mscale_all_dim]}: a ramp over dimensions
    """
    theta = 1.0 / _powers(n_elem, base)
    if not adjustments or "factor" not in adjustments:
        return theta
    if "beta_fast" in adjustments:
        return _yarn(n_elem, base, adjustments)
    if "low_freq_factor" in adjustments:
        return _llama3(theta, adjustments)
    return theta / float(adjustments["factor"])


def _powers(n_elem: int, base: float) -> Tensor:
    exponent = torch.arange(0, n_elem, 2, dtype=torch.float32, device="cpu") / n_elem
    return torch.pow(base, exponent)


def _llama3(theta: Tensor, a: dict[str, Any]) -> Tensor:
    """Blend by how many wavelengths fit into the original context: scaled below low_freq_factor, kept above high."""
    turns = a["original_max_seq_len"] / (2 * torch.pi / theta)
    keep = ((turns - a["low_freq_factor"]) / (a["high_freq_factor"] - a["low_freq_factor"])).clamp(0.0, 1.0)
    blended: Tensor = (1 - keep) * (theta / a["factor"]) + keep * theta
    return blended


def _yarn(n_elem: int, base: float, a: dict[str, Any]) -> Tensor:
    """Blend by dimension index, in upstream's direction (see the module docstring)."""

    def dimension_of(turns: float) -> float:
        """The dimension that makes this many turns within the original context."""
        return n_elem * math.log(a["original_max_seq_len"] / (turns * 2 * math.pi)) / (2 * math.log(base))

    low: float = max(math.floor(dimension_of(a["beta_fast"])), 0)
    high: float = min(math.ceil(dimension_of(a["beta_slow"])), n_elem // 2 - 1)
    if low == high:
        high += 0.001  # no division by zero
    ramp = ((torch.arange(n_elem // 2, dtype=torch.float32, device="cpu") - low) / (high - low)).clamp(0.0, 1.0)
    powers = _powers(n_elem, base)
    blended: Tensor = (1.0 / (a["factor"] * powers)) * (1 - ramp) + (1.0 / powers) * ramp
    return blended


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature: 0.1 * mscale * ln(factor) + 1."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def attention_scaling(adjustments: dict[str, Any] | None) -> float:
    """What cos and sin are multiplied by: 1 unless YaRN."""
    if not adjustments or "beta_fast" not in adjustments:
        return 1.0
    mscale, all_dim = adjustments.get("mscale"), adjustments.get("mscale_all_dim")
    scales = [yarn_mscale(adjustments["factor"], value) for value in (mscale, all_dim) if value]
    return scales[0] / scales[1] if len(scales) == 2 else (scales[0] if scales else 1.0)


def score_scaling(adjustments: dict[str, Any] | None) -> float:
    """What attention scores are multiplied by besides 1 / sqrt(hs): 1 unless `mscale_all_dim` is set (DeepSeek)."""
    if not adjustments or not adjustments.get("mscale_all_dim") or not adjustments.get("factor"):
        return 1.0
    return yarn_mscale(adjustments["factor"], adjustments["mscale_all_dim"]) ** 2
