"""What the engine asks of a model: take these new tokens of these sequences, give the logits after the last of each.

    Decoder
      |- TorchDecoder    litgpt_core.model as it stands, any device; optionally torch.compile (torch_decoder)
      '- KernelDecoder   the C++ of kernels/, CPU only, most architectures (kernel)

A decoder holds the KV cache of the sequences between `start` and `finish`. `choice` picks one. Drawing from the logits
is here too, because a decoder that does it itself need not come back for every token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.sampling import draw
from litgpt_core.generation.sampling_settings import SamplingSettings


class Feed(NamedTuple):
    """New tokens of one sequence."""

    sequence: int
    """Which sequence of the batch, from 0."""
    position: int
    """Where the first of `ids` stands; everything before it is in the cache."""
    ids: list[int]
    """At least one."""


class Decoder(ABC):
    """A model with a cache."""

    name: str
    """For the log: kernel, eager, compiled."""
    most_at_once = 1
    """Tokens of each text for which one call of `write` is worth more than as many calls."""

    @abstractmethod
    def start(self, *, n_sequences: int, length: int) -> None:
        """Make room for that many sequences of at most `length` tokens; what was cached is gone."""

    @abstractmethod
    def feed(self, feeds: Sequence[Feed]) -> Tensor:
        """(len(feeds), padded_vocab_size) logits after the last token of each, valid until the next call.

        Sequences may be fed different numbers of tokens, at different positions, or not at all.
        """

    def draw(self, logits: Tensor, settings: Sequence[SamplingSettings], *, uniforms: Sequence[float]) -> list[int]:
        """One token per row of logits that are this decoder's own, or were made from them: see `sampling.draw`."""
        return draw(logits, settings, uniforms=uniforms)

    def write(
        self,
        feeds: Sequence[Feed],
        settings: Sequence[SamplingSettings],
        *,
        uniforms: Sequence[Sequence[float]],
        vocab_size: int,
    ) -> list[list[int | None]]:
        """Several tokens of each text, each drawn from the logits after the one before.

        Args:
            feeds: One id each.
            settings: How tokens are drawn, for each.
            uniforms: For each, as many numbers in [0, 1) as tokens are wanted; all the same number.
            vocab_size: Ids below it may be drawn.

        Returns:
            The tokens of each; from the first on that could not be drawn (logits with NaN or infinity) None.
        """
        written: list[list[int | None]] = [[] for _ in feeds]
        for numbers in zip(*uniforms, strict=True):
            logits = self.feed(feeds)[:, :vocab_size]
            coming = []
            for row, (feed, number) in enumerate(zip(feeds, numbers, strict=True)):
                lost = bool(written[row]) and written[row][-1] is None
                token = None if lost else self._draw_one(logits[row : row + 1], settings[row], number)
                written[row].append(token)
                coming.append(Feed(feed.sequence, feed.position + 1, [token or 0]))
            feeds = coming
        return written

    def _draw_one(self, logits: Tensor, settings: SamplingSettings, number: float) -> int | None:
        try:
            return self.draw(logits, [settings], uniforms=[number])[0]
        except CheckpointError:
            return None

    @abstractmethod
    def reorder(self, sources: Sequence[int], *, length: int) -> None:
        """Make sequence i what sequence `sources[i]` was, as far as its first `length` tokens."""

    @abstractmethod
    def finish(self) -> None:
        """Free the cache."""
