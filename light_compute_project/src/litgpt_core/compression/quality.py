"""What a compressed model lost: paired bits per byte, KL divergence and agreement with the source, window by window.

    bits per byte   sum of -log2 p(token) / UTF-8 bytes of the tokens, over the same windows for both models
    delta           the difference, with a 95 % interval over windows (`evaluate.statistics`)
    KL              mean over positions of KL(source || compressed), in nats
    top-1           share of positions at which both models prefer the same token

The compressed model computes as the engine does: with rounded activations where the kernel multiplies integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.evaluate.statistics import clustered_ratio
from litgpt_core.model.gpt import GPT
from litgpt_core.tokenizers.base import Tokenizer

KEPT_BYTES = 2_000_000_000
"""The source's log probabilities are kept in memory up to this size, as float16, and computed again beyond it."""


@dataclass(frozen=True, kw_only=True)
class DomainQuality:
    """One model on one domain."""

    bits_per_byte: float
    delta: float
    """Against the source, in bits per byte."""
    half_width: float
    """Of the 95 % interval of `delta`."""
    kl: float
    top_1: float
    tokens: int

    @property
    def upper(self) -> float:
        """Upper end of the interval."""
        return self.delta + self.half_width


def token_byte_counts(windows: Tensor, tokenizer: Tokenizer) -> Tensor:
    """(N,) UTF-8 bytes of the targets of every window (N, T + 1)."""
    sizes: dict[int, int] = {}
    for token in set(windows[:, 1:].flatten().tolist()):
        raw = tokenizer.token_bytes(token)
        sizes[token] = len(tokenizer.decode([token]).encode() if raw is None else raw)
    return torch.tensor([sum(sizes[token] for token in window) for window in windows[:, 1:].tolist()])


class SourceModel:
    """The uncompressed model and its log probabilities, computed once where they fit into memory."""

    def __init__(self, model: GPT, windows: Mapping[str, Tensor], tokenizer: Tokenizer) -> None:
        self.model, self.windows = model, dict(windows)
        self.byte_counts = {name: token_byte_counts(rows, tokenizer) for name, rows in windows.items()}
        positions = sum(rows[:, 1:].numel() for rows in windows.values())
        self._keep = positions * model.config.padded_vocab_size * 2 <= KEPT_BYTES
        self._kept: dict[tuple[str, int], Tensor] = {}

    @torch.no_grad()
    def log_probabilities(self, name: str, index: int) -> Tensor:
        """(T, V) float32 for one window."""
        if (name, index) in self._kept:
            return self._kept[name, index].float()
        found = log_probabilities(self.model, self.windows[name][index])
        if self._keep:
            self._kept[name, index] = found.half()
        return found

    @torch.no_grad()
    def compare(self, model: GPT | None) -> dict[str, DomainQuality]:
        """Quality of a compressed model on every domain; None: of the source itself."""
        return {name: self._domain(name, model) for name in self.windows}

    def _domain(self, name: str, model: GPT | None) -> DomainQuality:
        rows, kl, agreeing = self.windows[name], 0.0, 0
        bits, source_bits = [], []
        for index, window in enumerate(rows):
            source = self.log_probabilities(name, index)
            other = source if model is None else log_probabilities(model, window)
            targets = window[1:].unsqueeze(1)
            bits.append(-float(other.gather(1, targets).double().sum()) / np.log(2))
            source_bits.append(-float(source.gather(1, targets).double().sum()) / np.log(2))
            kl += float((source.exp() * (source - other)).sum())
            agreeing += int((source.argmax(1) == other.argmax(1)).sum())
        positions = rows[:, 1:].numel()
        bytes_ = self.byte_counts[name].numpy().astype(np.float64)
        labels = [str(index) for index in range(len(rows))]
        delta = clustered_ratio(np.array(bits) - np.array(source_bits), bytes_, labels)
        return DomainQuality(
            bits_per_byte=float(np.sum(bits) / bytes_.sum()),
            delta=delta.value,
            half_width=delta.half_width,
            kl=kl / positions,
            top_1=agreeing / positions,
            tokens=positions,
        )


def log_probabilities(model: GPT, window: Tensor) -> Tensor:
    """(T + 1,) ids -> (T, V) float32: log p of the next token at every position but the last."""
    logits = model(window[:-1].unsqueeze(0))[0, :, : model.config.vocab_size]
    return functional.log_softmax(logits.float(), dim=-1)


def worst_upper(quality: Mapping[str, DomainQuality]) -> float:
    """The largest upper end of an interval over domains."""
    return max(each.upper for each in quality.values())
