"""What a generation took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class GenerationStats:
    """What the latest generation took; counts up while it runs."""

    n_texts: int = 1
    """Texts in the making at once."""
    new_tokens: int = 0
    """Of all texts together."""
    seconds_to_first_token: float = 0.0
    """Until the first token of the last text: all prompts have been read then."""
    seconds: float = 0.0
    """Until the latest token."""

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"{self.new_tokens} tokens, {self.seconds_to_first_token:.3f} s to the first, "
            f"{self.tokens_per_second:.1f} tokens/s after it"
        )

    @property
    def tokens_per_second(self) -> float:
        """Decoding rate of all texts together after their first tokens, 0 before there is one."""
        decoding, decoded = self.seconds - self.seconds_to_first_token, self.new_tokens - self.n_texts
        return decoded / decoding if decoded > 0 and decoding > 0 else 0.0
