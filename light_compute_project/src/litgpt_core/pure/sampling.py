"""From logits to a token, as `litgpt_core.generation.sampling` defines it, so that equal seeds give equal texts."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from litgpt_core.core.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The fields of `generation.SamplingSettings`; see there what each means."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


def sample(logits: Sequence[float], how: Sampling, *, uniform: float) -> int:
    """The token at which the probabilities, most probable first where a filter sorts them, reach `uniform`.

    Args:
        logits: (V), penalties already applied.
        how: The filters. A temperature below 1e-6 takes the most probable token.
        uniform: In [0, 1).

    Raises:
        CheckpointError: The logits hold NaN or infinity.
    """
    top = max(logits)
    if not all(map(math.inf.__gt__, logits)) or top == -math.inf:
        raise CheckpointError(
            "The model returned NaN or infinite logits.", needed="finite weights", fix="take an earlier checkpoint"
        )
    if how.temperature < 1e-6:
        return logits.index(top)
    temperature = min(how.temperature, 1e30)
    scaled = [(each - top) / temperature for each in logits]
    tokens: Sequence[int] = range(len(logits))
    few = bool(how.top_k) and how.top_k < len(logits)  # type: ignore[operator]
    if few or how.top_p < 1:
        tokens = sorted(tokens, key=lambda token: -scaled[token])[: how.top_k if few else None]
    values = [scaled[token] for token in tokens]
    weights = list(map(math.exp, values))
    if how.top_p < 1:
        most = how.top_p * sum(weights)
        before = accumulate(weights[:-1], initial=0.0)  # what the more probable ones sum to; 0 for the first
        weights = [weight if less < most else 0.0 for weight, less in zip(weights, before, strict=True)]
    if how.min_p > 0:
        least = math.log(how.min_p)
        weights = [weight if value >= least else 0.0 for weight, value in zip(weights, values, strict=True)]
    reached = list(accumulate(weights))
    place = bisect_right(reached, uniform * reached[-1])
    return tokens[min(place, len(tokens) - 1)]


def penalize(
    logits: Sequence[float], how: Sampling, *, prompt_ids: Sequence[int], new_ids: Sequence[int]
) -> Sequence[float]:
    """The logits after the penalties: for repetition over prompt and text, the other two over the text alone."""
    changed = list(logits)
    if how.repetition_penalty != 1:
        for token in {*prompt_ids, *new_ids}:
            if token < len(changed):
                factor = 1 / how.repetition_penalty if changed[token] > 0 else how.repetition_penalty
                changed[token] *= factor
    if how.frequency_penalty or how.presence_penalty:
        for token, count in Counter(new_ids).items():
            changed[token] -= how.frequency_penalty * count + how.presence_penalty
    return changed
