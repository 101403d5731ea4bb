"""Text to ids and back without a tokenizer library: our char, byte, bpe and sentencepiece tokenizers, from their files.

    tokenizer.json     char: one id a character; byte: one a byte; bpe: bytes, merged pair by pair within words
    tokenizer.model    sentencepiece: characters, merged pair by pair; what is no piece becomes bytes

Both kinds of merging always join the best pair of neighbours first (Sennrich et al. 2016). The other kinds, wordpiece
and unigram, and directories made elsewhere are refused: `--engine pure` reads those with their library.
"""

from __future__ import annotations

import heapq
import re
import struct
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.parsing import read_json

SPACE_MARK = "\u2581"
"""What sentencepiece writes for a space."""
BEGIN_ID = 1
"""Begin of sequence in the sentencepiece tokenizers that this project trains."""
_L, _P = "[A-Za-z]", "[!_']"  # a letter; what is neither letter, number nor space
_END = r"[ \t\n\v]+(?![!_'A-Za-z0])|[ \t\n\v]+"
_LATER = rf"'(?:[sdmtSDMT]|[rR][eE]|[vV][eE]|[lL][lL])|[ \t\v!_']?{_L}+|0%s| ?{_P}+\n*|[ \t\n\v]*\n+|{_END}"
WORDS = {
    "light": re.compile(
        rf"[ \t\v!_']?[A-Za-z_]{{1,64}}|0| ?{_P}{{1,64}}(?:\n+[ \t]{{0,64}})?|\n+[ \t]{{0,64}}"
        r"|[ \t\n\v]{1,64}(?![!_'A-Za-z0])|[ \t\n\v]{1,64}"
    ),
    "gpt2": re.compile(rf"'(?:[sdmt]|re|ve|ll)| ?{_L}+| ?0+| ?{_P}+|{_END}"),
    "llama3": re.compile(_LATER % "{1,3}"),
    "qwen2": re.compile(_LATER % ""),
}
"""The words of `litgpt_core.tokenizers.words`, over one character for each class: a letter (its own where a contraction
may have it, else a), 0 number, ! other, \\v space; `_`, `'`, space, tab and line end are themselves."""


class Vocabulary:
    """Ids of one tokenizer.

    Attributes:
        table: The bytes of each id; none for the ids that stand for no text.
        eos_id: End of document, or of a name.
        start: What every prompt begins with: begin of sequence, for a model that was trained so.
    """

    def __init__(self, table: Sequence[bytes], eos_id: int, encode: Callable[[str], list[int]]) -> None:
        self.table, self.eos_id, self.encode = table, eos_id, encode
        self.start: list[int] = []

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that make no character become U+FFFD."""
        return b"".join([self.table[token] for token in ids]).decode("utf-8", errors="replace")


def read_vocabulary(directory: Path) -> Vocabulary:
    """The tokenizer of a checkpoint directory. Raises TokenizerError for a kind that needs its library, or damage."""
    try:
        settings = read_json(directory / "tokenizer_config.json")
        kind = settings.get("kind", "foreign")
        if kind == "sentencepiece":
            vocabulary = sentencepiece((directory / "tokenizer.model").read_bytes())
            vocabulary.start = [BEGIN_ID] if settings.get("add_bos_token") else []
            return vocabulary
        if kind in ("char", "byte", "bpe"):
            content = read_json(directory / "tokenizer.json")
            model, eos = content["model"], settings["eos_token"]
            if kind == "char":
                return characters(model["vocab"], eos)
            return byte_pairs(model, eos, words=words_of(content["pre_tokenizer"]) if kind == "bpe" else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as problem:
        raise TokenizerError(f"The tokenizer of {directory} cannot be read: {problem!r}") from problem
    raise TokenizerError(
        f"The tokenizer of {directory} is of kind {kind}.",
        needed="char, byte, bpe or sentencepiece, trained by this project",
        fix="lcp generate RUN --engine pure, which uses the tokenizer's library",
    )


# --- char


def characters(ids: dict[str, int], eos: str) -> Vocabulary:
    """One id for each character."""

    def encode(text: str) -> list[int]:
        strange = next((character for character in text if character not in ids), None)
        if strange is not None:
            raise TokenizerError(
                f"The character {strange!r} is not in the vocabulary.", needed="characters of its text"
            )
        return [ids[character] for character in text]

    in_order = sorted(ids, key=lambda name: ids[name])
    return Vocabulary([b"" if name == eos else name.encode() for name in in_order], ids[eos], encode)


# --- byte and bpe


def byte_pairs(model: dict[str, object], eos: str, *, words: str | None) -> Vocabulary:
    """Bytes, each written as one visible character, merged in the order of `merges` within each word, if any."""
    ids, merges = model["vocab"], model["merges"]
    assert isinstance(ids, dict) and isinstance(merges, list)
    ranks = {tuple(pair.split(" ") if isinstance(pair, str) else pair): rank for rank, pair in enumerate(merges)}
    stand_ins, whole = _stand_ins(), bool(model.get("ignore_merges"))

    @lru_cache(maxsize=1 << 16)
    def ids_of(word: str) -> list[int]:
        symbols = [stand_ins[byte] for byte in word.encode("utf-8")]
        if whole and (joined := "".join(symbols)) in ids:
            return [ids[joined]]
        merged = merge(symbols, lambda a, b: ranks.get((a, b)))
        return [ids[symbol] for symbol in merged]

    def encode(text: str) -> list[int]:
        if not words and "\0" in text:
            raise TokenizerError("The text holds a NUL character, which ends a document.", needed="text without NUL")
        return [token for word in (split_words(text, words) if words else [text]) for token in ids_of(word)]

    bytes_of = {character: byte for byte, character in enumerate(stand_ins)}
    in_order = sorted(ids, key=lambda name: ids[name])
    table = [b"" if name == eos else bytes(bytes_of[character] for character in name) for name in in_order]
    return Vocabulary(table, ids[eos], encode)


def words_of(cut: dict[str, Any]) -> str:
    """The key of `WORDS` for a `pre_tokenizer`. KeyError for one that this project does not write."""
    if cut["type"] == "ByteLevel":
        return "gpt2"
    pattern = cut["pretokenizers"][0]["pattern"]["Regex"]
    marks = {r"[\p{L}_]": "light", r"\p{N}{1,3}": "llama3", r"\p{L}+|\p{N}|": "qwen2"}
    return marks[next((mark for mark in marks if mark in pattern), pattern)]


def split_words(text: str, words: str = "light") -> Iterator[str]:
    """The words of a text, by a key of `WORDS`."""
    classes = "".join(map(_class_of, text))
    return (text[found.start() : found.end()] for found in WORDS[words].finditer(classes))


@cache
def _class_of(character: str) -> str:
    if character in " \t_'sStTrReEvVmMlLdD":
        return character
    if character in "\r\n":
        return "\n"
    category = unicodedata.category(character)
    if category[0] == "Z" or character in "\v\f\x85":
        return "\v"
    return {"L": "a", "N": "0"}.get(category[0], "!")


def _stand_ins() -> list[str]:
    """A visible character for each byte: itself where it is one in Latin-1, else the next from U+0100 on (GPT-2)."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


# --- sentencepiece


def sentencepiece(model: bytes) -> Vocabulary:
    """Pieces with scores, from the protobuf of `tokenizer.model`: the pair with the highest score is merged first."""
    pieces = list(_pieces(model))
    ids = {piece: number for number, (piece, _, kind) in enumerate(pieces) if kind in (NORMAL, USER_DEFINED)}
    scores = {piece: score for piece, score, _ in pieces}
    byte_ids = {int(piece[3:5], 16): number for number, (piece, _, kind) in enumerate(pieces) if kind == BYTE}

    def rank(a: str, b: str) -> float | None:
        return -scores[a + b] if a + b in ids else None

    def encode(text: str) -> list[int]:
        result = []
        for part in re.split(f"({SPACE_MARK})", text):
            symbols = [part] if part == SPACE_MARK else merge(list(part.replace(" ", SPACE_MARK)), rank)
            for symbol in symbols:
                if part != SPACE_MARK and symbol in ids:
                    result.append(ids[symbol])
                else:
                    result += [byte_ids[byte] for byte in symbol.encode("utf-8")]
        return result

    table = [
        b"" if kind in (UNKNOWN, CONTROL)
        else bytes([int(piece[3:5], 16)]) if kind == BYTE
        else piece.replace(SPACE_MARK, " ").encode()
        for piece, _, kind in pieces
    ]  # fmt: skip
    return Vocabulary(table, next(number for number, (piece, _, _) in enumerate(pieces) if piece == "</s>"), encode)


NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
"""Types of pieces in sentencepiece_model.proto."""


def _pieces(model: bytes) -> Iterator[tuple[str, float, int]]:
    """Text, score and type of each piece: fields 1, 2 and 3 of every field 1."""
    for number, value in _fields(model):
        if number == 1 and isinstance(value, bytes):
            inner = dict(_fields(value))
            text, score = inner.get(1, b""), inner.get(2, bytes(4))
            assert isinstance(text, bytes) and isinstance(score, bytes)
            yield text.decode(), struct.unpack("<f", score)[0], int(inner.get(3, NORMAL))


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and content of each field of a protobuf message; see protobuf.dev, Encoding."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(tag & 7)
        if size is None:
            size, at = _varint(message, at)
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


# --- merging


def merge(symbols: list[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """Join the pair of neighbours of the lowest rank, the first of equal ones, again and again; None: never.

    A heap has the candidates; a doubly linked list the neighbours. A candidate whose parts have changed is skipped.
    """
    after = [*range(1, len(symbols)), -1] if symbols else []
    before = list(range(-1, len(symbols) - 1))
    heap: list[tuple[float, int, str]] = []

    def propose(left: int) -> None:
        if left >= 0 and after[left] >= 0:
            place = rank(symbols[left], symbols[after[left]])
            if place is not None:
                heapq.heappush(heap, (place, left, symbols[left] + symbols[after[left]]))

    for left in range(len(symbols)):
        propose(left)
    while heap:
        _, left, joined = heapq.heappop(heap)
        right = after[left]
        if not symbols[left] or right < 0 or symbols[left] + symbols[right] != joined:
            continue
        symbols[left], symbols[right] = joined, ""
        after[left] = after[right]
        if after[right] >= 0:
            before[after[right]] = left
        propose(before[left])
        propose(left)
    return [symbol for symbol in symbols if symbol]
