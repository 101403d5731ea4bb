"""Which frequencies are the rows of a matrix made of, where row n stands for the number n?

A model that has learnt addition modulo p holds its numbers as cosines and sines of a few frequencies, and adds by
turning (Nanda et al. 2023, "Progress measures for grokking"). In one that has memorised its examples all frequencies
have about the same share.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fourier_shares(rows: Tensor) -> Tensor:
    """(p, C), row n for the number n, p >= 3 -> (p // 2,) share of the variance at the frequencies 1 .. p // 2.

    The shares sum to 1. Frequency k is that of cos(2 pi k n / p) and sin(2 pi k n / p).
    """
    centred = (rows - rows.mean(dim=0)).double()
    power = torch.fft.rfft(centred, dim=0)[1:].abs().square().sum(dim=1)  # (p // 2,)
    if len(rows) % 2 == 0:
        power[-1] /= 2  # the others stand for two coefficients each, the highest for one
    shares: Tensor = (power / power.sum()).float()
    return shares


def concentration(rows: Tensor, *, frequencies: int = 5) -> float:
    """Share of the variance in the strongest frequencies."""
    return float(fourier_shares(rows).sort(descending=True).values[:frequencies].sum())
