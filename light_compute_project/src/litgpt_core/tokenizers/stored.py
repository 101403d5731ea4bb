"""What all tokenizers share: a defining file kept byte for byte, and a table from id to bytes. No encoding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.directory import Description, config_bytes, write_files


class StoredTokenizer(Tokenizer):
    """Abstract: a tokenizer that is defined by one file's bytes.

    Subclasses add `encode`, and `_decode_sequence` if there is no table.

    The defining bytes are kept as read or as trained and written back unchanged, because the libraries' own
    serialisation is not always stable (Hugging Face's WordPiece reorders entries).
    """

    file_name: str
    tokenizer_class: str

    def __init__(
        self,
        definition: bytes,
        *,
        kind: str,
        table: list[bytes] | None,
        vocab_size: int,
        eos: tuple[str, int],
        bos: tuple[str, int] | None = None,
        specials: Iterable[int] = (),
        foreign: Description | None = None,
    ) -> None:
        self.kind, self.vocab_size = kind, vocab_size
        self._definition, self._table, self._foreign = definition, table, foreign
        self._eos_token, self.eos_id = eos
        self._bos_token = None if bos is None else bos[0]
        self.bos_id = None if bos is None else bos[1]
        self._specials = super().special_ids().union(specials)
        self.use_bos = foreign is not None and foreign.use_bos  # of ours: set by `train` and `from_description`

    def decode(self, ids: Sequence[int]) -> str:
        """Join the tokens' bytes; see the base class."""
        checked = self._checked(ids)
        if self._table is None:
            return self._decode_sequence(checked)
        return b"".join([self._table[token_id] for token_id in checked]).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes | None:
        """One entry of the table; see the base class."""
        table = self._table
        if table is None or type(token_id) is not int or not 0 <= token_id < self.vocab_size:
            (token_id,) = self._checked((token_id,))
        return None if table is None else table[token_id]

    def special_ids(self) -> frozenset[int]:
        """bos, eos and any other id that represents no text (unk, chat markers of foreign tokenizers)."""
        return self._specials

    def save(self, directory: Path) -> None:
        """Write the defining file and `tokenizer_config.json`."""
        config = config_bytes(
            kind=self.kind,
            tokenizer_class=self.tokenizer_class,
            eos_token=self._eos_token,
            bos_token=self._bos_token,
            use_bos=self.use_bos,
            foreign=self._foreign,
        )
        write_files(Path(directory), {self.file_name: self._definition, "tokenizer_config.json": config})

    def fingerprint(self) -> str:
        """SHA-256 over kind, special ids and the defining file."""
        head = f"{self.kind}:{self.bos_id}:{self.eos_id}:".encode()
        return hashlib.sha256(head + self._definition).hexdigest()

    def _decode_sequence(self, ids: list[int]) -> str:
        raise AssertionError(f"{type(self).__name__} has neither a byte table nor a decoder of its own")
