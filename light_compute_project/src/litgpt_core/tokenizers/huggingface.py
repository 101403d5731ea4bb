"""A `tokenizer.json` run by the Hugging Face `tokenizers` library: our bpe, wordpiece and unigram, and foreign
LitGPT directories.

Training is in `huggingface_training.py`; char and byte files are also `tokenizer.json`, but encode faster without the
library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as Processor

from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.parsing import parse_json
from litgpt_core.tokenizers.base import to_utf8
from litgpt_core.tokenizers.byte_alphabet import characters_to_bytes
from litgpt_core.tokenizers.directory import FOREIGN, MAX_DEFINITION_BYTES, Description
from litgpt_core.tokenizers.fast import FastEncoder
from litgpt_core.tokenizers.file_names import CONFIG_FILE, GENERATION_FILE, JSON_FILE
from litgpt_core.tokenizers.hostile import MAX_GAP, panics_as_errors, refuse_growth
from litgpt_core.tokenizers.stored import StoredTokenizer

EOS_TOKEN = "<|endoftext|>"

_PART = 1 << 14  # characters; the library is slower on texts of megabytes, and only separate texts run in parallel
_LINE_START = re.compile(r"(?<=\S\n)(?=[A-Za-z])")


class HuggingFaceTokenizer(StoredTokenizer):
    """Final. Ours never parse the end token in text; foreign ones do, as LitGPT does."""

    file_name, tokenizer_class = JSON_FILE, "PreTrainedTokenizerFast"

    def __init__(
        self,
        definition: bytes,
        *,
        kind: str,
        eos: tuple[str, int] | None = None,
        bos: tuple[str, int] | None = None,
        foreign: Description | None = None,
    ) -> None:
        """Raises whatever the library raises for a definition it cannot read.

        `from_description` turns that into a TokenizerError.
        """
        content = parse_json(definition, max_bytes=MAX_DEFINITION_BYTES, max_values=MAX_DEFINITION_BYTES)
        refuse_growth(content)
        with panics_as_errors():
            self._processor = Processor.from_buffer(definition)
        self._processor.encode_special_tokens = foreign is None
        self._processor.no_truncation()
        self._processor.no_padding()
        added: dict[int, str] = {}
        specials: set[int] = set()
        for token_id, token in self._processor.get_added_tokens_decoder().items():
            added[token_id] = token.content
            if token.special:
                specials.add(token_id)
        parsed = (added[token_id] for token_id in specials) if foreign is not None else ()
        self._special_names = frozenset(name for name in parsed if name)
        self._plain: Processor | None = None
        self._added_names = frozenset(name for name in added.values() if name)
        self._fast: FastEncoder | None = None
        vocabulary = self._processor.get_vocab(with_added_tokens=True)
        vocab_size = max(vocabulary.values(), default=-1) + 1
        if vocab_size > 2 * len(vocabulary) + MAX_GAP:
            raise ValueError(f"its {len(vocabulary):,} tokens have ids up to {vocab_size - 1:,}")
        super().__init__(
            definition,
            kind=kind,
            table=_byte_table(content.get("decoder"), vocabulary, added, specials),
            vocab_size=vocab_size,
            eos=eos if eos is not None else (EOS_TOKEN, vocabulary[EOS_TOKEN]),
            bos=bos,
            specials=specials,
            foreign=foreign,
        )

    @classmethod
    def from_description(cls, description: Description) -> HuggingFaceTokenizer:
        """Read a directory; TokenizerError when the file is damaged or names no usable end token."""
        try:
            if description.kind != FOREIGN:
                return cls(description.definition, kind=description.kind)
            with panics_as_errors():
                vocabulary = Processor.from_buffer(description.definition).get_vocab(with_added_tokens=True)
        except Exception as error:  # the library raises bare Exception for every kind of damage
            raise description.broken(error) from None
        eos = _special(description, vocabulary, name="eos")
        if eos is None:
            raise TokenizerError(
                f"{description.path.parent} does not name the token that ends a text.",
                needed='"eos_token" in tokenizer_config.json or "eos_token_id" in generation_config.json',
                fix="copy those files from the model's own folder",
            )
        bos = _special(description, vocabulary, name="bos")
        try:
            return cls(description.definition, kind=FOREIGN, eos=eos, bos=bos, foreign=description)
        except TokenizerError:
            raise
        except Exception as error:
            raise description.broken(error) from None

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; TokenizerError for a lone surrogate."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], *, threads: int = 0) -> list[list[int]]:
        """All texts at once.

        The library's pool has one size per process (environment variable RAYON_NUM_THREADS), so `threads` is not used.
        """
        parts_of = [self.parts(text) for text in texts]
        parts = [part for parts in parts_of for part in parts]
        with panics_as_errors(bare=True):
            encoded = iter(self._processor.encode_batch_fast(parts, add_special_tokens=False))
        return [[token_id for _ in parts for token_id in next(encoded).ids] for parts in parts_of]

    def encode_plain_batch(self, texts: Sequence[str], *, threads: int = 0) -> list[list[int]]:
        """See the base class: by a second processor that does not parse special tokens, made on first use."""
        if not any(name in text for text in texts for name in self._special_names):
            return self.encode_batch(texts)
        if self._plain is None:
            plain = Processor.from_buffer(self._definition)
            plain.no_truncation()
            plain.no_padding()
            plain.encode_special_tokens = True
            self._plain = plain
        for text in texts:
            to_utf8(text)
        with panics_as_errors(bare=True):
            return [encoding.ids for encoding in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def use_fast(self, sample: Sequence[str]) -> bool:
        """See the base class."""
        self._fast = FastEncoder.load(self._definition, self.encode_plain_batch, names=self._added_names, sample=sample)
        return self._fast is not None

    def encode_plain_arrays(
        self, texts: Sequence[str], *, threads: int = 0
    ) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        """See the base class; by gigatoken after `use_fast`."""
        if self._fast is None:
            return super().encode_plain_arrays(texts, threads=threads)
        for text in texts:
            to_utf8(text)
        return self._fast.arrays(texts)

    def special_names(self) -> frozenset[str]:
        """See the base class."""
        return self._special_names

    def parts(self, text: str) -> list[str]:
        """Long text cut at line starts where a pre-tokenizer word always ends, so that no id changes; only for ours."""
        to_utf8(text)
        parts: list[str] = []
        start = 0
        while self._foreign is None and len(text) - start > 2 * _PART:
            cut = _LINE_START.search(text, start + _PART)
            if cut is None:
                break
            parts.append(text[start : cut.start()])
            start = cut.start()
        return [*parts, text[start:]]

    def _decode_sequence(self, ids: list[int]) -> str:
        with panics_as_errors(bare=True):
            text: str = self._processor.decode(ids, skip_special_tokens=True)
        return text


def _special(description: Description, vocabulary: Mapping[str, int], *, name: str) -> tuple[str, int] | None:
    """The (token, id) that a foreign directory gives for `name`, the token before the id, as LitGPT reads it."""
    token, token_id = (
        (description.eos_token, description.eos_id) if name == "eos" else (description.bos_token, description.bos_id)
    )
    if token is not None:
        if token not in vocabulary:
            raise TokenizerError(
                f"{description.path.parent / CONFIG_FILE}: {name}_token {token!r} is not in {description.path.name}.",
                needed="a token of the vocabulary",
                fix=f'correct "{name}_token" in tokenizer_config.json',
            )
        return token, vocabulary[token]
    if token_id is None:
        return None
    name_of = {token_id: token for token, token_id in vocabulary.items()}
    if token_id not in name_of:
        raise TokenizerError(
            f"{description.path.parent / GENERATION_FILE} gives {name}_token_id {token_id}; the vocabulary lacks it.",
            needed=f"an id below {len(vocabulary)}",
            fix=f'correct "{name}_token_id"',
        )
    return name_of[token_id], token_id


def _byte_table(
    decoder: object, vocabulary: Mapping[str, int], added: Mapping[int, str], specials: set[int]
) -> list[bytes] | None:
    """Bytes per id, or None when the decoder does something that depends on a token's neighbours."""
    steps = _steps(decoder)
    if steps is None:
        return None
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, token_id in vocabulary.items():
        if token_id not in specials:
            table[token_id] = to_utf8(added[token_id]) if token_id in added else _token_bytes(token, steps)
    return table


def _steps(decoder: object) -> list[dict[str, object]] | None:
    """The decoder as a list of per-token steps; None for any step that is not one."""
    if not isinstance(decoder, dict):
        return None
    steps = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    if not isinstance(steps, list):
        return None
    for index, step in enumerate(steps):
        kind = step.get("type")
        literal = (
            kind == "Replace"
            and "String" in step.get("pattern", {})
            and all(other["type"] != "Fuse" for other in steps[:index])
        )
        if not (literal or kind in ("ByteLevel", "ByteFallback", "Fuse")):
            return None
    return steps if any(step["type"] in ("ByteLevel", "Fuse") for step in steps) else None


def _token_bytes(token: str, steps: list[dict[str, object]]) -> bytes:
    text = token
    for step in steps:
        match step:
            case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
                text = text.replace(old, new)
            case {"type": "ByteFallback"} if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
                return bytes.fromhex(text[3:5])
            case {"type": "ByteLevel"}:
                data = characters_to_bytes(text)
                return to_utf8(text) if data is None else data
    return to_utf8(text)
