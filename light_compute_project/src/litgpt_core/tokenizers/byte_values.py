"""The byte tokenizer: ids are the UTF-8 byte values 0-255, and id 0 (NUL) ends a document. There is nothing to train.

On disk it is a byte-level `tokenizer.json` without merges, so that LitGPT reads the same ids; encoding here needs no
library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.parsing import parse_json
from litgpt_core.tokenizers.base import to_utf8
from litgpt_core.tokenizers.byte_alphabet import BYTE_TO_CHARACTER, CHARACTER_TO_BYTE
from litgpt_core.tokenizers.directory import Description
from litgpt_core.tokenizers.file_names import JSON_FILE
from litgpt_core.tokenizers.stored import StoredTokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

EOS_ID = 0


class ByteTokenizer(StoredTokenizer):
    """Final. Text with a NUL character is refused, because id 0 means end of document.

    LitGPT has no such rule: it encodes NUL to 0 and decodes 0 to NUL. Every other text gets the same ids.
    """

    file_name, tokenizer_class = JSON_FILE, "PreTrainedTokenizerFast"

    def __init__(self) -> None:
        table = [bytes([value]) for value in range(256)]
        table[EOS_ID] = b""
        super().__init__(
            _definition(), kind="byte", table=table, vocab_size=256, eos=(BYTE_TO_CHARACTER[EOS_ID], EOS_ID)
        )

    @classmethod
    def from_description(cls, description: Description) -> ByteTokenizer:
        """Check that the file really maps byte values to themselves."""
        try:
            vocabulary = parse_json(description.definition)["model"]["vocab"]
        except (ValueError, KeyError, TypeError) as error:
            raise description.broken(error) from None
        if vocabulary != CHARACTER_TO_BYTE:
            raise description.broken("tokenizer_config.json has kind byte, but the ids are not the 256 byte values.")
        return cls()

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of `text`; TokenizerError with the offset for NUL."""
        data = to_utf8(text)
        offset = data.find(0)
        if offset >= 0:
            raise TokenizerError(
                f"The text contains a NUL byte at byte offset {offset}, the byte tokenizer's end of document.",
                needed="text without NUL characters",
                fix="remove it from the text, or choose another tokenizer, e.g. tokenizer=bpe",
            )
        return list(data)

    def encode_plain_arrays(
        self, texts: Sequence[str], *, threads: int = 0
    ) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        """See the base class; the bytes themselves."""
        import numpy as np

        for text in texts:
            data = to_utf8(text)
            yield np.frombuffer(data if 0 not in data else bytes(self.encode(text)), dtype=np.uint8)

    def encode_batch(self, texts: Sequence[str], *, threads: int = 0) -> list[list[int]]:
        """One after the other: copying bytes gains nothing from threads."""
        return [self.encode(text) for text in texts]


def _definition() -> bytes:
    byte_level: dict[str, object] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    content: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": CHARACTER_TO_BYTE,
            "merges": [],
        },
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
