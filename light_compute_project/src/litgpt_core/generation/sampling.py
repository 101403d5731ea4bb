"""Sampling: pure functions from the logits of the next token, settings and a uniform random number to a token.

    logits -> penalties -> / temperature -> top_k -> top_p -> min_p -> the first token, in descending order of
                                                                       probability, whose cumulative weight exceeds
                                                                       `uniform` times the total

B sequences, V tokens. `sample` is the fast implementation, which sorts only as much as necessary; the CPU kernel has
its own (kernels/sampling.hpp). `sample_reference` sorts the whole distribution, and the tests compare the three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.sampling_settings import GREEDY, SamplingSettings

__all__ = ["GREEDY", "SamplingSettings", "UniformRng", "penalize", "sample", "sample_reference"]

MIN_TEMPERATURE = 1e-6
"""Below it decoding is greedy: the quotient could overflow, and no other token would ever be sampled."""
MAX_TEMPERATURE = 1e30
"""Higher temperatures are clamped: they change nothing and exceed the range of float32."""
FIRST_CANDIDATES = 512
"""For top_p, this many most probable tokens are examined before the whole vocabulary is sorted."""


class UniformRng:
    """Uniform random numbers in [0, 1), equal for equal seeds on every device; generated in blocks, which is faster."""

    def __init__(self, seed: int | None) -> None:
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._block: list[float] = []

    def next(self) -> float:
        """The next number."""
        if not self._block:
            self._block = torch.rand(64, generator=self._generator, dtype=torch.float64).tolist()
            self._block.reverse()
        return self._block.pop()


def sample(logits: Tensor, settings: Sequence[SamplingSettings], *, uniforms: Sequence[float]) -> list[int]:
    """One token per sequence; the token of a sequence does not depend on the other rows.

    Args:
        logits: (B, V), any float dtype, penalties already applied.
        settings: Sampling settings of each sequence.
        uniforms: A uniform random number in [0, 1) for each sequence.

    Raises:
        CheckpointError: The logits hold NaN or +inf.
    """
    logits = check_finite(logits)
    first = settings[0]
    if all(other is first or other == first for other in settings[1:]):
        return _sample_rows(logits, first, uniforms)
    groups: dict[SamplingSettings, list[int]] = {}
    for row, own in enumerate(settings):
        groups.setdefault(own, []).append(row)
    tokens = [0] * len(settings)
    for shared, rows in groups.items():
        for row, token in zip(rows, _sample_rows(logits[rows], shared, [uniforms[row] for row in rows]), strict=True):
            tokens[row] = token
    return tokens


def check_finite(logits: Tensor) -> Tensor:
    """`logits` in float32; raises CheckpointError for NaN or +inf.

    On the CPU if their device has no float64, in which cumulative weights are computed: that is the case on MPS.
    """
    logits = logits.float()
    if logits.device.type == "mps":
        logits = logits.cpu()
    if not bool((logits < math.inf).all()):  # false for NaN too
        raise non_finite_error()
    return logits


def non_finite_error() -> CheckpointError:
    """The error for logits that hold NaN or +inf."""
    return CheckpointError(
        "The model returned NaN or infinite logits.",
        needed="finite weights; training may have diverged, or 16-bit numbers overflowed",
        fix="use an earlier checkpoint, or run in float32: --precision 32",
    )


def _sample_rows(logits: Tensor, settings: SamplingSettings, uniforms: Sequence[float]) -> list[int]:
    tokens: list[int]
    if settings.temperature < MIN_TEMPERATURE:
        tokens = logits.argmax(dim=-1).tolist()
        return tokens
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / min(settings.temperature, MAX_TEMPERATURE)  # <= 0
    values, places, total = _candidates(scaled, settings)
    weights = values.exp().double()
    if settings.top_p < 1:
        total = weights.sum(dim=-1, keepdim=True) if total is None else total
        before = weights.cumsum(dim=-1) - weights  # sum of the more probable ones; 0 for the first
        weights = weights.masked_fill(before >= settings.top_p * total, 0.0)
    if settings.min_p > 0:
        weights = weights.masked_fill(values < math.log(settings.min_p), 0.0)
    cumulative = weights.cumsum(dim=-1)
    thresholds = torch.tensor(uniforms, dtype=torch.float64, device=logits.device).unsqueeze(-1) * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, thresholds, right=True)  # (B, 1): the first sum above the threshold
    tokens = (chosen if places is None else places.gather(-1, chosen)).squeeze(-1).tolist()
    return tokens


def _candidates(scaled: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(values, their tokens or None for all in order, total weight of the distribution or None for that of `values`).

    Values are in descending order, unless min_p is the only filter.
    """
    size = scaled.size(-1)
    if settings.top_k and settings.top_k < size:
        values, places = scaled.topk(settings.top_k, dim=-1)
        return values, places, None
    if settings.top_p == 1:
        return scaled, None, None
    total = scaled.exp().sum(dim=-1, keepdim=True, dtype=torch.float64)
    if size > 2 * FIRST_CANDIDATES:
        values, places = scaled.topk(FIRST_CANDIDATES, dim=-1)
        if bool((values.exp().sum(dim=-1, keepdim=True, dtype=torch.float64) > settings.top_p * total).all()):
            return values, places, total
    values, places = scaled.sort(dim=-1, descending=True)
    return values, places, total


def penalize(
    logits: Tensor, settings: SamplingSettings, *, prompt_ids: Sequence[int], new_ids: Sequence[int]
) -> Tensor:
    """(V,) -> (V,): the logits of one sequence with its penalties applied.

    `repetition_penalty` is Keskar et al.'s (2019, arXiv 1909.05858) over prompt and new tokens; `frequency_penalty` and
    `presence_penalty` are OpenAI's over the new tokens.
    """
    size = logits.size(-1)
    logits = logits.float().clone()
    seen = {*prompt_ids, *new_ids}
    if settings.repetition_penalty != 1 and seen:
        places = torch.tensor(sorted(token for token in seen if token < size), device=logits.device)
        values = logits[places]
        logits[places] = torch.where(
            values > 0, values / settings.repetition_penalty, values * settings.repetition_penalty
        )
    if new_ids and (settings.frequency_penalty or settings.presence_penalty):
        places, counts = torch.unique(torch.tensor(new_ids, device=logits.device), return_counts=True)
        logits[places] -= settings.frequency_penalty * counts + settings.presence_penalty
    return logits


# --- the reference implementation


def sample_reference(logits: Tensor, settings: SamplingSettings, *, uniform: float) -> int:
    """(V,) -> one token: equals `sample` for one sequence, up to rounding at the boundaries between tokens."""
    logits = check_finite(logits)
    if settings.temperature < MIN_TEMPERATURE:
        return int(logits.argmax())
    scaled = (logits - logits.amax()) / min(settings.temperature, MAX_TEMPERATURE)
    kept = filter_logits(scaled.unsqueeze(0), settings)[0]
    ordered = settings.top_p < 1 or bool(settings.top_k and settings.top_k < logits.numel())
    places = kept.argsort(descending=True) if ordered else torch.arange(logits.numel())
    cumulative = torch.softmax(kept.double(), dim=-1)[places].cumsum(dim=-1)
    return int(places[int((cumulative <= uniform * cumulative[-1]).sum())])


def filter_logits(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """(B, V) -> (B, V): -inf for tokens that top_k, top_p or min_p exclude. The most probable token always stays."""
    if settings.top_k and settings.top_k < logits.size(-1):
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p < 1:
        logits = keep_top_p(logits, settings.top_p)
    if settings.min_p > 0:
        logits = keep_min_p(logits, settings.min_p)
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Exactly the k largest, even among equal ones, so that k = 1 is greedy."""
    values, places = logits.topk(k, dim=-1)
    return torch.full_like(logits, -math.inf).scatter(-1, places, values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest largest whose probabilities sum to at least p (nucleus sampling, Holtzman et al. 2020)."""
    ordered, places = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # sum of the larger ones; 0 for the first
    ordered = ordered.masked_fill(before >= p, -math.inf)
    return torch.empty_like(logits).scatter(-1, places, ordered)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Those with at least p times the largest probability (Nguyen et al. 2024)."""
    threshold = logits.amax(dim=-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < threshold, -math.inf)
