"""The scale of a group of weights with the least weighted squared error after rounding.

    q = clamp(round(w / s)),   s = argmin over candidates of  sum_k h_k (w_k - s q_k)^2

`h` is 1, or the mean square of input k (llama.cpp's importance matrix). Candidates are fractions of the scale that just
represents the largest weight, with either sign where the grid is not symmetric. The codes of a candidate fix its best
scale, s = sum h w q / sum h q^2, and how much of sum h w^2 it explains: (sum h w q)^2 / sum h q^2. The candidate that
explains most is rounded once more with its best scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from litgpt_core.model import grid
from litgpt_core.model.grid import Grid

FRACTIONS = tuple(1.0 - 0.04 * i for i in range(11))
"""From 1 to 0.6."""
AT_ONCE = 1 << 16
"""Weights that are searched together: they stay in a processor's cache."""


def search_scales(units: Tensor, kind: Grid, *, importance: Tensor | None = None) -> Tensor:
    """(N, n) weights -> (N,) scales in float32 that are float16 numbers; never worse than those of the largest weight.

    Args:
        units: Weights that share a scale, float32.
        kind: The grid.
        importance: (N, n), h; None: 1.
    """
    rows = max(1, AT_ONCE // units.size(1))
    parts = [
        _search(part.contiguous(), kind, None if importance is None else importance[i * rows : (i + 1) * rows])
        for i, part in enumerate(torch.split(units, rows))
    ]
    return torch.cat(parts) if parts else units.new_zeros(0)


def _search(units: Tensor, kind: Grid, importance: Tensor | None) -> Tensor:
    weighted = units if importance is None else units * importance
    first = kind.absmax_scales(units)
    in_steps = units * _inverse(first).unsqueeze(-1)
    most, best = torch.full_like(first, -torch.inf), first
    codes = torch.empty_like(units)
    signs = (1.0,) if kind.bits == 8 else (1.0, -1.0)
    for factor in (sign * fraction for sign in signs for fraction in FRACTIONS):
        torch.mul(in_steps, 1.0 / factor, out=codes).round_().clamp_(kind.lowest, kind.highest)
        fit, explained = _fit(codes, weighted, importance)
        better = explained > most
        most, best = torch.where(better, explained, most), torch.where(better, fit, best)
    return _least_error(units, kind, importance, first=first, fitted=best)


def _fit(codes: Tensor, weighted: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """(N,) best scales of given codes, and what they explain."""
    product = (weighted * codes).sum(-1)
    squares = (codes.square() if importance is None else codes.square() * importance).sum(-1).clamp_min(1e-20)
    fit = product / squares
    return fit, fit * product


def _least_error(units: Tensor, kind: Grid, importance: Tensor | None, *, first: Tensor, fitted: Tensor) -> Tensor:
    """The better of two scales, both rounded to float16 and applied; `first` where they are equal."""
    found, least = grid.stored_scales(first), None
    for scales in (found, grid.stored_scales(fitted)):
        difference = units - kind.codes(units, scales) * scales.unsqueeze(-1)
        error = (difference.square() if importance is None else difference.square() * importance).sum(-1)
        better = torch.zeros_like(error, dtype=torch.bool) if least is None else error < least
        found = torch.where(better, scales, found)
        least = error if least is None else torch.where(better, error, least)
    return found


def _inverse(scales: Tensor) -> Tensor:
    return torch.where(scales == 0, 0.0, 1.0 / torch.where(scales == 0, 1.0, scales))
