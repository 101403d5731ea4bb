"""A `tokenizer.model` run by the SentencePiece library: ours (BPE with byte fallback, lossless) and foreign LitGPT
directories.

Training is in `sentencepiece_training.py`. Two things are added around the library, neither of which changes its ids:
long texts are cut where no piece can span the cut, and U+2581, which the library cannot distinguish from a space, is
encoded as its bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from sentencepiece import SentencePieceProcessor

from litgpt_core.core.errors import TokenizerError
from litgpt_core.tokenizers.base import to_utf8
from litgpt_core.tokenizers.directory import FOREIGN, Description
from litgpt_core.tokenizers.file_names import MODEL_FILE
from litgpt_core.tokenizers.stored import StoredTokenizer

SPACE_MARK = "\u2581"
"""What the library writes for a space inside pieces."""

_PART = 4096  # characters; the library's merge queue is several times slower on texts of megabytes


class SentencePieceTokenizer(StoredTokenizer):
    """Final. Ours: unk 0, bos 1, eos 2 (`</s>`, end of document), 256 byte tokens, then pieces.

    Special tokens are never parsed in text.
    """

    file_name, tokenizer_class = MODEL_FILE, "PreTrainedTokenizer"

    def __init__(self, definition: bytes, *, kind: str = "sentencepiece", foreign: Description | None = None) -> None:
        """Raises RuntimeError for a definition that the library cannot read, TokenizerError for one without an end
        token.
        """
        processor = SentencePieceProcessor(model_proto=definition)
        size = processor.vocab_size() if definition else 0
        if size == 0:
            raise RuntimeError("the file contains no pieces")
        eos_id, bos_id = processor.eos_id(), processor.bos_id()
        if eos_id < 0:
            raise TokenizerError(
                "The tokenizer.model has no end-of-text piece.", needed="a model trained with eos_id >= 0"
            )
        ids = list(range(size))
        pieces: list[str] = processor.id_to_piece(ids)
        specials = {i for i in ids if processor.is_control(i) or processor.is_unknown(i)}
        table = [
            b"" if i in specials
            else bytes.fromhex(piece[3:5]) if processor.is_byte(i)
            else to_utf8(piece.replace(SPACE_MARK, " "))
            for i, piece in enumerate(pieces)
        ]  # fmt: skip
        super().__init__(
            definition,
            kind=kind,
            table=table if foreign is None or not _strips_first_space(processor, pieces, specials) else None,
            vocab_size=size,
            eos=(pieces[eos_id], eos_id),
            bos=None if bos_id < 0 else (pieces[bos_id], bos_id),
            specials=specials,
            foreign=foreign,
        )
        self._processor = processor
        if foreign is None:
            self._mark_ids = [processor.piece_to_id(f"<0x{value:02X}>") for value in SPACE_MARK.encode()]
            texts = [piece.replace(SPACE_MARK, " ") for piece in pieces]
            self._joined = frozenset(text[at : at + 2] for text in texts for at in range(len(text) - 1))

    @classmethod
    def from_description(cls, description: Description) -> SentencePieceTokenizer:
        """Read a directory; TokenizerError when the file is damaged."""
        foreign = description if description.kind == FOREIGN else None
        try:
            read = cls(description.definition, kind=description.kind, foreign=foreign)
        except TokenizerError:
            raise
        except Exception as error:  # the library raises errors of many kinds, and so does what it gave
            raise description.broken(error) from None
        read.use_bos = description.use_bos and read.bos_id is not None
        return read

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; TokenizerError for a lone surrogate."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], *, threads: int = 0) -> list[list[int]]:
        """All texts on `threads` threads of the library's own, 0 for one per core."""
        for text in texts:
            to_utf8(text)
        parts_of = [self.parts(text) for text in texts]
        parts = [part for parts in parts_of for part in parts]
        workers = min(len(parts), threads or os.cpu_count() or 1) or 1
        encoded = iter(self._processor.encode(parts, num_threads=workers))
        batch: list[list[int]] = []
        for parts in parts_of:
            ids: list[int] = []
            for part in parts:
                part_ids = next(encoded)
                ids.extend(self._mark_ids if self._foreign is None and part == SPACE_MARK else part_ids)
            batch.append(ids)
        return batch

    def parts(self, text: str) -> list[str]:
        """Cut `text` so that the parts give the same ids: at U+2581, and where no piece contains both neighbours."""
        if self._foreign is not None or (len(text) <= _PART and SPACE_MARK not in text):
            return [text]
        parts: list[str] = []
        for section in re.split(f"({SPACE_MARK})", text):
            start = 0
            while len(section) - start > _PART:
                stop = self._safe_cut(section, start)
                parts.append(section[start:stop])
                start = stop
            if start < len(section):
                parts.append(section[start:])
        return parts

    def _safe_cut(self, text: str, start: int) -> int:
        """A position near `start + _PART` whose two neighbours are adjacent in no piece, so that no merge can span
        it.
        """
        middle = start + _PART
        backwards, forwards = range(middle, start, -1), range(middle + 1, len(text))
        for positions in (backwards, forwards):
            for at in positions:
                if text[at - 1 : at + 1] not in self._joined:
                    return at
        return len(text)

    def _decode_sequence(self, ids: list[int]) -> str:
        text: str = self._processor.decode([token_id for token_id in ids if token_id not in self._specials])
        return text


def _strips_first_space(processor: SentencePieceProcessor, pieces: list[str], specials: set[int]) -> bool:
    """Whether decoding drops the space of a first piece (models trained with a dummy prefix), so that bytes depend
    on position.
    """
    for i, piece in enumerate(pieces):
        if i not in specials and len(piece) > 1 and piece.startswith(SPACE_MARK) and piece.strip(SPACE_MARK):
            return bool(processor.decode([i]) != piece.replace(SPACE_MARK, " "))
    return False
