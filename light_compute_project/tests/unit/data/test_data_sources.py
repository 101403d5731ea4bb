"""Readers: the same bytes everywhere, newlines kept, and every mistake named with what to type."""

from __future__ import annotations

import hashlib
import http.server
import importlib.metadata
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.document import Document, documents_sha256
from litgpt_core.data.settings import CustomTextSettings, PythonSourceSettings, TextSettings, TinyShakespeareSettings
from litgpt_core.data.shakespeare import MIRROR_VARIABLE
from litgpt_core.data.sources import read_corpus

PLAY = "First Citizen:\nBefore we proceed,\r\nhear me speak.\n" * 20


# --- python_source -------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution `tinydist` 1.2.3 on the import path, as pip would leave it."""
    files = {
        "tinydist/b.py": b"b = 1\r\n",
        "tinydist/a.py": "a = 'ä'\n".encode(),
        "tinydist/empty.py": b"\n",
        "tinydist/large.py": b"x" * 5000,
        "tinydist/data.json": b"{}",
        "tinydist-1.2.3.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tinydist\nVersion: 1.2.3\n",
    }
    for name, raw in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "tinydist" / "stray.py").write_bytes(b"not in RECORD\n")
    record = "".join(f"{name},,\n" for name in files) + "../../bin/tinydist.py,,\n"
    (tmp_path / "tinydist-1.2.3.dist-info" / "RECORD").write_text(record, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def python_source(**changes: object) -> PythonSourceSettings:
    return PythonSourceSettings(**{"packages": {"tinydist": "1.2.3"}, "max_file_bytes": 1000, **changes})


def test_python_source_reads_what_record_lists_in_order(package: Path) -> None:
    corpus = read_corpus(python_source())
    assert [(d.source, d.name, d.text) for d in corpus.documents] == [
        ("tinydist", "tinydist/a.py", "a = 'ä'\n"),
        ("tinydist", "tinydist/b.py", "b = 1\r\n"),
    ]
    (facts,) = corpus.sources
    assert (facts.name, facts.version, facts.files, facts.bytes) == ("tinydist", "1.2.3", 2, 16)


def test_python_source_names_every_wrong_version(package: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_corpus(python_source(packages={"tinydist": "1.2.4", "no-such-distribution": "1.0"}))
    for words in ("tinydist 1.2.3 is installed, 1.2.4 is needed", "no-such-distribution is not installed", "uv sync"):
        assert words in str(caught.value)


def test_python_source_warns_of_edited_files(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read_corpus(python_source()).sha256
    record = package / "tinydist-1.2.3.dist-info" / "RECORD"
    record.write_text(record.read_text().replace("a.py,,", "a.py,sha256=AAAA,8"), encoding="utf-8")
    (package / "tinydist" / "a.py").write_bytes(b"a = 2\n")
    with caplog.at_level(logging.WARNING):
        assert read_corpus(python_source()).sha256 != before
    assert "tinydist/a.py" in caplog.text


def test_python_source_names_missing_and_undecodable_files(package: Path) -> None:
    (package / "tinydist" / "a.py").unlink()
    with pytest.raises(DataError, match=r"tinydist/a\.py.*\n.*\n.*--reinstall-package tinydist"):
        read_corpus(python_source())
    (package / "tinydist" / "a.py").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.py is not UTF-8"):
        read_corpus(python_source())
    with pytest.raises(DataError, match="no \\.py file of at most 1 bytes"):
        read_corpus(python_source(max_file_bytes=1))


def test_the_default_corpus_is_the_documented_one() -> None:
    data = PythonSourceSettings()
    for package, version in data.packages.items():
        if importlib.metadata.version(package) != version:
            pytest.skip(f"{package} {version} is not installed")
    corpus = read_corpus(data)
    assert (len(corpus.documents), sum(source.bytes for source in corpus.sources)) == (2007, 31_858_321)
    assert corpus.sha256 == "11e1252f7e55e9785f3e1af030c2901accfd2f7d8af52940c6aaa8cdd6e79a73"


# --- tiny_shakespeare ----------------------------------------------------------------------------------------------


def shakespeare(folder: Path, **changes: object) -> TinyShakespeareSettings:
    raw = PLAY.encode()
    given = {"sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw), "url": "http://127.0.0.1:9/input.txt"}
    return TinyShakespeareSettings(**{**given, "cache_dir": str(folder / "cache"), "timeout_s": 2.0, **changes})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server over `tmp_path/served`."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(served), **kwargs)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.parametrize("name", ["tiny_shakespeare.txt", "input.txt"])
@pytest.mark.parametrize("as_address", [False, True])
def test_mirror_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, as_address: bool) -> None:
    (tmp_path / name).write_bytes(PLAY.encode())
    monkeypatch.setenv(MIRROR_VARIABLE, tmp_path.as_uri() if as_address else str(tmp_path))
    (document,) = read_corpus(shakespeare(tmp_path)).documents
    assert document.text == PLAY


def test_download_is_kept_and_a_spoilt_copy_fetched_again(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    (tmp_path / "served" / "input.txt").write_bytes(PLAY.encode())
    settings = shakespeare(tmp_path, url=f"{server}/input.txt")
    assert read_corpus(settings).documents[0].text == PLAY
    kept = tmp_path / "cache" / "downloads" / "tiny_shakespeare.txt"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    kept.write_bytes(b"spoilt")
    assert read_corpus(settings).documents[0].text == PLAY
    assert "fetching it again" in caplog.text
    (tmp_path / "served" / "input.txt").unlink()
    assert read_corpus(settings).documents[0].text == PLAY


def test_the_real_file_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.environ.get(MIRROR_VARIABLE) or Path(__file__).parents[5] / "shared" / "data")
    if not (folder / "tiny_shakespeare.txt").is_file():
        pytest.skip(f"no tiny_shakespeare.txt in {MIRROR_VARIABLE} or in ../shared/data next to the repository")
    monkeypatch.setenv(MIRROR_VARIABLE, str(folder))
    (document,) = read_corpus(TinyShakespeareSettings(cache_dir=str(tmp_path))).documents
    assert (len(document.text), len(set(document.text))) == (1_115_394, 65)


def test_http_mirror_tries_both_names(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, server + "/")
    with pytest.raises(DataError, match="404"):
        read_corpus(shakespeare(tmp_path))
    (tmp_path / "served" / "input.txt").write_bytes(PLAY.encode())
    assert read_corpus(shakespeare(tmp_path)).documents[0].text == PLAY


def test_wrong_file_names_both_hashes(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    (tmp_path / "served" / "input.txt").write_bytes(b"something else")
    settings = shakespeare(tmp_path, url=f"{server}/input.txt")
    with pytest.raises(DataError) as caught:
        read_corpus(settings)
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
    assert settings.sha256 in str(caught.value)
    assert not (tmp_path / "cache" / "downloads").exists()


def test_no_network_and_no_mirror_say_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with pytest.raises(DataError, match="cannot fetch") as caught:
        read_corpus(shakespeare(tmp_path))
    assert f"{MIRROR_VARIABLE}=FOLDER" in str(caught.value)
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"holds neither tiny_shakespeare\.txt nor input\.txt"):
        read_corpus(shakespeare(tmp_path))


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/input.txt"
        with pytest.raises(DataError, match=r"no response within data\.timeout_s=0\.2 s"):
            read_corpus(shakespeare(tmp_path, url=url, timeout_s=0.2))


# --- text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text", "encoding"),
    [
        ("naïve\r\ntext\r".encode(), "naïve\r\ntext\r", "utf-8"),
        ("naïve\n".encode("utf-8-sig"), "naïve\n", "utf-8"),
        ("naïve €\n".encode("utf-16"), "naïve €\n", "utf-16"),
        (b"\xfe\xff" + "naïve €\n".encode("utf-16-be"), "naïve €\n", "utf-16"),
        ("naïve “quoted”\n".encode("cp1252"), "naïve “quoted”\n", "cp1252"),
        ("20 €, “naïve”\n".encode("cp1252"), "20 €, “naïve”\n", "cp1252"),
    ],
)
def test_one_file_in_any_encoding(tmp_path: Path, raw: bytes, text: str, encoding: str) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(raw)
    corpus = read_corpus(TextSettings(path=str(path)))
    assert corpus.documents == (Document("text", "file.txt", text),)
    assert corpus.sources[0].encodings == {encoding: 1}


def test_a_folder_is_read_sorted_and_without_hidden_or_empty_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/.hidden.txt", ".git/c.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    corpus = read_corpus(TextSettings(path=str(tmp_path)))
    assert [d.name for d in corpus.documents] == ["a/z.txt", "b.txt"]
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert read_corpus(TextSettings(path=str(moved))).sha256 == corpus.sha256


def test_binary_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\0\0\r\n")
    with pytest.raises(DataError, match=r"picture\.txt is not text.*the first at 4"):
        read_corpus(TextSettings(path=str(tmp_path)))
    (tmp_path / "picture.txt").write_bytes("plain".encode("utf-16-le"))
    explicit = TextSettings(path=str(tmp_path), encodings=["utf-16-le"])
    assert read_corpus(explicit).documents[0].text == "plain"


def test_undecodable_and_empty_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"odd\.txt cannot be decoded as utf-8"):
        read_corpus(TextSettings(path=str(path), encodings=["utf-8"]))
    path.write_bytes("wide".encode("utf-16"))
    with pytest.raises(DataError, match="byte-order mark is that of utf-16"):
        read_corpus(TextSettings(path=str(path), encodings=["utf-8", "latin-1"]))
    path.write_bytes(b"")
    with pytest.raises(DataError, match="holds no text"):
        read_corpus(TextSettings(path=str(path)))


def test_a_missing_path_lists_what_is_there(tmp_path: Path) -> None:
    for name in ["input.txt", *(f"other{i}.md" for i in range(20))]:
        (tmp_path / name).write_text("x", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_corpus(TextSettings(path=str(tmp_path / "inputs.txt")))
    message = str(caught.value)
    assert "there is: input.txt, other0.md" in message
    assert "and 11 more" in message
    assert f"data.path={tmp_path / 'input.txt'}" in message
    with pytest.raises(DataError, match="does not exist"):
        read_corpus(TextSettings(path=str(tmp_path / "no" / "such" / "folder")))


def test_a_pattern_without_matches_lists_the_kinds_of_files(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.rst"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_corpus(TextSettings(path=str(tmp_path)))
    assert "2 x .md, 1 x .rst" in str(caught.value)
    assert "data.glob='**/*.md'" in str(caught.value)
    with pytest.raises(DataError, match="not a usable pattern"):
        read_corpus(TextSettings(path=str(tmp_path), glob="/*.md"))


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.txt").write_text("x", encoding="utf-8")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot read .*secret\.txt: Permission denied"):
        read_corpus(TextSettings(path=str(tmp_path)))


def test_corpus_hash_ignores_order_and_sees_names_and_bytes() -> None:
    a, b = Document("s", "a", "one"), Document("s", "b", "two")
    assert documents_sha256([a, b]) == documents_sha256([b, a])
    others = [[a], [a, Document("s", "b", "twO")], [a, Document("s", "c", "two")], [Document("s", "a", "onetwo")]]
    assert len({documents_sha256(documents) for documents in [[a, b], *others]}) == 5


# --- custom --------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[3] / "docs" / "data.md"
READERS = """
def of_another_type():
    yield "a"

def twice():
    yield from [("a", "one"), ("a", "two")]

def empty():
    yield "a", ""
"""


@pytest.fixture
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder whose modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_reader_in_docs_data_is_a_source(current_folder: Path) -> None:
    (code,) = re.findall(r"```python\n(# (\w+)\.py\n.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (current_folder / f"{code[1]}.py").write_text(code[0], encoding="utf-8")
    (current_folder / "notes" / "sub").mkdir(parents=True)
    for name in ("b.md", "sub/a.md", "c.txt"):
        (current_folder / "notes" / name).write_text(f"text of {name}", encoding="utf-8")
    settings = CustomTextSettings(reader="my_reader.read_markdown", kwargs={"folder": "notes"}, name="notes")
    corpus = read_corpus(settings)
    assert corpus.documents == (
        Document("notes", "b.md", "text of b.md"),
        Document("notes", "sub/a.md", "text of sub/a.md"),
    )
    assert (corpus.sources[0].files, corpus.sources[0].bytes) == (2, len("text of b.md" + "text of sub/a.md"))


@pytest.mark.parametrize(
    ("function", "message"),
    [("of_another_type", r"pairs of strings"), ("twice", "yields 'a' twice"), ("empty", "yields no text")],
)
def test_a_reader_that_yields_something_else_is_named(current_folder: Path, function: str, message: str) -> None:
    (current_folder / "some_readers.py").write_text(READERS, encoding="utf-8")
    with pytest.raises(DataError, match=rf"data\.reader=some_readers\.{function}(.|\n)*{message}"):
        read_corpus(CustomTextSettings(reader=f"some_readers.{function}"))


def test_a_reader_and_its_arguments_are_checked_with_the_config(current_folder: Path) -> None:
    (current_folder / "some_readers.py").write_text(
        "def read(folder, limit=3):\n    yield 'a', 'b'\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="did you mean read"):
        CustomTextSettings(reader="some_readers.raed")
    with pytest.raises(ConfigError, match=r"data\.kwargs\.folder is missing"):
        CustomTextSettings(reader="some_readers.read")
    with pytest.raises(ConfigError, match=r"data\.kwargs\.limmit.*did you mean limit"):
        CustomTextSettings(reader="some_readers.read", kwargs={"folder": "x", "limmit": 2})
    with pytest.raises(ConfigError, match="a function"):
        CustomTextSettings(reader="pathlib.Path")
