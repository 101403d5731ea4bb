"""Round to nearest, with a search for the scales.

    q = clamp(round(w / s)),   s = argmin over candidates of  sum_k h_k (w_k - s q_k)^2

`h` is 1, or the mean square of input k (llama.cpp's importance matrix). Candidates are fractions of the scale that
just represents the largest weight, with either sign where the grid is not symmetric; for each one the codes are rounded
first, and then the scale that fits these codes best is used: s = sum h w q / sum h q^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from litgpt_core.checkpoint.compressed import IntegerMatrix
from litgpt_core.model import grid
from litgpt_core.model.grid import Grid

FRACTIONS = tuple(1.0 - 0.04 * i for i in range(11))
"""Candidates of `search_scales`: from 1 to 0.6."""


def round_matrix(
    weight: Tensor, *, bits: int, clip: str = "mse", per: str = "group", importance: Tensor | None = None
) -> IntegerMatrix:
    """Quantize (O, K) to nearest.

    Args:
        weight: float32.
        bits: See `Grid`.
        clip: absmax, or else a search.
        per: group, channel or tensor: which weights share a scale.
        importance: (K,) weights of squared errors; None: 1.
    """
    kind, units = Grid(bits), _units(weight, per)
    weights = None if importance is None else _units(importance.expand_as(weight), per)
    scales = kind.absmax_scales(units) if clip == "absmax" else search_scales(units, kind, importance=weights)
    spread = scales.repeat_interleave(weight.numel() // grid.GROUP // scales.numel()).view(weight.size(0), -1)
    return pack_matrix(weight, grid.stored_scales(spread), bits=bits)


def pack_matrix(weight: Tensor, scales: Tensor, *, bits: int) -> IntegerMatrix:
    """(O, K) weights with given (O, G) scales -> codes and scales as they are stored."""
    kind = Grid(bits)
    codes = kind.codes(grid.grouped(weight), scales).flatten(-2)
    packed = grid.pack(codes, scales, stored_bits=kind.stored_bits)
    return IntegerMatrix(*packed, rows=weight.size(0))


def _units(weight: Tensor, per: str) -> Tensor:
    size = {"group": grid.GROUP, "channel": weight.size(1), "tensor": weight.numel()}[per]
    return weight.reshape(-1, size)


def search_scales(units: Tensor, kind: Grid, *, importance: Tensor | None = None) -> Tensor:
    """(N, n) weights -> (N,) scales in float32 that are float16 numbers: the least weighted squared error."""
    h = torch.ones_like(units) if importance is None else importance
    first = kind.absmax_scales(units)
    best, least = grid.stored_scales(first), torch.full_like(first, torch.inf)
    signs = (1.0,) if kind.bits == 8 else (1.0, -1.0)
    for factor in (sign * fraction for sign in signs for fraction in FRACTIONS):
        codes = kind.codes(units, first * factor)
        weighted = h * codes
        fit = (weighted * units).sum(-1) / (weighted * codes).sum(-1).clamp_min(1e-20)
        scales = grid.stored_scales(fit)
        codes = kind.codes(units, scales)
        error = (h * (units - codes * scales.unsqueeze(-1)).square()).sum(-1)
        better = error < least
        best, least = torch.where(better, scales, best), torch.where(better, error, least)
    return best
