"""Rotary position embedding as in `litgpt_core.model.rope`, whose page explains it: frequencies, and turning a head."""

from __future__ import annotations

import math
from typing import Any

from litgpt_core.pure.arithmetic import Vector, float32
from litgpt_core.pure.config import ModelConfig


class Rope:
    """Cosines and sines of the layers with `rope_base`, and of those with `rope_local_base_freq`."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.scaling = attention_scaling(config.rope_adjustments)
        self.tables = [frequencies(config.rope_n_elem, float(config.rope_base), config.rope_adjustments)]
        if config.rope_local_base_freq is not None:
            self.tables.append(frequencies(config.rope_n_elem, config.rope_local_base_freq, None))
        marks = config.rope_indices or [int(config.rope_local_base_freq is not None)] * config.n_layer
        self.table_of = marks

    def at(self, position: int) -> list[tuple[Vector, Vector]]:
        """Cosines and sines at a position, for each table."""
        scaled = float32(position / self.config.rope_condense_ratio)
        angles = [[float32(scaled * theta) for theta in table] for table in self.tables]
        turn = self.scaling
        return [([math.cos(t) * turn for t in row], [math.sin(t) * turn for t in row]) for row in angles]


def rotate(x: Vector, table: tuple[Vector, Vector] | None, *, interleaved: bool) -> Vector:
    """One head with its first numbers turned in pairs: (x_i, x_{i + n/2}), or neighbours, which come out in halves."""
    if table is None:
        return x
    cos, sin = table
    half, n = len(cos), 2 * len(cos)
    a, b = (x[0:n:2], x[1:n:2]) if interleaved else (x[:half], x[half:n])
    first = [p * c - q * s for p, q, c, s in zip(a, b, cos, sin, strict=True)]
    second = [q * c + p * s for p, q, c, s in zip(a, b, cos, sin, strict=True)]
    return first + second + x[n:]


def frequencies(n_elem: int, base: float, adjustments: dict[str, Any] | None) -> Vector:
    """Radians per position of each pair: plain, linear, llama3 or yarn; see `model.rope.frequencies`."""
    powers = [float32(base ** float32(i / n_elem)) for i in range(0, n_elem, 2)]
    theta = [float32(1.0 / power) for power in powers]
    if not adjustments or "factor" not in adjustments:
        return theta
    factor = float(adjustments["factor"])
    if "beta_fast" in adjustments:
        ramp = _yarn_ramp(n_elem, base, adjustments)
        mixed = [(1 - r) / (factor * power) + r / power for r, power in zip(ramp, powers, strict=True)]
        return list(map(float32, mixed))
    if "low_freq_factor" in adjustments:
        low, high = adjustments["low_freq_factor"], adjustments["high_freq_factor"]
        turns = [adjustments["original_max_seq_len"] * each / (2 * math.pi) for each in theta]
        keep = [min(max((turn - low) / (high - low), 0.0), 1.0) for turn in turns]
        return [float32((1 - k) * each / factor + k * each) for k, each in zip(keep, theta, strict=True)]
    return [float32(each / factor) for each in theta]


def _yarn_ramp(n_elem: int, base: float, a: dict[str, Any]) -> Vector:
    """From 0 to 1 over the pairs, in LitGPT's direction."""

    def dimension_of(turns: float) -> float:
        return n_elem * math.log(a["original_max_seq_len"] / (turns * 2 * math.pi)) / (2 * math.log(base))

    low: float = max(math.floor(dimension_of(a["beta_fast"])), 0)
    high: float = min(math.ceil(dimension_of(a["beta_slow"])), n_elem // 2 - 1)
    if low == high:
        high += 0.001
    return [min(max((i - low) / (high - low), 0.0), 1.0) for i in range(n_elem // 2)]


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def attention_scaling(adjustments: dict[str, Any] | None) -> float:
    """What cosines and sines are multiplied by: 1 unless YaRN."""
    if not adjustments or "beta_fast" not in adjustments:
        return 1.0
    mscales = [adjustments.get("mscale"), adjustments.get("mscale_all_dim")]
    scales = [_mscale(adjustments["factor"], value) for value in mscales if value]
    return scales[0] / scales[1] if len(scales) == 2 else (scales[0] if scales else 1.0)


def score_scaling(adjustments: dict[str, Any] | None) -> float:
    """What attention scores are multiplied by besides 1 / sqrt(hs)."""
    if not adjustments or not adjustments.get("mscale_all_dim") or not adjustments.get("factor"):
        return 1.0
    return _mscale(adjustments["factor"], adjustments["mscale_all_dim"]) ** 2
