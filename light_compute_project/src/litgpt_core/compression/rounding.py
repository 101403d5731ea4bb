"""Round to nearest: every weight gets the nearest code; the scales are searched (`model.scale_search`) or absmax."""

from __future__ import annotations

from torch import Tensor

from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.model import grid
from litgpt_core.model.grid import Grid
from litgpt_core.model.scale_search import search_scales


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
    n_scales = weight.size(0) * grid.n_groups(weight.size(1))
    spread = scales.repeat_interleave(n_scales // scales.numel()).view(weight.size(0), -1)
    return IntegerMatrix.of(weight, grid.stored_scales(spread), bits=bits)


def _units(weight: Tensor, per: str) -> Tensor:
    if per == "group":
        return grid.grouped(weight).reshape(-1, grid.GROUP)
    return weight.reshape(-1, weight.size(1) if per == "channel" else weight.numel())
