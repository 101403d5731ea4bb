"""From the logits of the next token to a token: pure functions of logits, settings and a number in [0, 1).

    logits -> penalties -> / temperature -> top_k -> top_p -> min_p -> likeliest first, where the cumulative weight
                                                                       passes `uniform`: the token

Knows neither models nor tokenizers. B sequences, V tokens. `draw` is the fast way: it sorts no more than it must; the
CPU kernel has its own (kernels/sampling.hpp). `draw_slowly` says the same with whole sorted distributions, and the
tests compare the three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.sampling_settings import GREEDY, SamplingSettings

__all__ = ["GREEDY", "Dice", "SamplingSettings", "draw", "draw_slowly", "penalize"]

LEAST_TEMPERATURE = 1e-6
"""Below it the likeliest token is taken: the quotient would overflow, and nothing else is ever drawn."""
MOST_TEMPERATURE = 1e30
"""Above it nothing changes any more, and float32 ends."""
FIRST_LOOK = 512
"""Likeliest tokens looked at before a whole vocabulary is sorted for top_p."""


class Dice:
    """Numbers in [0, 1), the same for the same seed on every device; drawn in blocks, because one call each is slow."""

    def __init__(self, seed: int | None) -> None:
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._block: list[float] = []

    def throw(self) -> float:
        """The next number."""
        if not self._block:
            self._block = torch.rand(64, generator=self._generator, dtype=torch.float64).tolist()
            self._block.reverse()
        return self._block.pop()


def draw(logits: Tensor, settings: Sequence[SamplingSettings], *, uniforms: Sequence[float]) -> list[int]:
    """One token per sequence; a sequence's token does not depend on its neighbours.

    Args:
        logits: (B, V), any float type, penalties already applied.
        settings: How, for each.
        uniforms: A number in [0, 1) for each.

    Raises:
        CheckpointError: The logits hold NaN or +inf: the model is broken.
    """
    logits = finite(logits)
    first = settings[0]
    if all(other is first or other == first for other in settings[1:]):
        return _draw_alike(logits, first, uniforms)
    groups: dict[SamplingSettings, list[int]] = {}
    for row, wanted in enumerate(settings):
        groups.setdefault(wanted, []).append(row)
    tokens = [0] * len(settings)
    for wanted, rows in groups.items():
        for row, token in zip(rows, _draw_alike(logits[rows], wanted, [uniforms[row] for row in rows]), strict=True):
            tokens[row] = token
    return tokens


def finite(logits: Tensor) -> Tensor:
    """`logits` in float32; raises CheckpointError for NaN or +inf."""
    logits = logits.float()
    if not bool((logits < math.inf).all()):  # false for NaN too
        raise no_numbers()
    return logits


def no_numbers() -> CheckpointError:
    """What is told of a model whose logits hold NaN or +inf."""
    return CheckpointError(
        "The model answered with NaN or infinite logits.",
        needed="finite weights; training diverged, or 16-bit numbers overflowed",
        fix="take an earlier checkpoint, or run in float32: --precision 32",
    )


def _draw_alike(logits: Tensor, settings: SamplingSettings, uniforms: Sequence[float]) -> list[int]:
    tokens: list[int]
    if settings.temperature < LEAST_TEMPERATURE:
        tokens = logits.argmax(dim=-1).tolist()
        return tokens
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / min(settings.temperature, MOST_TEMPERATURE)  # <= 0
    values, places, total = _candidates(scaled, settings)
    weights = values.exp().double()
    if settings.top_p < 1:
        total = weights.sum(dim=-1, keepdim=True) if total is None else total
        before = weights.cumsum(dim=-1) - weights  # what the likelier ones sum to; 0 for the first
        weights = weights.masked_fill(before >= settings.top_p * total, 0.0)
    if settings.min_p > 0:
        weights = weights.masked_fill(values < math.log(settings.min_p), 0.0)
    reached = weights.cumsum(dim=-1)
    marks = torch.tensor(uniforms, dtype=torch.float64, device=logits.device).unsqueeze(-1) * reached[:, -1:]
    chosen = torch.searchsorted(reached, marks, right=True)  # (B, 1): the first whose sum is above the mark
    tokens = (chosen if places is None else places.gather(-1, chosen)).squeeze(-1).tolist()
    return tokens


def _candidates(scaled: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(values, their tokens or None for all in order, weight of the whole distribution or None for that of `values`).

    Values are ordered, likeliest first, unless no filter but min_p asks for that.
    """
    size = scaled.size(-1)
    if settings.top_k and settings.top_k < size:
        values, places = scaled.topk(settings.top_k, dim=-1)
        return values, places, None
    if settings.top_p == 1:
        return scaled, None, None
    total = scaled.exp().sum(dim=-1, keepdim=True, dtype=torch.float64)
    if size > 2 * FIRST_LOOK:
        values, places = scaled.topk(FIRST_LOOK, dim=-1)
        if bool((values.exp().sum(dim=-1, keepdim=True, dtype=torch.float64) > settings.top_p * total).all()):
            return values, places, total
    values, places = scaled.sort(dim=-1, descending=True)
    return values, places, total


def penalize(
    logits: Tensor, settings: SamplingSettings, *, prompt_ids: Sequence[int], new_ids: Sequence[int]
) -> Tensor:
    """(V,) -> (V,): one sequence's logits after its penalties.

    `repetition_penalty` is Keskar et al.'s (2019, arXiv 1909.05858) over prompt and text; `frequency_penalty` and
    `presence_penalty` are OpenAI's over the new text.
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


# --- the slow way


def draw_slowly(logits: Tensor, settings: SamplingSettings, *, uniform: float) -> int:
    """(V,) -> one token: what `draw` gives for one sequence, up to rounding at the edges between tokens."""
    logits = finite(logits)
    if settings.temperature < LEAST_TEMPERATURE:
        return int(logits.argmax())
    scaled = (logits - logits.amax()) / min(settings.temperature, MOST_TEMPERATURE)
    kept = filter_logits(scaled.unsqueeze(0), settings)[0]
    ordered = settings.top_p < 1 or bool(settings.top_k and settings.top_k < logits.numel())
    places = kept.argsort(descending=True) if ordered else torch.arange(logits.numel())
    reached = torch.softmax(kept.double(), dim=-1)[places].cumsum(dim=-1)
    return int(places[int((reached <= uniform * reached[-1]).sum())])


def filter_logits(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """(B, V) -> (B, V): -inf for tokens that top_k, top_p or min_p rule out. The likeliest token always stays."""
    if settings.top_k and settings.top_k < logits.size(-1):
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p < 1:
        logits = keep_top_p(logits, settings.top_p)
    if settings.min_p > 0:
        logits = keep_min_p(logits, settings.min_p)
    return logits


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Exactly the k largest; of equal ones some, so that k = 1 is greedy."""
    values, places = logits.topk(k, dim=-1)
    return torch.full_like(logits, -math.inf).scatter(-1, places, values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest largest whose probabilities sum to at least p (nucleus sampling, Holtzman et al. 2020)."""
    ordered, places = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # what the larger ones sum to; 0 for the first
    ordered = ordered.masked_fill(before >= p, -math.inf)
    return torch.empty_like(logits).scatter(-1, places, ordered)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Those with at least p times the largest probability (Nguyen et al. 2024)."""
    threshold = logits.amax(dim=-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < threshold, -math.inf)
