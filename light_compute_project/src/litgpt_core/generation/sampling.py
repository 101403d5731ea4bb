"""From the logits of the next token to a token: pure functions and their settings. Knows neither models nor tokenizers.

Order: logits / temperature -> top_k -> top_p -> min_p -> softmax -> draw. B sequences, V tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from litgpt_core.errors import CheckpointError, ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How the next token is drawn. ConfigError names every wrong value at once."""

    temperature: float = 1.0
    """Divides the logits: below 1 sharper, above 1 flatter. 0 takes the likeliest token; the rest has no say then."""
    top_k: int | None = None
    """Draw among this many likeliest tokens; None or 0 for all."""
    top_p: float = 1.0
    """Draw among the fewest likeliest tokens whose probabilities reach this sum; 1 for all."""
    min_p: float = 0.0
    """Draw among tokens at least this fraction as likely as the likeliest; 0 for all."""

    def __post_init__(self) -> None:
        problems = []
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            problems.append(("temperature", self.temperature, "0 (greedy) or more", "temperature=0.8"))
        if self.top_k is not None and (self.top_k < 0 or self.top_k != int(self.top_k)):
            problems.append(("top_k", self.top_k, "a whole number, 0 for no limit", "top_k=50"))
        if not 0 < self.top_p <= 1:
            problems.append(("top_p", self.top_p, "above 0 and at most 1", "top_p=0.95"))
        if not 0 <= self.min_p < 1:
            problems.append(("min_p", self.min_p, "at least 0 and below 1", "min_p=0.05"))
        if problems:
            raise ConfigError(
                "Sampling cannot work with " + ", ".join(f"{name}={value}" for name, value, _, _ in problems) + ".",
                needed="; ".join(f"{name} {needed}" for name, _, needed, _ in problems),
                fix=", ".join(fix for *_, fix in problems),
            )


GREEDY = SamplingSettings(temperature=0.0)
"""Always the likeliest token."""


def sample(logits: Tensor, settings: SamplingSettings, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token per sequence.

    Args:
        logits: (B, V), any float type. Tokens that must not come have -inf, or are cut off beforehand.
        settings: How.
        generator: Source of randomness, on the logits' device; None takes torch's global one.

    Returns:
        (B,) int64.

    Raises:
        CheckpointError: The logits hold NaN or +inf: the model is broken.
    """
    logits = logits.float()
    if not bool((logits < math.inf).all()):  # false for NaN too
        raise CheckpointError(
            "The model answered with NaN or infinite logits.",
            needed="finite weights; training diverged, or 16-bit numbers overflowed",
            fix="take an earlier checkpoint, or run in float32: --precision 32",
        )
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / settings.temperature  # <= 0: no temperature overflows
    probabilities = torch.softmax(filter_logits(scaled, settings), dim=-1)
    return torch.multinomial(probabilities, num_samples=1, generator=generator).squeeze(-1)


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
