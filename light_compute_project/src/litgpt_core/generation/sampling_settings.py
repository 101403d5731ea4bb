"""Sampling settings as plain values. Does not import torch, so that commands can check them before it is loaded."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How the next token is sampled. Raises ConfigError, which names every invalid value at once."""

    temperature: float = 1.0
    """Divides the logits: below 1 sharper, above 1 flatter. 0 is greedy decoding, which ignores the filters."""
    top_k: int | None = None
    """Sample from the k most probable tokens; None or 0 for all."""
    top_p: float = 1.0
    """Sample from the fewest most probable tokens whose probabilities sum to this; 1 for all."""
    min_p: float = 0.0
    """Sample from tokens with at least this fraction of the highest probability; 0 for all."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of every token in the prompt or the new text; 1 for none."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each occurrence in the new text; negative encourages repetition."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of every token in the new text."""

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
        if not 0 < self.repetition_penalty < math.inf:
            needed = "above 0, 1 for none"
            problems.append(("repetition_penalty", self.repetition_penalty, needed, "repetition_penalty=1.1"))
        for name in ("frequency_penalty", "presence_penalty"):
            if not math.isfinite(value := getattr(self, name)):
                problems.append((name, value, "a finite number, 0 for none", f"{name}=0.5"))
        if problems:
            raise ConfigError(
                "Sampling cannot work with " + ", ".join(f"{name}={value}" for name, value, _, _ in problems) + ".",
                needed="; ".join(f"{name} {needed}" for name, _, needed, _ in problems),
                fix=", ".join(fix for *_, fix in problems),
            )
        if self.top_k is not None:
            object.__setattr__(self, "top_k", int(self.top_k))  # 50.0 is accepted, but topk needs an integer

    @property
    def penalizes(self) -> bool:
        """Whether any penalty is active, so that earlier tokens change the logits."""
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)


@functools.lru_cache(maxsize=256)
def shared_instance(settings: SamplingSettings) -> SamplingSettings:
    """The same object for equal settings, so that comparing the settings of many sequences is cheap."""
    return settings


GREEDY = SamplingSettings(temperature=0.0)
"""Greedy decoding."""
