"""The interface of every tokenizer: text to ids, ids to text, ids to bytes, and a directory on disk. No algorithm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core.core.errors import TokenizerError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


LONG_TEXT = 1_000_000
"""Characters from which `encode_plain_arrays` encodes a text in parts."""


class Tokenizer(ABC):
    """Text <-> ids. Ids are `range(vocab_size)`; nothing is added by `encode`, specials are skipped by `decode`.

    Attributes:
        kind: char, byte, bpe, wordpiece, unigram, sentencepiece, or "foreign" for a directory made elsewhere.
        vocab_size: Number of ids, special tokens included.
        bos_id: Begin-of-sequence id, or None where the tokenizer has none.
        eos_id: End-of-document id. For tokenizers trained here no text ever encodes to it, not even text that spells
            its name; foreign ones do parse special tokens in text, which prompt styles rely on.
        use_bos: Whether a prompt should start with `bos_id` (LitGPT's rule for foreign directories; for ours if it was
            trained with `add_bos_token`).
    """

    kind: str
    vocab_size: int
    bos_id: int | None
    eos_id: int
    use_bos: bool = False

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without bos or eos.

        Raises TokenizerError for text that the vocabulary cannot represent.
        """

    @abstractmethod
    def encode_batch(self, texts: Sequence[str], *, threads: int = 0) -> list[list[int]]:
        """`[encode(text) for text in texts]`, faster; `threads` 0 lets the library choose, and is a hint elsewhere."""

    def encode_plain_batch(self, texts: Sequence[str], *, threads: int = 0) -> list[list[int]]:
        """As `encode_batch`, but text that spells a special token stays text; for documents and messages."""
        return self.encode_batch(texts, threads=threads)

    def encode_plain_arrays(
        self, texts: Sequence[str], *, threads: int = 0
    ) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        """As `encode_plain_batch`, one array per text, shape (n,): a text of many megabytes is encoded in parts, so
        that it never is a list of Python numbers.
        """
        import numpy as np

        waiting: list[str] = []
        for text in texts:
            if len(text) <= LONG_TEXT:
                waiting.append(text)
                continue
            for ids in self.encode_plain_batch(waiting, threads=threads):
                yield np.array(ids, dtype=np.uint32)
            waiting = []
            found = [
                np.array(ids, dtype=np.uint32)
                for parts in _together(self.parts(text), size=LONG_TEXT)
                for ids in self.encode_plain_batch(parts, threads=threads)
            ]
            yield np.concatenate(found)
        for ids in self.encode_plain_batch(waiting, threads=threads):
            yield np.array(ids, dtype=np.uint32)

    def use_fast(self, sample: Sequence[str]) -> bool:
        """Encode documents (`encode_plain_arrays`) by a faster library from now on, if it gives the same ids.

        Args:
            sample: Texts of the corpus on which it is compared first.

        Returns:
            Whether it is used; the log says why not.
        """
        return False

    def parts(self, text: str) -> list[str]:
        """`text` cut where no id changes, if such places are known."""
        return [text]

    def special_names(self) -> frozenset[str]:
        """Spellings that `encode` reads as special tokens; empty for tokenizers trained here."""
        return frozenset()

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special ids contribute nothing, incomplete UTF-8 becomes U+FFFD.

        Raises TokenizerError for an unknown id.
        """

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes | None:
        """The UTF-8 bytes that this id contributes at any position (b"" for special tokens), for streaming.

        For every tokenizer trained here, `b"".join(map(token_bytes, encode(text))) == text.encode()`. Returns None
        where a token's text depends on its neighbours or the decoder is not understood (some foreign directories):
        decode whole sequences there.
        """

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the files that `load` and `litgpt.tokenizer.Tokenizer` read. Each file is replaced atomically."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the bytes that define this tokenizer; equal before and after save and load."""

    def special_ids(self) -> frozenset[int]:
        """Ids that represent no text: they contribute nothing to `decode`."""
        return frozenset(token_id for token_id in (self.bos_id, self.eos_id) if token_id is not None)

    def _checked(self, ids: Iterable[int]) -> list[int]:
        """`ids` as plain integers inside the vocabulary; TokenizerError names the first that is not."""
        plain = [int(token_id) for token_id in ids]
        if plain and not (min(plain) >= 0 and max(plain) < self.vocab_size):
            at = next(index for index, token_id in enumerate(plain) if not 0 <= token_id < self.vocab_size)
            raise TokenizerError(
                f"Token id {plain[at]} at position {at} is outside the vocabulary.",
                needed=f"ids from 0 to {self.vocab_size - 1} (tokenizer kind {self.kind})",
                fix="use the tokenizer that was saved with the checkpoint",
            )
        return plain


def _together(parts: Iterable[str], *, size: int) -> Iterator[list[str]]:
    """Successive parts of about `size` characters."""
    group: list[str] = []
    length = 0
    for part in parts:
        group.append(part)
        length += len(part)
        if length >= size:
            yield group
            group, length = [], 0
    if group:
        yield group


def to_utf8(text: str) -> bytes:
    """`text` as UTF-8; TokenizerError with the position for a lone surrogate, which no UTF-8 can hold."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"The text contains a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}.",
            needed="text that can be written as UTF-8",
            fix="read files with errors='replace', or drop that character",
        ) from None
