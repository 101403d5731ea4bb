"""The char tokenizer: one id per Unicode character of the training documents, in code point order, then the
end-of-document id.

On disk it is a WordLevel `tokenizer.json` whose pre-tokenizer splits between all characters; encoding here is one numpy
lookup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np

from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.parsing import parse_json
from litgpt_core.tokenizers.base import to_utf8
from litgpt_core.tokenizers.directory import Description
from litgpt_core.tokenizers.file_names import JSON_FILE
from litgpt_core.tokenizers.stored import StoredTokenizer

EOS_TOKEN = "<|endoftext|>"


class CharTokenizer(StoredTokenizer):
    """Final. Ids 0..n-1 are the n characters by code point, id n is end of document, so `vocab_size` is n + 1."""

    file_name, tokenizer_class = JSON_FILE, "PreTrainedTokenizerFast"

    def __init__(self, characters: str, *, definition: bytes | None = None) -> None:
        table = [to_utf8(character) for character in characters] + [b""]
        super().__init__(
            definition if definition is not None else _definition(characters),
            kind="char",
            table=table,
            vocab_size=len(table),
            eos=(EOS_TOKEN, len(characters)),
        )
        code_points = np.array([ord(character) for character in characters], dtype=np.int64)
        self._id_of = np.full(
            int(code_points.max(initial=0)) + 2, -1, dtype=np.int32
        )  # the last entry serves all greater code points
        self._id_of[code_points] = np.arange(len(characters), dtype=np.int32)

    @classmethod
    def from_description(cls, description: Description) -> CharTokenizer:
        """Rebuild the lookup from the file; TokenizerError when its ids are not ours."""
        try:
            vocabulary: dict[str, int] = parse_json(description.definition)["model"]["vocab"]
            names = sorted(vocabulary, key=lambda name: vocabulary[name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise description.broken(error) from None
        in_order = [vocabulary[name] for name in names] == list(range(len(names)))
        if not in_order or names[-1:] != [EOS_TOKEN] or any(len(name) != 1 for name in names[:-1]):
            raise description.broken(
                "tokenizer_config.json has kind char, but the ids are not single characters and a final end token."
            )
        return cls("".join(names[:-1]), definition=description.definition)

    def encode(self, text: str) -> list[int]:
        """One id per character; TokenizerError names the first character outside the vocabulary."""
        code_points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
        ids = self._id_of[np.minimum(code_points, len(self._id_of) - 1)]
        if ids.size and ids.min() < 0:
            at = int(np.argmin(ids))
            raise TokenizerError(
                f"The character {text[at]!r} (U+{ord(text[at]):04X}) at position {at} is not in the char vocabulary.",
                needed=f"only the {self.vocab_size - 1} characters of the training text",
                fix="train on text that has it, or tokenizer=byte",
            )
        plain: list[int] = ids.tolist()
        return plain

    def encode_batch(self, texts: Sequence[str], *, threads: int = 0) -> list[list[int]]:
        """One after the other: the lookup is bound by memory, not by threads."""
        return [self.encode(text) for text in texts]


def train_characters(documents: Iterable[str]) -> CharTokenizer:
    """Collect every character of `documents` (read once, all of it: a rare character must not be missed)."""
    seen: set[str] = set()
    for document in documents:
        seen.update(document)
    if not seen:
        raise TokenizerError("The training documents hold no text.", needed="at least one character")
    characters = "".join(sorted(seen))
    to_utf8(characters)
    return CharTokenizer(characters)


def _definition(characters: str) -> bytes:
    vocabulary = {character: index for index, character in enumerate(characters)} | {EOS_TOKEN: len(characters)}
    end = {
        "id": len(characters),
        "content": EOS_TOKEN,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
