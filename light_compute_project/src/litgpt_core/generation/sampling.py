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
from litgpt_core.generation.device_copies import numbers_on
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
    logits = _widened(logits)
    groups: dict[SamplingSettings, list[int]] = {}
    for row, own in enumerate(settings):
        groups.setdefault(own, []).append(row)
    finite = (logits < math.inf).all().reshape(1).long()  # false for NaN too
    found, enough = [finite], [finite]
    for shared, rows in groups.items():
        of_group = logits if len(groups) == 1 else logits[numbers_on(logits.device, rows)]
        chosen, sufficient = _sample_rows(of_group, shared, [uniforms[row] for row in rows])
        found.append(chosen)
        enough.append(sufficient.reshape(1).long())
    numbers: list[int] = torch.cat([*found, *enough]).tolist()  # the only place where the host waits for the device
    count = len(settings) + 1
    if not numbers[0]:
        raise non_finite_error()
    tokens = [0] * len(settings)
    begin = 1
    for (shared, rows), sufficient_here in zip(groups.items(), numbers[count + 1 :], strict=True):
        drawn = numbers[begin : begin + len(rows)]
        if not sufficient_here:
            again, _ = _sample_rows(logits[rows], shared, [uniforms[row] for row in rows], candidates=None)
            drawn = again.tolist()
        for row, token in zip(rows, drawn, strict=True):
            tokens[row] = token
        begin += len(rows)
    return tokens


def _widened(logits: Tensor) -> Tensor:
    """In float32; on the CPU if their device has no float64, in which weights are added up: that is the case on MPS."""
    logits = logits.float()
    return logits.cpu() if logits.device.type == "mps" else logits


def check_finite(logits: Tensor) -> Tensor:
    """`logits` in float32, where float64 exists; raises CheckpointError for NaN or +inf."""
    logits = _widened(logits)
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


def _sample_rows(
    logits: Tensor, settings: SamplingSettings, uniforms: Sequence[float], *, candidates: int | None = FIRST_CANDIDATES
) -> tuple[Tensor, Tensor]:
    """(B,) tokens, and whether they are right: not if top_p reaches beyond the first `candidates` (None: all)."""
    yes = torch.ones((), dtype=torch.bool, device=logits.device)
    if settings.temperature < MIN_TEMPERATURE:
        return logits.argmax(dim=-1), yes
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / min(settings.temperature, MAX_TEMPERATURE)  # <= 0
    values, places, total, enough = _candidates(scaled, settings, candidates)
    weights = values.exp().double()
    if settings.top_p < 1:
        total = weights.sum(dim=-1, keepdim=True) if total is None else total
        before = weights.cumsum(dim=-1) - weights  # sum of the more probable ones; 0 for the first
        weights = weights.masked_fill(before >= settings.top_p * total, 0.0)
    if settings.min_p > 0:
        weights = weights.masked_fill(values < math.log(settings.min_p), 0.0)
    cumulative = weights.cumsum(dim=-1)
    drawn = numbers_on(logits.device, uniforms, dtype=torch.float64)
    thresholds = drawn.unsqueeze(-1) * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, thresholds, right=True)  # (B, 1): the first sum above the threshold
    chosen = chosen.clamp(max=cumulative.size(-1) - 1)  # logits that are not numbers are refused later
    return (chosen if places is None else places.gather(-1, chosen)).squeeze(-1), yes if enough is None else enough


def _candidates(
    scaled: Tensor, settings: SamplingSettings, count: int | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Values, their tokens (None: all in order), the distribution's total weight (None: that of `values`), and whether
    top_p keeps none but these (None: it does).

    Values are in descending order, unless min_p is the only filter.
    """
    size = scaled.size(-1)
    if settings.top_k and settings.top_k < size:
        values, places = scaled.topk(settings.top_k, dim=-1)
        return values, places, None, None
    if settings.top_p == 1:
        return scaled, None, None, None
    total = scaled.exp().sum(dim=-1, keepdim=True, dtype=torch.float64)
    if count is not None and size > 2 * count:
        values, places = scaled.topk(count, dim=-1)
        enough = (values.exp().sum(dim=-1, keepdim=True, dtype=torch.float64) > settings.top_p * total).all()
        return values, places, total, enough
    values, places = scaled.sort(dim=-1, descending=True)
    return values, places, total, None


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
