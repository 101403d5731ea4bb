"""Token counts and times of a generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litgpt_core.generation.sequence_state import SequenceState


@dataclass(kw_only=True)
class GenerationStats:
    """Token counts and times of the latest generation; updated while it runs."""

    n_sequences: int = 1
    """Number of sequences in the batch."""
    new_tokens: int = 0
    """New tokens of all sequences together."""
    reused_tokens: int = 0
    """Tokens of the prompt that were in the cache already, from the turn before."""
    drafted_tokens: int = 0
    """Tokens that speculative decoding has verified."""
    accepted_tokens: int = 0
    """Those that were right: passes of the model that were saved."""
    seconds_to_first_token: float = 0.0
    """Time until all prompts are prefilled and every sequence has its first token."""
    seconds: float = 0.0
    """Time until the latest token."""

    def count_drafts(self, sequences: Sequence[SequenceState]) -> None:
        """The drafts of all sequences so far."""
        self.drafted_tokens = sum(sequence.drafts.drafted for sequence in sequences)
        self.accepted_tokens = sum(sequence.drafts.accepted for sequence in sequences)

    def summary(self) -> str:
        """A one-line summary."""
        drafts = f"; {self.accepted_tokens} of {self.drafted_tokens} drafted tokens accepted"
        return (
            f"{self.new_tokens} tokens, {self.seconds_to_first_token:.3f} s to the first, "
            f"{self.tokens_per_second:.1f} tokens/s after it{drafts if self.drafted_tokens else ''}"
        )

    @property
    def tokens_per_second(self) -> float:
        """Decoding rate of all sequences together after their first tokens; 0 before the first measurement."""
        decoding, decoded = self.seconds - self.seconds_to_first_token, self.new_tokens - self.n_sequences
        return decoded / decoding if decoded > 0 and decoding > 0 else 0.0
