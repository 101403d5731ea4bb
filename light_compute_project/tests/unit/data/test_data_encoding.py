"""Which encoding a file has: UTF-8 unless the bytes say otherwise; damage is named, and no fallback always succeeds."""

from __future__ import annotations

import pytest

from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.encoding import Decoded, decode_text
from litgpt_core.data.setting_checks import encoding_problem
from litgpt_core.data.settings import TextSettings

DEFAULT = ["utf-8", "utf-16", "cp1252", "latin-1"]
ENGLISH = "The quick brown fox jumps over the lazy dog. " * 60
FRENCH = "Le café était fermé à cause de l’été ; « déjà » vu, garçon. Prix : 20 €.\n" * 20
GERMAN = "Die Straße führt über Köln nach Düsseldorf. „Schön“, sagte er – und ging.\n" * 5
RUSSIAN = "Привет, мир! Как дела? Это текст на русском языке, для проверки.\n" * 5
CHINESE = "这是中文文本，用来测试编码。你好，世界。\n" * 5
JAPANESE = "これは日本語のテキストです。漢字もあります。\n" * 5


def decode(raw: bytes, *, errors: str = "strict", encodings: list[str] = DEFAULT) -> Decoded:
    return decode_text(raw, encodings=encodings, name="some.txt", errors=errors)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, CHINESE, JAPANESE, ENGLISH, "😀 emoji\n"])
@pytest.mark.parametrize("at", [1, 7, 50, -1])
@pytest.mark.parametrize("damage", [b"\xff", b"\x80", b"\xc3\x28", b"\xf5"])
def test_one_damaged_place_in_utf8_is_named_and_never_another_encoding(text: str, at: int, damage: bytes) -> None:
    before, after = text[:at].encode(), text[at:].encode()
    raw = before + damage + after
    with pytest.raises(DataError, match=r"some\.txt cannot be decoded as utf-8: it is damaged") as caught:
        decode(raw)
    with pytest.raises(UnicodeDecodeError) as truth:
        raw.decode("utf-8")
    assert f"byte offset {truth.value.start:,} of" in str(caught.value) and "decode_errors=replace" in str(caught.value)
    replaced = decode(raw, errors="replace")
    assert replaced.encoding == "utf-8" and 1 <= replaced.replaced <= 2
    assert replaced.text.replace("\ufffd", "").replace("(", "") == text.replace("(", "")


@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, ENGLISH + "é", ENGLISH + "😀"])
def test_a_file_cut_inside_a_character_is_damaged_utf8(text: str) -> None:
    raw = text.rstrip().rstrip(".").encode() + "é".encode()[:1]
    with pytest.raises(DataError, match="cut off inside a character"):
        decode(raw)
    assert decode(raw, errors="replace").text.endswith("\ufffd")


@pytest.mark.parametrize("bad", [b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"])
def test_sequences_that_utf8_forbids_are_damage(bad: bytes) -> None:
    with pytest.raises(DataError, match="it is damaged"):
        decode(ENGLISH.encode() + bad + ENGLISH.encode())


@pytest.mark.parametrize("text", [FRENCH, GERMAN, "naïve “quoted”\n", "caf\u00e9 ", "20 €\n30 €\n", "été à la café\n"])
def test_western_european_text_is_read_and_the_doubt_is_said(text: str) -> None:
    found = decode(text.encode("cp1252"))
    assert (found.text, found.encoding) == (text, "cp1252") and "not UTF-8" in found.doubt


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (CHINESE, "gb18030"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        ("Καλημέρα κόσμε, αυτό είναι κείμενο\n" * 5, "iso8859-7"),
        (ENGLISH + RUSSIAN, "cp1251"),
        (ENGLISH + CHINESE, "gb18030"),
        ("Le café est à Zürich. März\n" * 5, "cp437"),
        (FRENCH.replace("€", "E"), "mac_roman"),
    ],
)
def test_other_encodings_are_not_read_as_western_european(text: str, encoding: str) -> None:
    raw = text.encode(encoding)
    for errors in ("strict", "replace"):
        with pytest.raises(DataError, match=r"cannot be decoded as utf-8, cp1252, iso8859-1.*unreadable"):
            decode(raw, errors=errors)
    for named in ([encoding], ["utf-8", encoding]):
        assert decode(raw, encodings=named).text == text


def test_the_hint_names_the_encoding_of_longer_texts() -> None:
    for text, encoding in ((RUSSIAN, "cp1251"), (CHINESE, "gb18030"), (JAPANESE, "cp932")):
        with pytest.raises(DataError, match=rf"data\.encodings=\[utf-8,{encoding}\]"):
            decode(text.encode(encoding))


def test_utf8_is_tried_first_whatever_the_order_and_one_encoding_is_taken_as_given() -> None:
    raw = FRENCH.encode()
    assert decode(raw, encodings=["latin-1", "utf-8"]).text == FRENCH
    only = decode(raw, encodings=["latin-1"])
    assert only.text == raw.decode("latin-1") and only.doubt == "it is well-formed UTF-8"
    assert decode(ENGLISH.encode(), encodings=["latin-1"]).doubt == ""


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, CHINESE * 10])
def test_utf16_without_a_mark_is_recognised_in_the_hint_and_read_by_name(text: str, encoding: str) -> None:
    raw = text.encode(encoding)
    with pytest.raises(DataError, match=rf"data\.encodings=\[utf-8,{encoding}\]"):
        decode(raw)
    assert decode(raw, encodings=["utf-8", encoding]).text == text
    both = ["utf-8", "utf-16-le", "utf-16-be"]
    assert decode(raw, encodings=both).text == text, "the zero bytes decide, not the order"
    assert decode(FRENCH.encode("cp1252"), encodings=[*both, "cp1252"]).text == FRENCH, "no zero bytes: not UTF-16"


@pytest.mark.parametrize("raw", ["ab".encode("utf-16")[:-1], b"\xff\xfea\0\0\xd8b\0", "ab".encode("utf-32")[:-2]])
def test_damaged_wide_text_is_named(raw: bytes) -> None:
    with pytest.raises(DataError, match="it is damaged"):
        decode(raw, encodings=["utf-8", "utf-16", "utf-32"])
    assert "\ufffd" in decode(raw, encodings=["utf-8", "utf-16", "utf-32"], errors="replace").text


def test_zero_bytes_in_text_are_damage_and_in_other_files_no_text() -> None:
    raw = ENGLISH.encode() + b"\0" + ENGLISH.encode()
    with pytest.raises(DataError, match=r"zero bytes \(the first at 2,700\)(.|\n)*decode_errors=replace"):
        decode(raw)
    assert decode(raw, errors="replace").text == ENGLISH + "\ufffd" + ENGLISH
    for binary in (bytes(range(256)) * 20, b"\x00\x01\x02" * 1000, bytes(range(1, 32)) * 50 + b"\xff" * 50):
        for errors in ("strict", "replace"):
            with pytest.raises(DataError, match=r"is not text(.|\n)*data\.glob="):
                decode(binary, errors=errors)


@pytest.mark.parametrize(
    ("start", "what"), [(b"PK\x03\x04", "ZIP"), (b"%PDF-1.7\n", "PDF"), (b"PAR1", "Parquet"), (b"\x89PNG\r\n", "PNG")]
)
def test_well_known_formats_are_named(start: bytes, what: str) -> None:
    with pytest.raises(DataError, match=rf"is not text: it is an? .*{what}"):
        decode(start + b"some readable rest")


@pytest.mark.parametrize(
    "name",
    [
        *("punycode", "undefined", "utf-7", "UTF7", "unicode_escape", "raw_unicode_escape", "idna", "charmap"),
        *("rot13", "hex", "base64", "zip", "klingon"),
        "",
        "x\0y",
        "..",
        "ä",
        8,
        None,
        ["utf-8"],
    ],
)
def test_what_is_no_text_encoding_is_refused_with_the_config(name: object) -> None:
    assert encoding_problem(name)
    with pytest.raises(ConfigError, match="encodings: "):
        TextSettings(path="x", encodings=["utf-8", name])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "latin1", "cp1251", "gb18030", "shift_jis", "utf-16-le", "cp037"])
def test_text_encodings_are_accepted(name: str) -> None:
    assert encoding_problem(name) == ""
    assert TextSettings(path="x", encodings=[name]).encodings == [name]
