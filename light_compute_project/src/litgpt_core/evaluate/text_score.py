"""Bits per byte of texts: sliding windows, every byte scored once, each text from its own beginning.

    text --tokenizer--> ids --windows--> log p of each id --> bits of each token --> bits / UTF-8 bytes

The unit is comparable across tokenizers: a text's bits are those of its token sequence as the tokenizer writes it,
given the start id, and its bytes are those of its UTF-8 form. Other divisions into tokens could spell the same text, so
the value is an upper bound of the text's own bits (the bound that a compressor reaches, see `coding.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Document
from litgpt_core.evaluate.scorer import Floats, Ids, Scorer, Span
from litgpt_core.evaluate.windows import sliding_spans
from litgpt_core.tokenizers.base import Tokenizer

TOKENS_AT_ONCE = 1 << 18
"""Tokens of several texts that are scored in one call."""

BLOCK_BYTES = 1024
"""Bytes of the units in which texts are compared, where there are too few texts to be the units."""


@dataclass(frozen=True, kw_only=True)
class TextScore:
    """One text as a model sees it."""

    name: str
    n_bytes: int
    """UTF-8 bytes."""
    token_bits: Floats = field(repr=False)
    """(T,): -log2 p of each token."""
    token_bytes: npt.NDArray[np.int64] = field(repr=False)
    """(T,): bytes of each token; adds up to `n_bytes`."""

    @property
    def n_tokens(self) -> int:
        """T."""
        return len(self.token_bits)

    @property
    def bits(self) -> float:
        """Of the whole text."""
        return float(self.token_bits.sum())

    @property
    def bits_per_byte(self) -> float:
        """The number to compare across models and tokenizers."""
        return self.bits / self.n_bytes

    def block_bits(self, size: int = BLOCK_BYTES) -> Floats:
        """Bits of each block of `size` bytes, shape (ceil(n_bytes / size),): the same blocks under any tokenizer.

        The bits of a token are divided evenly over its bytes; a token without bytes counts where it stands.
        """
        edges = np.unique(np.arange(0, self.n_bytes + size, size).clip(max=self.n_bytes))
        places = np.concatenate([[0], np.cumsum(self.token_bytes)])
        before = np.interp(edges, places, np.concatenate([[0.0], np.cumsum(self.token_bits)]))
        before[0], before[-1] = 0.0, self.bits  # tokens without bytes at both ends
        return np.asarray(np.diff(before), dtype=np.float64)


def score_text(scorer: Scorer, text: str, *, context: int | None = None) -> TextScore:
    """Score one text; see `score_texts`."""
    return score_texts(scorer, [Document("", "text", text)], context=context)[0]


def score_texts(scorer: Scorer, documents: Sequence[Document], *, context: int | None = None) -> list[TextScore]:
    """Score texts, each from its own beginning.

    Args:
        scorer: A network or an n-gram model.
        documents: None of them empty.
        context: Least tokens of context after a text's first window; None: half the model's window.

    Raises:
        DataError: A text is empty.
        TokenizerError: The tokenizer cannot represent a text.
    """
    for document in documents:
        if not document.text:
            raise DataError(f"{document.name} is empty", needed="a text of at least one character")
    scores: list[TextScore] = []
    waiting: list[tuple[Document, Ids]] = []
    size = 0
    for document in documents:
        ids = scorer.encode(document.text)
        waiting.append((document, ids))
        size += len(ids)
        if size >= TOKENS_AT_ONCE:
            scores += _score(scorer, waiting, context=context)
            waiting, size = [], 0
    return scores + _score(scorer, waiting, context=context)


def _score(scorer: Scorer, texts: Sequence[tuple[Document, Ids]], *, context: int | None) -> list[TextScore]:
    windows = [
        sliding_spans(ids, block_size=scorer.block_size, context=context) if len(ids) > 1 else [] for _, ids in texts
    ]
    flat: list[Span] = [span for spans in windows for span in spans]
    scored = iter(scorer.span_logprobs(flat))
    found = []
    for (document, ids), spans in zip(texts, windows, strict=True):
        logprobs = np.concatenate([np.zeros(0), *(next(scored) for _ in spans)])
        n_bytes = len(document.text.encode("utf-8"))
        found.append(
            TextScore(
                name=document.name,
                n_bytes=n_bytes,
                token_bits=-logprobs / math.log(2),
                token_bytes=bytes_of_tokens(scorer.tokenizer, ids[1:], n_bytes=n_bytes),
            )
        )
    return found


def bytes_of_tokens(tokenizer: Tokenizer, ids: Ids, *, n_bytes: int) -> npt.NDArray[np.int64]:
    """(T,): how many of a text's bytes each token stands for.

    Where the tokenizer does not say (some that were made elsewhere), the text's bytes are divided evenly.
    """
    known = {int(token): tokenizer.token_bytes(int(token)) for token in np.unique(ids)}
    if all(part is not None for part in known.values()):
        lengths = np.array([len(known[int(token)] or b"") for token in ids], dtype=np.int64)
        if int(lengths.sum()) == n_bytes:
            return lengths
    edges = np.linspace(0, n_bytes, len(ids) + 1).round().astype(np.int64)
    return np.asarray(np.diff(edges), dtype=np.int64)


def total_bits_per_byte(scores: Sequence[TextScore]) -> float:
    """Of several texts together: all bits by all bytes."""
    return sum(score.bits for score in scores) / sum(score.n_bytes for score in scores)
