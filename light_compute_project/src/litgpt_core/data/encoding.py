"""Bytes of a text file to text: which encoding, and whether the file is damaged. No files.

    a byte-order mark            decides between UTF-16 and UTF-32; UTF-8's is removed
    well-formed UTF-8            is UTF-8
    mostly well-formed UTF-8     is damaged UTF-8: refused with the offset, or replaced and counted on request
    Western European bytes       cp1252 or latin-1, if `data.encodings` lists them and the result reads like such text
    anything else                refused, with the encoding that it probably has

Single-byte encodings decode any bytes, so decoding without an error is no evidence for them: `_is_western` is.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from litgpt_core.core.errors import DataError
from litgpt_core.data.setting_checks import DecodeErrors

_WIDE_MARKS = (  # longest first: the UTF-16 mark is the beginning of the UTF-32 one
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT = (
    (b"PK\x03\x04", "a ZIP archive (.docx, .odt and .epub are such archives)"),
    (b"%PDF-", "a PDF"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd (unpack it: zstd -d FILE)"),
)
_SEQUENCE = re.compile(rb"[\xc0-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf7][\x80-\xbf]{3}")
"""The shape of UTF-8's sequences of two to four bytes, which other encodings rarely have."""
_HIGH = re.compile(rb"[\x80-\xff]")
_WESTERN = frozenset(("cp1252", "iso8859-1", "iso8859-15"))
_LETTERS = "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßœŒšŠžŽðÐþÞ"
_SIGNS = "€…†‡‰‹›‘’“”•–—™§°«»¡£©®·±²³µ¶½¼¾ªº\u00a0´¨¹"
_ANY = f"A-Za-z{_LETTERS}"
_HIGH_CHARACTER = re.compile(r"[^\x00-\x7f]")
_FITTING = re.compile(f"[{_LETTERS}’–—]|(?<![{_ANY}])[{_SIGNS}‚„¿]|[{_SIGNS}](?![{_ANY}])")
_RUN = re.compile(f"[{_LETTERS}]{{3,}}")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
_CONTROLS = bytes(value for value in range(32) if value not in b"\t\n\r\f\x1b")
_LETTERS_AND_DIGITS = bytes(value for value in range(128) if chr(value).isalnum())


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The text of one file."""

    text: str
    """Without a byte-order mark; newlines as in the file."""
    encoding: str
    """Python's name of the encoding."""
    doubt: str = ""
    """Why the encoding may be wrong; empty where the bytes leave no doubt."""
    replaced: int = 0
    """Characters U+FFFD that stand for damaged bytes."""


def decode_text(raw: bytes, *, encodings: list[str], name: str, errors: DecodeErrors = "strict") -> Decoded:
    """The text of a file's bytes.

    Args:
        raw: All bytes of the file.
        encodings: Tried in this order; a single one is used without looking at the bytes.
        name: The file, for messages.
        errors: `replace`: damaged bytes become U+FFFD and are counted.

    Raises:
        DataError: The file is not text, is damaged, or has none of these encodings. Names the first bad byte.
    """
    _refuse_other_formats(raw, name)
    names = sorted((codecs.lookup(given).name for given in encodings), key=lambda each: each != "utf-8")
    mark = next((found for start, found in _WIDE_MARKS if raw.startswith(start)), "")
    if mark:
        return _marked(raw, names, mark=mark, name=name, errors=errors)
    if b"\0" in raw:
        names = _with_zero_bytes(raw, names, name=name, errors=errors)
    sole = len(names) == 1
    tried, shape, problem = list[str](), _Shape(), None
    for each in names:
        if each in ("utf-16", "utf-32") or (each.startswith(("utf-16", "utf-32")) and not sole):
            continue  # without a mark and without zero bytes these decode any text, wrongly
        tried.append(each)
        try:
            text = raw.decode(each)
        except UnicodeDecodeError as error:
            if each == "utf-8" or sole:
                shape, problem = _Shape.of(raw, error), error
            if sole or shape.is_utf8:
                return _damaged(raw, each, error, name=name, errors=errors)
            continue
        if sole or each not in _WESTERN or (shape.is_other and _is_western(text, raw)):
            return _result(text, each, doubt=_doubt(raw, each, sole=sole))
    if problem is not None and shape.others <= max(3, len(raw) // 1000):
        return _damaged(raw, "utf-8", problem, name=name, errors=errors)
    raise _unknown_encoding(raw, tried, encodings, name=name)


def _result(text: str, encoding: str, *, doubt: str = "", replaced: int = 0) -> Decoded:
    zeros = text.count("\0")  # only where they were to be replaced
    text = text.replace("\0", "\ufffd") if zeros else text
    return Decoded(text=text.removeprefix("\ufeff"), encoding=encoding, doubt=doubt, replaced=replaced + zeros)


# ---- what the bytes look like


def _doubt(raw: bytes, encoding: str, *, sole: bool) -> str:
    if encoding.startswith(("utf-8", "ascii")) or raw.isascii():
        return ""
    if not sole:
        return "it is not UTF-8, and other encodings decode any bytes"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "it is well-formed UTF-8"


@dataclass(frozen=True)
class _Shape:
    """How much of a file that is not UTF-8 looks like it."""

    sequences: int = 0
    """Sequences of bytes that have the shape of a character of UTF-8."""
    others: int = 0
    """Bytes outside ASCII that belong to none."""
    is_utf8: bool = False
    """Whether the file is damaged UTF-8: mostly such sequences, or ASCII with a character that the end cuts off."""
    is_other: bool = True
    """Whether it can be in a single-byte encoding: many such bytes, and hardly any sequences."""

    @classmethod
    def of(cls, raw: bytes, problem: UnicodeDecodeError) -> _Shape:
        lengths = [match.end() - match.start() for match in _SEQUENCE.finditer(raw)]
        others = sum(1 for _ in _HIGH.finditer(raw)) - sum(lengths)
        cut = problem.reason == "unexpected end of data" and others == len(raw) - problem.start
        stray = others <= 3 and len(raw) > 200 * others
        return cls(
            len(lengths), others, cut or len(lengths) >= max(others, 1), not stray and 20 * len(lengths) <= others
        )


def _is_western(text: str, raw: bytes) -> bool:
    """Whether text decoded as cp1252 or latin-1 reads like a Western European language.

    Nine of ten characters outside ASCII are its letters, at most two in a row, or its signs at the edge of a word;
    ASCII letters and digits are more frequent; there are no control characters. Cyrillic, Greek or Chinese bytes fail.
    """
    high = sum(1 for _ in _HIGH_CHARACTER.finditer(text))
    fitting = sum(1 for _ in _FITTING.finditer(text)) - sum(len(run[0]) for run in _RUN.finditer(text))
    plain = len(raw) - len(raw.translate(None, _LETTERS_AND_DIGITS))
    return not high or (not _CONTROL.search(text) and fitting >= 0.9 * high and high <= max(plain, 1))


def _is_binary(raw: bytes) -> bool:
    """Whether more than two of a hundred bytes are control characters that text does not use."""
    sample = raw[: 1 << 16]
    return 50 * (len(sample) - len(sample.translate(None, _CONTROLS))) > len(sample)


def wide_without_mark(raw: bytes) -> str:
    """`utf-16-le` or `utf-16-be` where every second byte is often zero and the others are not; else empty."""
    sample = raw[: 1 << 16]
    even, odd, half = sample[::2].count(0), sample[1::2].count(0), max(len(sample) // 2, 1)
    if max(even, odd) < 0.02 * half:
        return ""
    return "utf-16-le" if odd > 5 * even else "utf-16-be" if even > 5 * odd else ""


# ---- results and refusals


def _marked(raw: bytes, names: list[str], *, mark: str, name: str, errors: DecodeErrors) -> Decoded:
    fitting = [each for each in names if each.startswith(mark)]
    if not fitting:
        raise DataError(
            f"{name} cannot be decoded as any of data.encodings; its byte-order mark is that of {mark}",
            needed=f"one of data.encodings={names} to fit",
            fix=f"data.encodings=[utf-8,{mark}]",
        )
    try:
        return _result(raw.decode(mark), mark)
    except UnicodeDecodeError as problem:
        return _damaged(raw, mark, problem, name=name, errors=errors)


def _damaged(raw: bytes, encoding: str, problem: UnicodeDecodeError, *, name: str, errors: DecodeErrors) -> Decoded:
    if errors == "replace":
        text = raw.decode(encoding, errors="replace")
        before = raw.count(b"\xef\xbf\xbd") if encoding == "utf-8" else 0
        return _result(text, encoding, replaced=max(text.count("\ufffd") - before, 1))
    cut = problem.reason in ("unexpected end of data", "truncated data")
    bad = raw[problem.start : problem.start + 4].hex(" ").upper()
    raise DataError(
        f"{name} cannot be decoded as {encoding}: it is damaged{' (cut off inside a character)' if cut else ''} at "
        f"byte offset {problem.start:,} of {len(raw):,}, which holds {bad}",
        needed="an intact file, or the name of another encoding that it has",
        fix="data.decode_errors=replace   (damaged bytes become U+FFFD and are counted)",
    )


def _refuse_other_formats(raw: bytes, name: str) -> None:
    for start, what in _NOT_TEXT:
        if raw.startswith(start):
            zeros = f", and holds zero bytes (the first at {raw.index(0):,})" if 0 in raw else ""
            raise DataError(
                f"{name} is not text: it is {what}{zeros}",
                needed="plain text files",
                fix="save it as plain text, or data.glob=PATTERN that leaves it out",
            )


def _with_zero_bytes(raw: bytes, names: list[str], *, name: str, errors: DecodeErrors) -> list[str]:
    """The encodings left to try for bytes with zeros and without a mark."""
    probable = wide_without_mark(raw)
    wide = [each for each in names if each.startswith(("utf-16-", "utf-32-"))]
    if probable in wide:
        return [probable]
    if len(names) == 1 and wide:
        return wide
    few = raw.count(0) * 100 <= len(raw) and not _is_binary(raw)
    if errors == "replace" and not probable and few:
        return names
    if probable:
        raise DataError(
            f"{name} looks like {probable} without a byte-order mark: many second bytes are zero",
            needed="UTF-8, or the encoding by name",
            fix=f"data.encodings=[utf-8,{probable}]",
        )
    raise DataError(
        f"{name} is not text: it holds zero bytes (the first at {raw.index(0):,})",
        needed="plain text files",
        fix="data.decode_errors=replace   (they become U+FFFD)" if few else "data.glob=PATTERN that leaves it out",
    )


def _unknown_encoding(raw: bytes, tried: list[str], encodings: list[str], *, name: str) -> DataError:
    first = next((at for at, value in enumerate(raw) if value > 0x7F), 0)
    given = f"{name} cannot be decoded as {', '.join(tried) or 'any of data.encodings'}"
    if _is_binary(raw):
        return DataError(
            f"{given}: it is not text (many control characters)",
            needed="plain text files",
            fix="data.glob=PATTERN that leaves it out",
        )
    return DataError(
        f"{given}: byte offset {first:,} holds {raw[first]:#04x}"
        + ("; as Western European text it is unreadable" if _WESTERN & set(tried) else ""),
        needed=f"the encoding that the file has; data.encodings={encodings}",
        fix=f"data.encodings=[{_probable(raw, tried)}]   (probably; look at the file)",
    )


def _probable(raw: bytes, tried: list[str]) -> str:
    """The encodings to type for a file whose lines outside ASCII probably have one of them."""
    sample = b"\n".join(line for line in raw[: 1 << 20].split(b"\n") if not line.isascii())[: 1 << 14]
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return "latin-1"
    best = from_bytes(sample).best()
    name = codecs.lookup(best.encoding).name if best else ""
    return f"utf-8,{name}" if name and name not in tried and name not in _WESTERN else "latin-1"
