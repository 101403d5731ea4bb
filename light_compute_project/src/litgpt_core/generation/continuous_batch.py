"""Continuous batching: each step decodes one token of every running sequence; sequences join and leave between steps.

    add -> slot 0  [prompt ......|a|b|c          a long prompt is prefilled in chunks of `prefill` tokens, between
    add -> slot 1        [prompt .|d|e            which the other sequences are decoded: `prefill_budget`
           slot 2  free

The tokens of a sequence do not depend on the other sequences: each has its own slot in the KV cache and its own random
numbers. A sequence that fails (NaN logits, an error in its settings) does not affect the others.

Where the decoder samples by itself and every sequence only needs its next tokens, a step decodes several tokens
(multi-step decode): as many as fit into `MULTI_STEP_S`. Tokens after the end of a sequence are discarded. With
`speculative`, drafted tokens are verified instead where that is expected to be faster: `speculation`.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from litgpt_core.generation.cache_slots import CacheSlots
from litgpt_core.generation.decoder import Decoder, Feed
from litgpt_core.generation.prefill_budget import PrefillBudget
from litgpt_core.generation.request import Delta, TokenLogprob, join_deltas
from litgpt_core.generation.sampling import check_finite, non_finite_error, penalize
from litgpt_core.generation.sequence_state import SequenceState
from litgpt_core.generation.speculation import DraftBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

MULTI_STEP_S = 0.01
"""Maximum seconds of a multi-step decode of one sequence: too short to notice in a stream, and as long as a new one
waits. Ten sequences have twice as long, and so on: the more readers, the less often the server sends text to each."""


class ContinuousBatch:
    """Up to `n_slots` running sequences; see the module docstring.

    Args:
        decoder: Started here.
        n_slots: Maximum number of running sequences.
        length: Maximum number of cached tokens per sequence; at most the model's block_size.
        vocab_size: Token ids below this may be sampled; the padding after them is cut off.
        prefill: Maximum number of prompt tokens per step; None for no limit.
        keep_prefixes: A prompt that begins like an earlier sequence is prefilled from where they differ, if its slot is
            free and the decoder computes each token alike with any others: see `cache_slots`.
        speculative: Draft tokens, if the decoder computes each token alike with any others.

    Attributes:
        sequences: The running sequences, in the order in which they joined.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        n_slots: int,
        length: int,
        vocab_size: int,
        prefill: int | None = None,
        keep_prefixes: bool = False,
        speculative: bool = False,
    ) -> None:
        self._decoder, self._vocab_size, self._budget = decoder, vocab_size, PrefillBudget(prefill)
        self._slots = CacheSlots(n_slots, keep=keep_prefixes and decoder.tokens_are_independent)
        self._drafts = DraftBudget() if speculative and decoder.tokens_are_independent else None
        self._token_s = math.inf  # seconds that one token of every sequence took most recently
        self.sequences: list[SequenceState] = []
        decoder.start(n_sequences=n_slots, length=length)

    @property
    def has_room(self) -> bool:
        """Whether another sequence can be added."""
        return bool(self._slots)

    def add(self, sequence: SequenceState) -> None:
        """Add a sequence; its first delta is returned by one of the next steps."""
        window = sequence.window
        fits = len(window.ids) <= window.block_size
        sequence.slot, window.cached = self._slots.take(window.ids if fits else ())
        sequence.reused_tokens = window.cached
        self._token_s = math.inf  # the batch is larger now: measure again
        self.sequences.append(sequence)

    def drop(self, sequence: SequenceState) -> None:
        """Remove a sequence, finished or not, and free its slot."""
        self.sequences.remove(sequence)
        window = sequence.window
        cached = () if sequence.error is not None else window.ids[window.start : window.start + window.cached]
        self._slots.give_back(sequence.slot, cached)

    @torch.no_grad()  # not inference_mode: a model in training must not keep tensors that autograd refuses
    def step(self) -> list[tuple[SequenceState, Delta]]:
        """Decode one token, or as many as `MULTI_STEP_S` allows, of every sequence whose prompt has been prefilled.
        Sequences that end or fail are dropped.
        """
        out = []
        for sequence in [sequence for sequence in self.sequences if not sequence.new_ids]:
            if (delta := sequence.begin()) is not None:
                out.append((sequence, delta))
                self.drop(sequence)
        decoding = [sequence for sequence in self.sequences if sequence.window.pending == 1]
        prompts = [sequence for sequence in self.sequences if sequence.window.pending > 1]
        shares = self._budget.shares([sequence.window.pending for sequence in prompts], decoding=bool(decoding))
        chosen = [(sequence, share) for sequence, share in zip(prompts, shares, strict=True) if share]
        if not chosen and any(drafts := self._drafted(decoding)):
            return [*out, *self._verify(decoding, drafts)]
        if not chosen and (n := self._n_steps(decoding)) > 1:
            return [*out, *self._multi_step_decode(decoding, n)]
        # fed: the sequence, or None while its prompt is incomplete
        fed = [*decoding, *(s if share == s.window.pending else None for s, share in chosen)]
        feeds = [sequence.window.next_feed(sequence.slot) for sequence in decoding]
        feeds += [sequence.window.next_feed(sequence.slot, limit=share) for sequence, share in chosen]
        if not feeds:
            return out
        start = time.perf_counter()
        logits = self._decoder.feed(feeds)[:, : self._vocab_size]
        seconds = time.perf_counter() - start
        if chosen:
            self._budget.prefilled(sum(share for _, share in chosen), seconds=seconds, decoding=bool(decoding))
        else:
            self._stepped(seconds, n_sequences=len(feeds))
            self._budget.rested(seconds)
        rows = [row for row, sequence in enumerate(fed) if sequence is not None]
        ready = [sequence for sequence in fed if sequence is not None]
        if not ready:
            return out
        logits = logits if len(rows) == len(fed) else logits[rows]
        deltas = self._sample(logits, ready)
        for sequence in [sequence for sequence in ready if sequence.done]:
            self.drop(sequence)
        return [*out, *zip(ready, deltas, strict=True)]

    def _n_steps(self, sequences: Sequence[SequenceState]) -> int:
        """How many tokens of each of these sequences the next step may decode."""
        limit_s = MULTI_STEP_S * (1 + len(sequences) / 10)
        n = min(self._decoder.max_decode_steps, int(limit_s / max(self._token_s, 1e-9)))
        if n < 2 or not sequences:
            return 1
        for sequence in sequences:
            if sequence.needs_logits:
                return 1
            n = min(n, sequence.window.room)
        return min(n, max(sequence.request.max_new_tokens - len(sequence.new_ids) for sequence in sequences))

    def _multi_step_decode(self, sequences: list[SequenceState], n: int) -> list[tuple[SequenceState, Delta]]:
        """n tokens of each sequence; fewer where one ends."""
        start = time.perf_counter()
        decoded = self._decoder.decode_steps(
            [sequence.window.next_feed(sequence.slot) for sequence in sequences],
            [sequence.sampling for sequence in sequences],
            uniforms=[sequence.uniforms(n) for sequence in sequences],
            vocab_size=self._vocab_size,
        )
        seconds = time.perf_counter() - start
        self._stepped(seconds / n, n_sequences=len(sequences))
        self._budget.rested(seconds)
        return self._appended(sequences, decoded)

    def _stepped(self, seconds: float, *, n_sequences: int) -> None:
        """One token of each of n sequences took so long."""
        self._token_s = seconds
        if self._drafts is not None:
            self._drafts.stepped(seconds, n_sequences=n_sequences)

    def _drafted(self, sequences: Sequence[SequenceState]) -> list[list[int]]:
        """A draft for each sequence, often empty; none at all where one needs logits."""
        if self._drafts is None or any(sequence.needs_logits for sequence in sequences):
            return []
        found = []
        for sequence in sequences:
            drafts, window = sequence.drafts, sequence.window
            n = self._drafts.length(drafts.rate, n_sequences=len(sequences))
            if n == 0:
                drafts.skipped()
            left = sequence.request.max_new_tokens - len(sequence.new_ids)
            found.append(drafts.draft(window.ids, max(0, min(n, left - 1, window.room - 1))) if n else [])
        return found

    def _verify(self, sequences: list[SequenceState], drafts: list[list[int]]) -> list[tuple[SequenceState, Delta]]:
        """The drafted tokens that are right, and one more of each sequence."""
        start = time.perf_counter()
        feeds = [sequence.window.next_feed(sequence.slot) for sequence in sequences]
        decoded = self._decoder.verify(
            [Feed(one.sequence, one.position, one.ids + draft) for one, draft in zip(feeds, drafts, strict=True)],
            [sequence.sampling for sequence in sequences],
            uniforms=[sequence.uniforms(1 + len(draft)) for sequence, draft in zip(sequences, drafts, strict=True)],
            vocab_size=self._vocab_size,
        )
        seconds = time.perf_counter() - start
        assert self._drafts is not None
        self._drafts.verified(seconds, n_sequences=len(sequences), n_drafted=sum(map(len, drafts)))
        self._budget.rested(seconds)
        for sequence, draft, tokens in zip(sequences, drafts, decoded, strict=True):
            if draft:
                sequence.drafts.verified(drafted=len(draft), accepted=len(tokens) - 1)
        return self._appended(sequences, decoded)

    def _appended(
        self, sequences: Sequence[SequenceState], decoded: Sequence[Sequence[int | None]]
    ) -> list[tuple[SequenceState, Delta]]:
        """Append what was decoded in one call; all of it but the last token of each sequence is in the cache."""
        out = []
        for sequence, tokens in zip(sequences, decoded, strict=True):
            sequence.window.cached += len(tokens) - 1
            try:
                delta = self._append(sequence, tokens)
            except Exception as problem:
                delta = sequence.fail(problem)
            if sequence.done:
                self.drop(sequence)
            out.append((sequence, delta))
        return out

    @staticmethod
    def _append(sequence: SequenceState, tokens: Sequence[int | None]) -> Delta:
        """Append tokens up to the first None (non-finite logits); there the sequence fails, unless it ended before."""
        good = [token for token in itertools.takewhile(lambda token: token is not None, tokens) if token is not None]
        delta = sequence.append_all(good) if good else Delta()
        if len(good) == len(tokens) or sequence.done:
            return delta
        return join_deltas([delta, sequence.fail(non_finite_error())])

    def _sample(self, logits: Tensor, sequences: Sequence[SequenceState]) -> list[Delta]:
        """(B, V) logits -> the delta of each sequence."""
        try:
            sampled = self._next_tokens(logits, sequences)
        except Exception as problem:  # sample one by one, so that only the sequence at fault fails
            if len(sequences) == 1:
                return [sequences[0].fail(problem)]
            return [self._sample(logits[row : row + 1], [sequence])[0] for row, sequence in enumerate(sequences)]
        deltas = []
        for sequence, (token, logprob) in zip(sequences, sampled, strict=True):
            try:
                deltas.append(sequence.append(token, logprob))
            except Exception as problem:
                deltas.append(sequence.fail(problem))
        return deltas

    def _next_tokens(self, logits: Tensor, sequences: Sequence[SequenceState]) -> list[tuple[int, TokenLogprob | None]]:
        """(B, V) logits -> the sampled token of each sequence, and its log-probability where requested."""
        settings = [sequence.sampling for sequence in sequences]
        adjusted = logits
        if any(sequence.penalizes for sequence in sequences):
            adjusted = check_finite(logits).clone()
            for row, sequence in enumerate(sequences):
                if sequence.penalizes:
                    seen = {"prompt_ids": sequence.request.prompt_ids, "new_ids": sequence.new_ids}
                    adjusted[row] = penalize(adjusted[row], settings[row], **seen)
        uniforms = [sequence.uniforms(1)[0] for sequence in sequences]
        tokens = self._decoder.sample(adjusted, settings, uniforms=uniforms)
        return [
            (
                token,
                None if sequence.request.logprobs is None else _logprob(logits[row], token, sequence.request.logprobs),
            )
            for row, (token, sequence) in enumerate(zip(tokens, sequences, strict=True))
        ]


def _logprob(logits: Tensor, token: int, alternatives: int) -> TokenLogprob:
    logprobs = torch.log_softmax(logits.float(), dim=-1)  # (V,)
    values, ids = logprobs.topk(min(alternatives, logprobs.numel()))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token_id=token, logprob=float(logprobs[token]), top=top)
