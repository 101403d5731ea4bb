"""A generation request, and the deltas that are streamed in response. Plain values; does not import torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.sampling_settings import SamplingSettings

FinishReason = Literal["stop", "length", "error"]
"""stop: a stop token or stop string; length: max_new_tokens, or the end of the window with overflow="stop"; error: see
`SequenceState.error`.
"""

DEFAULT_SAMPLING = SamplingSettings()


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One sequence to generate."""

    prompt_ids: tuple[int, ...]
    """Ids to continue; empty means the start of a document (bos, or else eos)."""
    max_new_tokens: int
    """At most this many."""
    sampling: SamplingSettings = DEFAULT_SAMPLING
    """How tokens are sampled."""
    seed: int | None = None
    """Equal seeds give equal sequences on one machine; None uses a random seed."""
    stop_ids: Collection[int] | None = None
    """Ids that end the sequence and are not part of it. None means the tokenizer's eos, `()` none."""
    stop: tuple[str, ...] = ()
    """Stop strings, which end the text and are not part of it."""
    logprobs: int | None = None
    """Report each token's log-probability and this many most probable alternatives (0: only the token's own)."""
    overflow: Literal["slide", "stop"] = "slide"
    """When the context window is full: drop the older half and continue, or end."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens} was given.", needed="0 or more")
        if any(not text for text in self.stop):
            raise ConfigError("A stop string is empty.", needed="stop strings of one character or more")
        if self.logprobs is not None and self.logprobs < 0:
            raise ConfigError(f"logprobs={self.logprobs} was given.", needed="0 or more")


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """Log-probability of one token by the model, before temperature, penalties and filters."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens (id, log-probability), best first."""


class Delta(NamedTuple):
    """What one step added to a sequence. A tuple, because one is made for every token."""

    text: str = ""
    """Whole characters that are final; often empty in the middle of a character or of a possible stop string."""
    token_ids: tuple[int, ...] = ()
    """The new ids."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `token_ids`, if requested."""
    finish_reason: FinishReason | None = None
    """Set in the last delta."""


def request_of(
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    sampling: SamplingSettings,
    *,
    seed: int | None,
    stop_ids: Collection[int] | None,
    stop: tuple[str, ...] = (),
) -> GenerationRequest:
    """A request from the arguments of the engine's methods."""
    return GenerationRequest(
        prompt_ids=tuple(int(token_id) for token_id in prompt_ids),
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        stop_ids=stop_ids,
        stop=stop,
    )


def join_deltas(deltas: Sequence[Delta]) -> Delta:
    """Merge consecutive deltas, at least one, into one."""
    return Delta(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        logprobs=tuple(value for delta in deltas for value in delta.logprobs),
        finish_reason=deltas[-1].finish_reason,
    )
