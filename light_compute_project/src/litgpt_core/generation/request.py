"""What is asked of a generation and what comes back, piece by piece. Plain values; no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.sampling_settings import SamplingSettings

FinishReason = Literal["stop", "length", "error"]
"""stop: a stop token or stop string came; length: max_new_tokens, or the end of the window with overflow="stop"; error:
`LiveText.error` says what.
"""

DEFAULT_SAMPLING = SamplingSettings()


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One text to write."""

    prompt_ids: tuple[int, ...]
    """Ids to continue; empty means the start of a document (bos, or else eos)."""
    max_new_tokens: int
    """At most this many."""
    sampling: SamplingSettings = DEFAULT_SAMPLING
    """How tokens are drawn."""
    seed: int | None = None
    """Equal seeds give equal texts on one machine; None draws a fresh one."""
    stop_ids: Collection[int] | None = None
    """Ids that end the text and are not part of it. None means the tokenizer's eos, `()` that nothing does."""
    stop: tuple[str, ...] = ()
    """Texts that end the text and are not part of it."""
    logprobs: int | None = None
    """Report each token's log-probability and so many likeliest alternatives (0: only the token's own); None: none."""
    overflow: Literal["slide", "stop"] = "slide"
    """When the model's window is full: forget the older half and go on, or end there."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens} was given.", needed="0 or more")
        if any(not text for text in self.stop):
            raise ConfigError("A stop string is empty: the text would end before it begins.", needed="stop strings")
        if self.logprobs is not None and self.logprobs < 0:
            raise ConfigError(f"logprobs={self.logprobs} was given.", needed="0 or more")


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """Log-probability of one token by the model itself, before temperature, penalties and filters."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens (id, log-probability), best first."""


class Piece(NamedTuple):
    """What one step added. Made up to once for every token, hence a tuple."""

    text: str = ""
    """Whole characters that are certain now; often empty in the middle of a character or of a possible stop string."""
    token_ids: tuple[int, ...] = ()
    """The new ids."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `token_ids`, if asked for."""
    finish_reason: FinishReason | None = None
    """Set in the last piece."""


def request_of(
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    sampling: SamplingSettings,
    *,
    seed: int | None,
    stop_ids: Collection[int] | None,
    stop: tuple[str, ...] = (),
) -> GenerationRequest:
    """A request from the engine's own arguments."""
    return GenerationRequest(
        prompt_ids=tuple(int(token_id) for token_id in prompt_ids),
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        stop_ids=stop_ids,
        stop=stop,
    )


def join_pieces(pieces: Sequence[Piece]) -> Piece:
    """Several pieces that followed one another, at least one, as one."""
    return Piece(
        text="".join(piece.text for piece in pieces),
        token_ids=tuple(token for piece in pieces for token in piece.token_ids),
        logprobs=tuple(value for piece in pieces for value in piece.logprobs),
        finish_reason=pieces[-1].finish_reason,
    )
