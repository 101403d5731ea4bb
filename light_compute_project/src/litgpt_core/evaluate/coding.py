"""Compresses a text with a model, and restores it byte for byte: the model's probabilities, an arithmetic coder.

    text --tokenizer--> t1 t2 t3 ...          for each token: the model's p(. | tokens before) --frequencies--> coder
    bytes --coder--> t1 --model--> t2 ...     the same steps in the same order, so the same probabilities

Both directions feed the model one token at a time through the KV cache, with the window of generation, because sums in
another order would differ in their last bits. The result can therefore be restored where the same model computes the
same bits: the same machine type, the same torch; a hash of the text tells whether that was so. The size is that of the
bits per byte of `text_score.py` with its standard windows, plus a header of `HEADER_BYTES`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from litgpt_core.core.errors import CheckpointError, DataError, TokenizerError
from litgpt_core.evaluate.arithmetic_coder import ArithmeticDecoder, ArithmeticEncoder, cumulative_frequencies
from litgpt_core.generation.choice import choose_decoder
from litgpt_core.generation.text_window import TextWindow

if TYPE_CHECKING:
    from litgpt_core.evaluate.gpt_scorer import GPTScorer

MAGIC = b"LCP1"
_HEADER = struct.Struct(">4s8s8sQ")
"""Magic, first bytes of the model's and of the text's SHA-256, number of tokens."""
HEADER_BYTES = _HEADER.size

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed text."""

    data: bytes
    """Header and coded tokens."""
    n_bytes: int
    """Of the text."""
    n_tokens: int
    model_bits: float
    """Sum of -log2 p of its tokens: what the coded tokens would take if bytes could be divided."""

    @property
    def bits_per_byte(self) -> float:
        """Of the coded tokens, without the header."""
        return 8 * (len(self.data) - HEADER_BYTES) / self.n_bytes


def compress(scorer: GPTScorer, raw: bytes, *, name: str = "text", progress: Progress | None = None) -> Compressed:
    """Compress the bytes of a text.

    Args:
        scorer: The model; the same one is needed to restore the text.
        raw: UTF-8.
        name: Of the text, for messages.
        progress: Called with the tokens done and all tokens.

    Raises:
        DataError: The text is empty or not UTF-8.
        TokenizerError: The tokenizer cannot represent the text, or would give another text back.
    """
    ids = _lossless_ids(scorer, raw, name=name)
    encoder, bits = ArithmeticEncoder(), 0.0
    steps = _Steps(scorer)
    with steps.running():
        for place, token in enumerate(ids):
            probabilities = steps.probabilities()
            cumulative = cumulative_frequencies(probabilities)
            start = int(cumulative[token])
            encoder.encode(start, int(cumulative[token + 1]) - start)
            bits -= math.log2(float(probabilities[token]))
            steps.append(token)
            if progress is not None:
                progress(place + 1, len(ids))
    header = _HEADER.pack(MAGIC, model_digest(scorer), hashlib.sha256(raw).digest()[:8], len(ids))
    return Compressed(data=header + encoder.finish(), n_bytes=len(raw), n_tokens=len(ids), model_bits=bits)


def decompress(scorer: GPTScorer, data: bytes, *, name: str = "file", progress: Progress | None = None) -> bytes:
    """The text of `compress`.

    Raises:
        DataError: The data is not such a file.
        CheckpointError: It was compressed with another model, or this machine computes other probabilities.
    """
    if len(data) < HEADER_BYTES or data[: len(MAGIC)] != MAGIC:
        raise DataError(
            f"{name} is not a compressed text",
            needed="a file that --compress wrote",
            fix="lcp evaluate RUN --compress FILE",
        )
    _, model, digest, count = _HEADER.unpack(data[:HEADER_BYTES])
    if model != model_digest(scorer):
        raise CheckpointError(
            f"{name} was compressed with another model than {scorer.name}", needed="the checkpoint that compressed it"
        )
    decoder, ids = ArithmeticDecoder(data[HEADER_BYTES:]), list[int]()
    steps = _Steps(scorer)
    with steps.running():
        while len(ids) < count:
            ids.append(decoder.decode(cumulative_frequencies(steps.probabilities())))
            steps.append(ids[-1])
            if progress is not None:
                progress(len(ids), count)
    raw = b"".join(scorer.tokenizer.token_bytes(token) or b"" for token in ids)
    if hashlib.sha256(raw).digest()[:8] != digest:
        raise CheckpointError(
            f"{name} does not come back as it was: this machine computes other probabilities, or the file is damaged",
            needed="the machine type, torch version and device it was compressed with, and an undamaged file",
        )
    return raw


def model_digest(scorer: GPTScorer) -> bytes:
    """8 bytes that name the weights and the tokenizer."""
    digest = hashlib.sha256(scorer.tokenizer.fingerprint().encode())
    for name, tensor in sorted(scorer.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()[:8]


class _Steps:
    """The model's probabilities, token after token, by the same operations in both directions."""

    def __init__(self, scorer: GPTScorer) -> None:
        self._decoder, self._size = choose_decoder(scorer.model), scorer.vocab_size
        self._window = TextWindow(ids=[scorer.start_id], block_size=scorer.block_size)
        self._length = scorer.block_size

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Holds the cache."""
        self._decoder.start(n_sequences=1, length=self._length)
        try:
            with torch.no_grad():
                yield
        finally:
            self._decoder.finish()

    def probabilities(self) -> npt.NDArray[np.float64]:
        """(V,) of the next token."""
        logits = self._decoder.feed([self._window.next_feed(0)])[0, : self._size]
        values = logits.float().cpu().numpy().astype(np.float64)
        weights = np.exp(values - values.max())
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    def append(self, token: int) -> None:
        """The token that followed."""
        self._window.ids.append(token)


def _lossless_ids(scorer: GPTScorer, raw: bytes, *, name: str) -> list[int]:
    """The ids of the text, which decode to its bytes."""
    if not raw:
        raise DataError(f"{name} is empty", needed="a text of at least one byte")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 (byte {error.start})", needed="a text file in UTF-8") from error
    ids = scorer.tokenizer.encode(text)
    chunks = [scorer.tokenizer.token_bytes(token) for token in ids]
    if any(chunk is None for chunk in chunks) or b"".join(chunk or b"" for chunk in chunks) != raw:
        raise TokenizerError(
            f"the tokenizer of {scorer.name} ({scorer.tokenizer.kind}) does not give {name} back byte for byte",
            needed="a tokenizer that loses nothing, as those trained here",
        )
    return ids
