"""What the engine asks of a model: take these new tokens of these sequences, give the logits after the last of each.

    Decoder
      |- TorchDecoder    litgpt_core.model as it stands, any device; optionally torch.compile (torch_decoder)
      '- KernelDecoder   the C++ of kernels/, CPU only, most architectures (kernel)

A decoder holds the KV cache of the sequences between `start` and `finish`. `choice` picks one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


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

    @abstractmethod
    def start(self, *, n_sequences: int, length: int) -> None:
        """Make room for that many sequences of at most `length` tokens; what was cached is gone."""

    @abstractmethod
    def feed(self, feeds: Sequence[Feed]) -> Tensor:
        """(len(feeds), padded_vocab_size) logits after the last token of each, valid until the next call.

        Sequences may be fed different numbers of tokens, at different positions, or not at all.
        """

    @abstractmethod
    def reorder(self, sources: Sequence[int], *, length: int) -> None:
        """Make sequence i what sequence `sources[i]` was, as far as its first `length` tokens."""

    @abstractmethod
    def finish(self) -> None:
        """Free the cache."""
