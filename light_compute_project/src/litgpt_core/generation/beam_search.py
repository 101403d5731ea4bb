"""Beam search: keeps the most probable continuations instead of sampling one.

    step      beams               their most probable next tokens    next beams: the `beams` best of all
              "a"      -0.7       "ab" -1.1   "ac" -2.0               "ab" -1.1
              "b"      -0.9       "bx" -1.2   "bb" -1.9               "bx" -1.2        a stop id ends a sequence

The score of a finished sequence is its log-probability (including the stop id) divided by (number of
tokens)^length_penalty. The search ends when no beam can still score higher than the worst of the `results` best.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.sampling import check_finite

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Beam:
    """One sequence found by the search."""

    token_ids: tuple[int, ...]
    """New ids, without the stop id."""
    logprob: float
    """Sum over its tokens and its stop id, in nats."""
    score: float
    """The log-probability after the length penalty; results are ranked by it."""
    finished: bool
    """Whether it ended with a stop id rather than at max_new_tokens."""


def beam_search(
    engine: Engine,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    beams: int = 4,
    length_penalty: float = 1.0,
    stop_ids: Collection[int] | None = None,
    results: int = 1,
) -> list[Beam]:
    """The best `results` sequences, best first.

    Args:
        engine: Model and tokenizer.
        prompt_ids: Ids to continue; empty means the start of a document.
        max_new_tokens: Per sequence, not counting the stop id. Prompt and new tokens must fit the context window.
        beams: Sequences kept at each step; 1 is greedy decoding.
        length_penalty: Above 0 favours longer sequences; 0 ranks by log-probability alone.
        stop_ids: Ids that end a sequence; None means the tokenizer's eos.
        results: Number of sequences to return; at most `beams`.

    Raises:
        ConfigError: Arguments out of range, or prompt and new tokens exceed the context window.
        CheckpointError: The model's logits are NaN or infinite.

    >>> best = beam_search(engine, engine.encode_prompt("def "), max_new_tokens=6, beams=3)[0]
    >>> best.logprob < 0
    True
    """
    ids = list(prompt_ids) or engine.document_start()
    if beams < 1 or not 1 <= results <= beams or max_new_tokens < 1:
        raise ConfigError(
            f"beams={beams}, results={results}, max_new_tokens={max_new_tokens} is not a valid search.",
            needed="1 or more of each, and results <= beams",
        )
    block_size = engine.model.config.block_size
    if len(ids) + max_new_tokens > block_size:
        raise ConfigError(
            f"{len(ids)} prompt tokens and max_new_tokens={max_new_tokens} were given.",
            needed=f"together at most the context window of {block_size}: beam search does not slide the window",
        )
    stops = frozenset({engine.tokenizer.eos_id} if stop_ids is None else stop_ids)
    search = _Search(beams=beams, results=results, length_penalty=length_penalty, stops=stops, limit=max_new_tokens)
    with torch.no_grad(), engine.decoding(n_sequences=beams) as (decoder, _):
        decoder.start(n_sequences=beams, length=len(ids) + max_new_tokens)
        logits = decoder.feed([Feed(0, 0, ids)])[:, : engine.vocab_size]
        sources = search.step(logits)
        while not search.over:
            cached = len(ids) + search.length - 1
            decoder.reorder(sources, length=cached)
            feeds = [Feed(row, cached, [beam[0][-1]]) for row, beam in enumerate(search.kept)]
            sources = search.step(decoder.feed(feeds)[:, : engine.vocab_size])
    return search.best()


class _Search:
    """Running and finished beams, and their scores."""

    def __init__(self, *, beams: int, results: int, length_penalty: float, stops: frozenset[int], limit: int) -> None:
        self._beams, self._results, self._penalty, self._stops, self._limit = (
            beams,
            results,
            length_penalty,
            stops,
            limit,
        )
        self.kept: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
        self.length = 0
        self._finished: list[Beam] = []

    @property
    def over(self) -> bool:
        """Whether no running beam can change the result."""
        if not self.kept or self.length >= self._limit:
            return True
        if len(self._finished) < self._results:
            return False
        worst = sorted(beam.score for beam in self._finished)[-self._results]
        # log-probability only decreases; a longer sequence can gain only from the division by its length
        longest = self._limit + 1 if self._penalty > 0 else self.length + 1
        return all(self._score(logprob, longest) <= worst for _, logprob in self.kept)

    def step(self, logits: torch.Tensor) -> list[int]:
        """(kept, V) logits -> for each new beam, the index of the beam that it continues."""
        logprobs = torch.log_softmax(check_finite(logits), dim=-1).cpu().double()
        totals = logprobs + torch.tensor([logprob for _, logprob in self.kept], dtype=torch.float64)[:, None]
        n = min(totals.numel(), self._beams * (1 + len(self._stops)))  # enough for `beams` that do not stop
        values, places = totals.flatten().topk(n)
        kept: list[tuple[tuple[int, ...], float]] = []
        sources: list[int] = []
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            row, token = divmod(place, totals.size(1))
            if token in self._stops:
                self._finish(self.kept[row][0], value, finished=True)
            elif len(kept) < self._beams:
                kept.append(((*self.kept[row][0], token), value))
                sources.append(row)
        self.kept, self.length = kept, self.length + 1
        return sources

    def best(self) -> list[Beam]:
        """The best finished sequences and, at the limit, unfinished ones."""
        if self.length >= self._limit:
            for ids, logprob in self.kept:
                self._finish(ids, logprob, finished=False)
        return sorted(self._finished, key=lambda beam: -beam.score)[: self._results]

    def _finish(self, ids: tuple[int, ...], logprob: float, *, finished: bool) -> None:
        score = self._score(logprob, len(ids) + finished)
        self._finished.append(Beam(token_ids=ids, logprob=logprob, score=score, finished=finished))

    def _score(self, logprob: float, length: int) -> float:
        return float(logprob / max(1, length) ** self._penalty)
