"""The files of a folder: patterns as `Path.glob` has them, links once, compressed files, names that are no text."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litgpt_core.core.errors import DataError
from litgpt_core.core.files import write_json
from litgpt_core.data import files
from litgpt_core.data.files import document_name, matching_files, name_matcher, read_file, shown
from litgpt_core.data.settings import TextSettings
from litgpt_core.data.sources import read_corpus


def names(folder: Path, pattern: str = "**/*.txt") -> list[str]:
    return [document_name(path, folder) for path in matching_files(folder, pattern)]


def write(path: Path, content: bytes = b"text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


PATTERNS = [
    "*.txt",
    "**/*.txt",
    "**/*",
    "*",
    "a/*",
    "a/**/*.txt",
    "*/b/*",
    "**/b/*.txt",
    "**/[ab].*",
    "?.txt",
    "./*.md",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_what_path_glob_matches(tmp_path: Path, pattern: str) -> None:
    for name in ("a.txt", "b.md", "a/a.txt", "a/b/c.txt", "a/b/b.txt", "c/b/d.md", "c/long name.txt", "[ab].txt"):
        write(tmp_path / name)
    expected = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob(pattern) if path.is_file())
    assert names(tmp_path, pattern) == expected and expected


@given(st.text(alphabet="ab*?[]!./-\\\n", min_size=1, max_size=12), st.text(alphabet="ab./\n[", min_size=1, max_size=8))
def test_any_pattern_is_usable_or_refused(pattern: str, name: str) -> None:
    try:
        assert name_matcher(pattern)(name) in (True, False)
    except DataError as refusal:
        assert "not a usable pattern" in str(refusal)


@pytest.mark.parametrize("pattern", ["/tmp/*.txt", "../*.txt", "a/../*.txt", "**.txt", "", "/"])
def test_patterns_that_lead_elsewhere_are_refused(tmp_path: Path, pattern: str) -> None:
    write(tmp_path / "a.txt")
    with pytest.raises(DataError, match="not a usable pattern"):
        matching_files(tmp_path, pattern)


def test_linked_folders_are_read_once_and_loops_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, real = tmp_path / "folder", tmp_path / "real"
    write(real / "a.txt")
    write(real / "deep" / "b.txt")
    folder.mkdir()
    links = {"more": "../real", "again": "../real/deep", "up": "..", "self": ".", "broken": "nowhere"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (real / "deep" / "loop").symlink_to(folder)
    with caplog.at_level(logging.INFO):
        assert names(folder) == ["again/b.txt", "more/a.txt"], "deep is reached by the first link, and not again"
    assert "followed 2 linked folder(s)" in caplog.text
    for name in ("up", "self", "broken", "loop"):
        assert f"/{name}" in caplog.text
    (folder / "file.txt").symlink_to(real / "a.txt")
    assert "file.txt" in names(folder)


def test_a_folder_that_holds_only_links_is_a_corpus(tmp_path: Path) -> None:
    write(tmp_path / "real" / "a.txt", b"one text\n" * 3)
    write(tmp_path / "real" / "b.txt", b"another text\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "more").symlink_to("../real")
    corpus = read_corpus(TextSettings(path=str(tmp_path / "folder")))
    assert [document.name for document in corpus.documents] == ["more/a.txt", "more/b.txt"]


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (lzma.compress, ".xz")])
def test_compressed_files_match_by_their_inner_name_and_are_unpacked(
    tmp_path: Path, pack: Callable[[bytes], bytes], suffix: str
) -> None:
    write(tmp_path / f"a.txt{suffix}", pack(b"packed"))
    write(tmp_path / "b.txt", pack(b"packed without the ending"))
    assert names(tmp_path) == [f"a.txt{suffix}", "b.txt"]
    assert [read_file(path) for path in matching_files(tmp_path, "*.txt")] == [b"packed", b"packed without the ending"]
    write(tmp_path / "b.txt", pack(b"packed" * 100)[:-9])
    with pytest.raises(DataError, match=r"b\.txt is damaged"):
        read_file(tmp_path / "b.txt")


def test_names_that_are_no_text_become_escapes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = "".join(f"line {i}\n" for i in range(40)).encode()
    for raw in (b"caf\xe9.txt", b"two\nlines.txt", b"esc\x1b[31m.txt"):
        (tmp_path / os.fsdecode(raw)).write_bytes(content + raw)
    with caplog.at_level(logging.INFO), pytest.raises(DataError, match=r"caf\\xe9\.txt cannot be decoded"):
        read_corpus(TextSettings(path=str(tmp_path)))
    for raw in (b"caf\xe9.txt", b"two\nlines.txt", b"esc\x1b[31m.txt"):
        (tmp_path / os.fsdecode(raw)).write_bytes(content)
    corpus = read_corpus(TextSettings(path=str(tmp_path)))
    assert [d.name for d in corpus.documents] == ["caf\\xe9.txt", "esc\\x1b[31m.txt", "two\\nlines.txt"]
    for line in (*caplog.text.splitlines(), corpus.sha256, shown("a\u202eb")):
        assert line.isprintable()


def test_other_files_are_counted_and_a_pattern_that_matches_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.md", "b.MD", "c.md.gz", "README"):
        write(tmp_path / name)
    with pytest.raises(DataError, match=r"2 x \.md, .*1 x \.MD.*(.|\n)*data\.glob='\*\*/\*\.md'"):
        names(tmp_path)
    with caplog.at_level(logging.INFO):
        assert names(tmp_path, "**/*.md") == ["a.md", "c.md.gz"]
    assert "2 other file(s) do not match" in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        names(tmp_path / "empty")


def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    write(tmp_path / "a.txt")
    assert names(tmp_path) == ["a.txt"]
    for path in (tmp_path / "pipe.txt", Path("/dev/null")):
        with pytest.raises(DataError, match="neither a file nor a folder"):
            read_corpus(TextSettings(path=str(path)))
    with pytest.raises(DataError, match=r"cannot look at x{200}: File name too long"):
        read_corpus(TextSettings(path="x" * 5000))
    with pytest.raises(DataError, match="does not exist"):
        read_corpus(TextSettings(path="a\0b"))


def test_documents_between_separators(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mark = "<|endoftext|>"
    write(tmp_path / "stories.txt", f"One.\n{mark}\nTwo.\r\n\r\n{mark}\n \n{mark}Three.".encode())
    read_corpus(TextSettings(path=str(tmp_path)))
    assert f"data.document_separator='{mark}'" in caplog.text
    corpus = read_corpus(TextSettings(path=str(tmp_path), document_separator=mark))
    assert [d.text for d in corpus.documents] == ["One.", "Two.", "Three."]
    with pytest.raises(DataError, match="holds no text between"):
        write(tmp_path / "stories.txt", mark.encode())
        read_corpus(TextSettings(path=str(tmp_path), document_separator=mark))


def test_all_damaged_files_are_counted_in_one_error(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.txt", "é".encode() * 50 + (b"\xff" if i else b""))
    with pytest.raises(DataError, match=r"1\.txt.*\(2 of 4 files have such problems too\)"):
        read_corpus(TextSettings(path=str(tmp_path)))


def test_a_path_that_is_no_text_can_be_recorded(tmp_path: Path) -> None:
    path = os.fsdecode(b"caf\xe9.txt")
    write_json(tmp_path / "x.json", {"path": path})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"path": path}


def test_text_that_is_compressed_unusually_well_is_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the usual and the largest ratio, it is counted first and then read again."""
    monkeypatch.setattr(files, "ANY_RATIO", 1000)
    monkeypatch.setattr(files, "COUNTED_BYTES", 1000)
    text = b"".join(b"%sall work and no play\n" % (b"%d " % n if n % 20 == 0 else b"") for n in range(4_000))
    (tmp_path / "a.gz").write_bytes(raw := gzip.compress(text))
    assert files.USUAL_RATIO * len(raw) < len(text) < files.MAX_RATIO * len(raw)
    assert files.read_file(tmp_path / "a.gz") == text
    (tmp_path / "b.gz").write_bytes(gzip.compress(b" " * 400_000))
    with pytest.raises(DataError, match="unpacks to more than"):
        files.read_file(tmp_path / "b.gz")
