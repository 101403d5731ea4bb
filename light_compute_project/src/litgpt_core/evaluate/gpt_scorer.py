"""Scores with a network: batches of similar length, longest first; a context that has several continuations once.

    choice_logprobs   contexts, padded on the right   [c c c c . .]  --one pass into the KV cache--> log p of first ids
                      choice k of all contexts        [x x .]        --at positions len(context)...--> log p of the rest

Slots of the cache behind a sequence's own ids hold padding; the causal mask hides them, and the next choice overwrites
them. `Scorer.choice_logprobs`, which feeds every choice with its whole context, is the reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, locate
from litgpt_core.core.errors import CheckpointError
from litgpt_core.evaluate.kept_positions import can_keep, kept_positions
from litgpt_core.evaluate.scorer import Continuations, Floats, Ids, Scorer, Span
from litgpt_core.generation.hardware import choose_device, named_dtype

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.tokenizers.base import Tokenizer

BATCH_TOKENS, BATCH_TOKENS_OF_A_CPU = 8192, 1024
"""Ids of one pass, padding included. On a CPU the activations of a pass should fit into the cache: with 1,024 ids the 4M
baseline takes 91 us a token on one core of an AMD EPYC, with 7,800 it takes 110."""
HEAD_ROWS = 1024
"""Positions whose logits are in memory together."""


class GPTScorer(Scorer):
    """A model and its tokenizer.

    Args:
        model: On its device, in its dtype; its mode is restored after every call.
        tokenizer: The one it was trained with.
        name: For tables.
        batch_tokens: Ids of one pass, padding included; None: as many as suit the model's device.
    """

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, *, name: str = "model", batch_tokens: int | None = None
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        usual = BATCH_TOKENS_OF_A_CPU if model.device.type == "cpu" else BATCH_TOKENS
        self.batch_tokens = usual if batch_tokens is None else batch_tokens
        self.block_size = model.config.block_size
        self.vocab_size = min(tokenizer.vocab_size, model.config.padded_vocab_size)

    @classmethod
    def from_directory(
        cls, path: str | Path | None = None, *, name: str | None = None, device: str = "auto", precision: str = "32"
    ) -> GPTScorer:
        """Load a checkpoint directory, ours or LitGPT's.

        Args:
            path: A name or path as for `checkpoint.choose`; None: the best candidate.
            name: For tables; None: the directory's name.
            device: auto, cpu, cuda, cuda:1, mps.
            precision: 32, bf16, 16, or auto: as stored.

        Raises:
            CheckpointError, TokenizerError: The directory is incomplete or corrupted.
            EnvironmentProblem, ConfigError: The device is not available, or an argument is not one of those above.
        """
        target, dtype = choose_device(device), named_dtype(precision)
        directory = locate(path)
        model = load_model(directory, device=target, dtype=dtype)
        return cls(model, tokenizers.load(directory), name=name or directory.name)

    def _span_logprobs(self, spans: Sequence[Span]) -> list[Floats]:
        return [scores[:, 0] for scores in self.span_scores(spans)]

    def span_scores(self, spans: Sequence[Span]) -> list[Floats]:
        """As `span_logprobs`, with a second column: 1 where no other id is more probable. (T - first, 2) each."""
        scores: list[Floats] = [np.zeros((0, 2))] * len(spans)
        order = sorted(range(len(spans)), key=lambda index: -len(spans[index].ids))
        with self._evaluating():
            for batch in _batches(order, [len(span.ids) - 1 for span in spans], limit=self.batch_tokens):
                for index, score in zip(batch, self._spans([spans[index] for index in batch]), strict=True):
                    scores[index] = score
        return scores

    def _spans(self, spans: Sequence[Span]) -> list[Floats]:
        lengths = [len(span.ids) - span.first for span in spans]
        ids = self._padded([span.ids[:-1] for span in spans])
        hidden = self.model.hidden(ids)  # (B, T, C)
        rows = [hidden[row, span.first - 1 : len(span.ids) - 1] for row, span in enumerate(spans)]
        targets = np.concatenate([span.ids[span.first :] for span in spans])
        scored = self._token_scores(torch.cat(rows), self._tensor(targets))
        return np.split(scored, np.cumsum(lengths)[:-1])

    def choice_logprobs(self, requests: Sequence[Continuations]) -> list[list[Floats]]:
        """As `Scorer.choice_logprobs`, which it equals up to rounding: each context is computed once."""
        return [[scores[:, 0] for scores in each] for each in self.choice_scores(requests)]

    def choice_scores(self, requests: Sequence[Continuations]) -> list[list[Floats]]:
        """As `choice_logprobs`, with a second column: 1 where no other id is more probable. (T, 2) each."""
        for request in requests:
            self.check_length(len(request.context) + max(map(len, request.choices)) - 1)
        found: list[list[Floats]] = [[] for _ in requests]
        order = sorted(range(len(requests)), key=lambda index: -len(requests[index].context))
        sizes = [len(request.context) + max(map(len, request.choices)) for request in requests]
        with self._evaluating():
            for batch in _batches(order, sizes, limit=self.batch_tokens):
                chosen = [requests[index] for index in batch]
                slots = max(len(r.context) for r in chosen) + max(len(c) for r in chosen for c in r.choices) - 1
                fits = slots <= self.block_size  # a long context beside a long choice of another request
                scored = self._choices(chosen, slots=slots) if fits else self._uncached(chosen)
                for index, scores in zip(batch, scored, strict=True):
                    found[index] = scores
        return found

    def _uncached(self, requests: Sequence[Continuations]) -> list[list[Floats]]:
        spans = [
            Span(np.concatenate([request.context, choice]), len(request.context))
            for request in requests
            for choice in request.choices
        ]
        scores = iter(self.span_scores(spans))
        return [[next(scores) for _ in request.choices] for request in requests]

    def _choices(self, requests: Sequence[Continuations], *, slots: int) -> list[list[Floats]]:
        lengths = self._tensor([len(request.context) for request in requests])
        self.model.set_kv_cache(len(requests), max_seq_length=slots)
        try:
            ends = self._ends(self._padded([request.context for request in requests]), lengths)
            found: list[list[Floats]] = [[] for _ in requests]
            for place in range(max(len(request.choices) for request in requests)):
                having = [row for row, request in enumerate(requests) if place < len(request.choices)]
                choices = [requests[row].choices[place] for row in having]
                scores = self._continue(choices, ends[having], lengths[having], self._tensor(having))
                for row, score in zip(having, scores, strict=True):
                    found[row].append(score)
            return found
        finally:
            self.model.clear_kv_cache()

    def _ends(self, contexts: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) into the KV cache -> (B, C) at the contexts' last ids: what predicts the first id of every choice."""
        positions = torch.arange(contexts.size(1), device=lengths.device)
        if can_keep(self.model):
            with kept_positions(self.model, lengths[:, None] - 1):
                return self.model.hidden(contexts, input_pos=positions)[:, 0]
        rows = torch.arange(len(contexts), device=lengths.device)
        return self.model.hidden(contexts, input_pos=positions)[rows, lengths - 1]

    def _continue(self, choices: Sequence[Ids], ends: Tensor, lengths: Tensor, rows: Tensor) -> list[Floats]:
        """One choice for each of `rows` (B,) of the cache; `ends` (B, C) precede them, `lengths` (B,) are cached."""
        hidden = ends[:, None]
        if (longest := max(map(len, choices))) > 1:
            fed = self._padded([choice[:-1] for choice in choices])  # (B, longest - 1)
            positions = lengths[:, None] + torch.arange(longest - 1, device=lengths.device)
            self.model.select_cache_rows(rows)
            hidden = torch.cat([hidden, self.model.hidden(fed, input_pos=positions)], dim=1)
        flat = torch.cat([hidden[row, : len(choice)] for row, choice in enumerate(choices)])
        scored = self._token_scores(flat, self._tensor(np.concatenate(choices)))
        return np.split(scored, np.cumsum([len(choice) for choice in choices])[:-1])

    def _token_scores(self, hidden: Tensor, targets: Tensor) -> Floats:
        """(N, C), (N,) -> (N, 2): log p of the targets among the tokenizer's ids in nats, and whether none has more."""
        chunks = []
        for begin in range(0, len(targets), HEAD_ROWS):
            wanted = targets[begin : begin + HEAD_ROWS]
            logits = self.model.head(hidden[begin : begin + HEAD_ROWS])[:, : self.vocab_size].float()
            own = logits.gather(1, wanted[:, None])[:, 0]
            best = (own == logits.amax(dim=1)).double()
            chunks.append(torch.stack([own.double() - logits.logsumexp(dim=1).double(), best], dim=1))
        scored: Floats = torch.cat(chunks).cpu().numpy()
        if not np.isfinite(scored).all():
            raise CheckpointError(
                f"{self.name} gives log probabilities that are infinite or not a number.",
                needed="weights of a training that did not diverge",
                fix="an earlier checkpoint, or --precision 32",
            )
        return scored

    def _padded(self, sequences: Sequence[Ids]) -> Tensor:
        """(B, T), zeros behind the end of the shorter ones."""
        longest = max(1, max(map(len, sequences)))
        padded = np.zeros((len(sequences), longest), dtype=np.int64)
        for row, ids in enumerate(sequences):
            padded[row, : len(ids)] = ids
        return self._tensor(padded)

    def _tensor(self, values: Ids | Sequence[int]) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64), device=self.model.device)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(was_training)


def _batches(order: Sequence[int], sizes: Sequence[int], *, limit: int) -> Iterator[list[int]]:
    """Consecutive indices of `order`, whose padded size (number times the longest) is at most `limit`, or one alone."""
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, sizes[index])
        if batch and longest * (len(batch) + 1) > limit:
            yield batch
            batch, longest = [], sizes[index]
        batch.append(index)
    if batch:
        yield batch
