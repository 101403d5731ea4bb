"""Means with standard errors that respect clusters, intervals, and how many more items would tell a difference.

    mean of n values in G clusters   se^2 = G / (G - 1) * sum over clusters (sum of deviations)^2 / n^2
    ratio of two sums (bits/bytes)   the same of numerator - ratio * denominator, by (sum of denominators)^2

Items of one file resemble each other, so n items are worth fewer than n independent ones; the first formula is the
cluster-robust error of Liang and Zeger (1986) that Miller (2024), "Adding error bars to evals", recommends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

POWER = 0.8
"""Probability with which `more_units` units would show a difference of the measured size."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its standard error."""

    value: float
    se: float
    """NaN for a single cluster."""
    n: int
    """Items, or units of text."""
    clusters: int

    @property
    def half_width(self) -> float:
        """Of the 95 % interval."""
        return t_quantile(self.clusters - 1) * self.se if self.clusters > 1 else math.nan


def clustered_mean(values: Values, clusters: Sequence[str]) -> Estimate:
    """The mean of at least one value, and its standard error."""
    return clustered_ratio(values, np.ones(len(values)), clusters)


def clustered_ratio(numerators: Values, denominators: Values, clusters: Sequence[str]) -> Estimate:
    """sum(numerators) / sum(denominators), and its standard error (linearised)."""
    total = float(denominators.sum())
    ratio = float(numerators.sum()) / total
    _, places = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    count = int(places.max()) + 1
    sums = np.bincount(places, weights=numerators - ratio * denominators, minlength=count)
    se = math.sqrt(count / (count - 1) * float((sums**2).sum())) / total if count > 1 else math.nan
    return Estimate(value=ratio, se=se, n=len(numerators), clusters=count)


def t_quantile(degrees: int, probability: float = 0.975) -> float:
    """Of Student's distribution, by the expansion of Abramowitz and Stegun 26.7.5; within 1 % from 3 degrees on."""
    z = NormalDist().inv_cdf(probability)
    if degrees <= 2:
        return {1: math.tan(math.pi * (probability - 0.5)), 2: _two_degrees(probability)}.get(degrees, math.inf)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / float(degrees**power) for power, term in enumerate(terms, 1)))


def _two_degrees(probability: float) -> float:
    a = 4 * probability * (1 - probability)
    return 2 * (probability - 0.5) * math.sqrt(2 / a)


def more_units(estimate: Estimate) -> int | None:
    """Units of the same kind, besides those measured, after which a 95 % interval would leave 0 out with probability
    `POWER` if the difference is as measured; 0 if those measured suffice; None where there is no difference to show.
    """
    if not estimate.value or not math.isfinite(estimate.se):
        return None
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(POWER)
    needed = estimate.n * (z * estimate.se / estimate.value) ** 2
    return max(0, math.ceil(needed) - estimate.n)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p of McNemar's test: so uneven a division of the items that differ, if neither is better."""
    n = wins + losses
    if not n:
        return 1.0
    smaller = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, float(2 * smaller / (1 << n)) if n < 1000 else 2 * math.exp(math.log(smaller) - n * math.log(2)))
