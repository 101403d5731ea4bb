"""The likeliest text instead of a drawn one: several beginnings are kept and compared (beam search).

    step      kept beams          their likeliest next tokens        kept again: the `beams` best of all
              "a"      -0.7       "ab" -1.1   "ac" -2.0               "ab" -1.1
              "b"      -0.9       "bx" -1.2   "bb" -1.9               "bx" -1.2        a stop id ends a text

A finished text's score is its log-probability (the stop id's included) divided by (its tokens)^length_penalty. The
search ends when no kept beam can still beat the worst of the finished ones that are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.sampling import finite

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Beam:
    """One text that the search found."""

    token_ids: tuple[int, ...]
    """New ids, without the stop id."""
    logprob: float
    """Sum over its tokens and its stop id, in nats."""
    score: float
    """What it was ranked by."""
    finished: bool
    """Whether a stop id ended it, and not the limit."""


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
    """The best `results` texts, best first.

    Args:
        engine: Model and tokenizer.
        prompt_ids: Ids to continue; empty means the start of a document.
        max_new_tokens: Of every text, the stop id not counted. Prompt and text together must fit the model's window.
        beams: Beginnings kept at each step; 1 is greedy decoding.
        length_penalty: Above 0 longer texts are favoured, 0 ranks by log-probability alone.
        stop_ids: Ids that end a text; None means the tokenizer's eos.
        results: At most `beams`.

    Raises:
        ConfigError: Numbers that make no search, or a text that would outgrow the window.
        CheckpointError: The model answers NaN.

    >>> best = beam_search(engine, engine.encode_prompt("def "), max_new_tokens=6, beams=3)[0]
    >>> best.logprob < 0
    True
    """
    ids = list(prompt_ids) or engine.document_start()
    if beams < 1 or not 1 <= results <= beams or max_new_tokens < 1:
        raise ConfigError(
            f"beams={beams}, results={results}, max_new_tokens={max_new_tokens} make no search.",
            needed="1 or more of each, and no more results than beams",
        )
    block_size = engine.model.config.block_size
    if len(ids) + max_new_tokens > block_size:
        raise ConfigError(
            f"{len(ids)} prompt tokens and max_new_tokens={max_new_tokens} were given.",
            needed=f"together at most the model's window of {block_size}: beams cannot slide",
        )
    stops = frozenset({engine.tokenizer.eos_id} if stop_ids is None else stop_ids)
    search = _Search(beams=beams, results=results, length_penalty=length_penalty, stops=stops, limit=max_new_tokens)
    with torch.no_grad(), engine.writing(n_texts=beams) as decoder:
        decoder.start(n_sequences=beams, length=len(ids) + max_new_tokens)
        logits = decoder.feed([Feed(0, 0, ids)])[:, : engine.vocab_size]
        sources = search.step(logits)
        while not search.over:
            written = len(ids) + search.length - 1
            decoder.reorder(sources, length=written)
            feeds = [Feed(row, written, [beam[0][-1]]) for row, beam in enumerate(search.kept)]
            sources = search.step(decoder.feed(feeds)[:, : engine.vocab_size])
    return search.best()


class _Search:
    """The bookkeeping: kept and finished texts, and their scores."""

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
        """Whether nothing that goes on can change the result."""
        if not self.kept or self.length >= self._limit:
            return True
        if len(self._finished) < self._results:
            return False
        worst = sorted(beam.score for beam in self._finished)[-self._results]
        # a text that goes on only loses log-probability; what it may gain is the division by its greatest length
        longest = self._limit + 1 if self._penalty > 0 else self.length + 1
        return all(self._score(logprob, longest) <= worst for _, logprob in self.kept)

    def step(self, logits: torch.Tensor) -> list[int]:
        """(kept, V) -> which kept text each of the new ones continues."""
        logprobs = torch.log_softmax(finite(logits), dim=-1).double().cpu()
        totals = logprobs + torch.tensor([logprob for _, logprob in self.kept], dtype=torch.float64)[:, None]
        wanted = min(totals.numel(), self._beams * (1 + len(self._stops)))  # enough that `beams` of them go on
        values, places = totals.flatten().topk(wanted)
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
        """Finished texts and, at the limit, those that are not."""
        if self.length >= self._limit:
            for ids, logprob in self.kept:
                self._finish(ids, logprob, finished=False)
        return sorted(self._finished, key=lambda beam: -beam.score)[: self._results]

    def _finish(self, ids: tuple[int, ...], logprob: float, *, finished: bool) -> None:
        score = self._score(logprob, len(ids) + finished)
        self._finished.append(Beam(token_ids=ids, logprob=logprob, score=score, finished=finished))

    def _score(self, logprob: float, length: int) -> float:
        return float(logprob / max(1, length) ** self._penalty)
