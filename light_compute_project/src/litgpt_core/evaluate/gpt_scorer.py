"""Scores with a network: batches of similar length, longest first; a context that has several continuations once.

    choice_logprobs   [c c c c  a a  b b b]     one row for a context and its choices, each of which sees the context
                                                and itself, at the positions behind the context (`model/mask.py`)

The last block computes the positions that predict a choice's id alone (`kept_positions.py`). The reference is
`Scorer.choice_logprobs`, which feeds every choice with its whole context.
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
from litgpt_core.evaluate.kept_positions import hidden_at
from litgpt_core.evaluate.scorer import Continuations, Floats, Ids, Scorer, Span
from litgpt_core.evaluate.trees import PADDING, Tree, trees_of
from litgpt_core.generation.hardware import choose_device, named_dtype

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.tokenizers.base import Tokenizer

BATCH_TOKENS, BATCH_TOKENS_OF_A_CPU = 8192, 1024
"""Ids of one pass, padding included. On a CPU the activations of a pass should fit into the cache: with 1,024 ids the
4M baseline takes 91 us a token on one core of an AMD EPYC, with 7,800 it takes 110."""
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
        order = sorted(range(len(spans)), key=lambda index: (-len(spans[index].ids), spans[index].first))
        with self._evaluating():
            for batch in _batches(order, [len(span.ids) - 1 for span in spans], limit=self.batch_tokens):
                for index, score in zip(batch, self._spans([spans[index] for index in batch]), strict=True):
                    scores[index] = score
        return scores

    def _spans(self, spans: Sequence[Span]) -> list[Floats]:
        lengths = [len(span.ids) - span.first for span in spans]
        ids, widest = self._padded([span.ids[:-1] for span in spans]), max(lengths)
        if 0 < widest < ids.size(1):
            ends = [max(0, len(span.ids) - 2) for span in spans]
            keep = [np.minimum(np.arange(widest) + span.first - 1, end) for span, end in zip(spans, ends, strict=True)]
            hidden = hidden_at(self.model, ids, self._tensor(np.stack(keep)))  # (B, widest, C)
            rows = [hidden[row, :length] for row, length in enumerate(lengths)]
        else:
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
        trees = [tree for request in requests for tree in trees_of(request, block_size=self.block_size)]
        scores: list[list[Floats]] = [[]] * len(trees)
        order = sorted(range(len(trees)), key=lambda index: -len(trees[index].ids))
        with self._evaluating():
            for batch in _batches(order, [len(tree.ids) for tree in trees], limit=self.batch_tokens):
                for index, found in zip(batch, self._trees([trees[index] for index in batch]), strict=True):
                    scores[index] = found
        every = (each for found in scores for each in found)
        return [[next(every) for _ in request.choices] for request in requests]

    def _trees(self, trees: Sequence[Tree]) -> list[list[Floats]]:
        """For each tree the scores of its choices."""
        ids = self._padded([tree.ids for tree in trees])
        segments = None  # no branch: the causal mask is enough
        if any(tree.branches for tree in trees):
            segments = self._padded([tree.segments for tree in trees], fill=PADDING)
        widest = max(len(tree.ids) - tree.context for tree in trees) + 1
        keep = [np.minimum(np.arange(widest) + tree.context - 1, len(tree.ids) - 1) for tree in trees]
        hidden = hidden_at(self.model, ids, self._tensor(np.stack(keep)), segments=segments)  # (B, widest, C)
        places = np.concatenate([row * widest + tree.places() for row, tree in enumerate(trees)])
        read, rows = np.unique(places, return_inverse=True)  # several choices may be predicted at one place
        targets = np.concatenate([choice for tree in trees for choice in tree.choices])
        scored = self._token_scores(hidden.flatten(0, 1)[self._tensor(read)], self._tensor(targets), rows=rows)
        lengths = [len(choice) for tree in trees for choice in tree.choices]
        parts = iter(np.split(scored, np.cumsum(lengths)[:-1]))
        return [[next(parts) for _ in tree.choices] for tree in trees]

    def _token_scores(self, hidden: Tensor, targets: Tensor, *, rows: Ids | None = None) -> Floats:
        """log p of targets among the tokenizer's ids in nats, and whether none has more.

        Args:
            hidden: (M, C), the last norm's output.
            targets: (N,)
            rows: (N,) from 0 to M - 1, where each target is predicted; None: N is M, each at its own.

        Returns:
            (N, 2)
        """
        rows = np.arange(len(hidden)) if rows is None else rows
        order = np.argsort(rows, kind="stable")
        scored: Floats = np.zeros((len(order), 2))
        for begin in range(0, len(hidden), HEAD_ROWS):
            logits = self.model.head(hidden[begin : begin + HEAD_ROWS])[:, : self.vocab_size].float()
            first, last = np.searchsorted(rows[order], [begin, begin + len(logits)])
            chosen = order[first:last]
            own, here = targets[self._tensor(chosen)], self._tensor(rows[chosen] - begin)
            value = logits[here, own]
            best = (value == logits.amax(dim=1)[here]).double()
            log_p = value.double() - logits.logsumexp(dim=1).double()[here]
            scored[chosen] = torch.stack([log_p, best], dim=1).cpu().numpy()
        if not np.isfinite(scored).all():
            raise CheckpointError(
                f"{self.name} gives log probabilities that are infinite or not a number.",
                needed="weights of a training that did not diverge",
                fix="an earlier checkpoint, or --precision 32",
            )
        return scored

    def _padded(self, sequences: Sequence[Ids], *, fill: int = 0) -> Tensor:
        """(B, T), with `fill` behind the end of the shorter ones."""
        longest = max(1, max(map(len, sequences)))
        padded = np.full((len(sequences), longest), fill, dtype=np.int64)
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
