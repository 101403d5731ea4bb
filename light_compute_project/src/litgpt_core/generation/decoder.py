"""The interface of a model with a KV cache: new tokens of several sequences in, logits after each one's last token out.

    Decoder
      |- TorchDecoder    litgpt_core.model on any device; optionally torch.compile (torch_decoder)
      '- KernelDecoder   the C++ of kernels/, CPU only, most architectures (kernel)

A decoder holds the KV cache of the sequences between `start` and `finish`. `choice` picks one. Sampling belongs to the
interface, because a decoder that samples by itself need not return to Python for every token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.sampling import sample
from litgpt_core.generation.sampling_settings import SamplingSettings


class Feed(NamedTuple):
    """New tokens of one sequence."""

    sequence: int
    """Index of the sequence in the batch, from 0."""
    position: int
    """Position of the first of `ids`; all tokens before it are in the cache."""
    ids: list[int]
    """At least one."""


class Decoder(ABC):
    """A model with a cache."""

    name: str
    """For the log: kernel, eager, compiled."""
    tokens_are_independent = False
    """Whether the results for a token are the same to the last bit, however many tokens are fed with it."""
    max_decode_steps = 1
    """The largest number of tokens per sequence for which one call of `decode_steps` is faster than separate calls."""

    @abstractmethod
    def start(self, *, n_sequences: int, length: int) -> None:
        """Allocate an empty cache for `n_sequences` sequences of at most `length` tokens."""

    @abstractmethod
    def feed(self, feeds: Sequence[Feed]) -> Tensor:
        """(len(feeds), padded_vocab_size) logits after the last token of each, valid until the next call.

        Sequences may be fed different numbers of tokens, at different positions, or not at all.
        """

    def feed_all(self, feeds: Sequence[Feed]) -> Tensor:
        """As `feed`, with the logits after every token: (tokens of all feeds, padded_vocab_size)."""
        tokens = [Feed(one.sequence, one.position + i, [token]) for one in feeds for i, token in enumerate(one.ids)]
        return torch.stack([self.feed([token])[0].clone() for token in tokens])

    def sample(self, logits: Tensor, settings: Sequence[SamplingSettings], *, uniforms: Sequence[float]) -> list[int]:
        """One token per row of logits, which this decoder returned or which were derived from its logits: see
        `sampling.sample`.
        """
        return sample(logits, settings, uniforms=uniforms)

    def decode_steps(
        self,
        feeds: Sequence[Feed],
        settings: Sequence[SamplingSettings],
        *,
        uniforms: Sequence[Sequence[float]],
        vocab_size: int,
    ) -> list[list[int | None]]:
        """Multi-step decode: several tokens of each sequence, each sampled from the logits after the one before.

        Args:
            feeds: One id each.
            settings: Sampling settings of each sequence.
            uniforms: For each sequence, one number in [0, 1) per token; the same number of tokens for all.
            vocab_size: Ids below it may be sampled.

        Returns:
            The tokens of each sequence; None from the first token on whose logits hold NaN or infinity.
        """
        decoded: list[list[int | None]] = [[] for _ in feeds]
        for numbers in zip(*uniforms, strict=True):
            logits = self.feed(feeds)[:, :vocab_size]
            next_feeds = []
            for row, (feed, number) in enumerate(zip(feeds, numbers, strict=True)):
                failed = bool(decoded[row]) and decoded[row][-1] is None
                token = None if failed else self._sample_one(logits[row : row + 1], settings[row], number)
                decoded[row].append(token)
                next_feeds.append(Feed(feed.sequence, feed.position + 1, [token or 0]))
            feeds = next_feeds
        return decoded

    def verify(
        self,
        feeds: Sequence[Feed],
        settings: Sequence[SamplingSettings],
        *,
        uniforms: Sequence[Sequence[float]],
        vocab_size: int,
    ) -> list[list[int | None]]:
        """Verify drafts (`speculation`): the tokens that are sampled while they are those of the draft, and one more.

        Args:
            feeds: A pending id of each sequence, and the drafted ids after it.
            settings: Sampling settings of each sequence.
            uniforms: For each sequence, one number in [0, 1) per id that is fed.
            vocab_size: Ids below it may be sampled.

        Returns:
            The tokens of each sequence, at least one; None where the logits hold NaN or infinity.
        """
        logits = self.feed_all(feeds)[:, :vocab_size]
        found, begin = [], 0
        for feed, own, numbers in zip(feeds, settings, uniforms, strict=True):
            tokens: list[int | None] = []
            for i, (number, expected) in enumerate(zip(numbers, [*feed.ids[1:], None], strict=True)):
                row = begin + i
                tokens.append(self._sample_one(logits[row : row + 1], own, number))
                if tokens[-1] is None or tokens[-1] != expected:
                    break
            begin += len(feed.ids)
            found.append(tokens)
        return found

    def _sample_one(self, logits: Tensor, settings: SamplingSettings, uniform: float) -> int | None:
        try:
            return self.sample(logits, [settings], uniforms=[uniform])[0]
        except CheckpointError:
            return None

    @abstractmethod
    def reorder(self, sources: Sequence[int], *, length: int) -> None:
        """Replace the first `length` cached tokens of sequence i by those of sequence `sources[i]`."""

    @abstractmethod
    def finish(self) -> None:
        """Free the cache."""
