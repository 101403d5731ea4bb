"""Llama 3's long-context rotation in GGUF: the tensor `rope_freqs.weight`, by which each frequency is divided.

    divisor_i = theta_i / adjusted theta_i, (hs / 2,): 1 for fast pairs, `factor` for slow ones, between them in between

A file does not name the four settings that the divisors were computed from. Reading tries those of Llama 3.1 and 3.2
with every power of two as original context, and refuses divisors that none of them gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import CheckpointError

Divisors = np.ndarray[Any, np.dtype[np.float64]]

_LOW, _HIGH = (1.0, 2.0), (4.0, 8.0)
_CONTEXTS = tuple(2**power for power in range(3, 21))


def divisors_of(adjustments: dict[str, Any], *, base: int, size: int) -> Divisors:
    """(size / 2,) from {factor, low_freq_factor, high_freq_factor, original_max_seq_len}.

    Args:
        base: `rope_base`.
        size: Rotated dimensions of a head.
    """
    theta = float(base) ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    turns = adjustments["original_max_seq_len"] * theta / (2 * np.pi)
    low, high = float(adjustments["low_freq_factor"]), float(adjustments["high_freq_factor"])
    keep = ((turns - low) / (high - low)).clip(0.0, 1.0)
    divisors: Divisors = 1 / ((1 - keep) / float(adjustments["factor"]) + keep)
    return divisors


def adjustments_of(divisors: Divisors, *, base: int, path: Path) -> dict[str, Any] | None:
    """The settings that give these divisors; None if all are 1. Raises CheckpointError if none do."""
    if np.allclose(divisors, 1, atol=1e-6):
        return None
    for low in _LOW:
        for high in _HIGH:
            for context in _CONTEXTS:
                tried = {
                    "factor": float(round(float(divisors.max()), 3)),
                    "low_freq_factor": low,
                    "high_freq_factor": high,
                    "original_max_seq_len": context,
                }
                if np.allclose(divisors_of(tried, base=base, size=2 * len(divisors)), divisors, rtol=1e-4):
                    return tried
    raise CheckpointError(
        f"{path} divides its rotary frequencies by {np.round(divisors[:: max(1, len(divisors) // 6)], 3).tolist()}.",
        needed="the divisors of Llama 3.1 or 3.2",
        fix="import the model's Hugging Face folder, whose config.json names the settings",
    )
