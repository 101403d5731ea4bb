"""Private files: rights 0600, no links, content kept; lock files too; control characters shown, not sent."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from litgpt_core.core import console
from litgpt_core.core.lock import exclusive
from litgpt_core.core.private_files import open_private
from litgpt_core.core.text import visible

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files have no rights for group and others there")


def _rights(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_private(tmp_path / "chat.jsonl") as file:
            file.write(b"hello")
    finally:
        os.umask(before)
    assert _rights(tmp_path / "chat.jsonl") == 0o600
    with open_private(tmp_path / "chat.jsonl") as file:
        file.seek(0, 2)
        file.write(b" you")
    assert (tmp_path / "chat.jsonl").read_bytes() == b"hello you"


def test_a_file_that_is_there_keeps_its_rights_unless_they_are_tightened(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text("x")
    file.chmod(0o666)
    open_private(file).close()
    assert _rights(file) == 0o666
    open_private(file, tighten=True).close()
    assert _rights(file) == 0o600


def test_links_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to("precious")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match=r"link|pipe|directory"):
            open_private(tmp_path / name)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_lock_file_is_private_and_no_link(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", purpose="a test", keep=True):
        assert _rights(tmp_path / "lock") == 0o600
    (tmp_path / "link").symlink_to("lock")
    with pytest.raises(OSError, match="link"), exclusive(tmp_path / "link", purpose="a test"):
        pass


def test_control_characters_become_symbols() -> None:
    text = "a\x1b]0;title\x07\nb\t\x7f\x9b2Jé"
    assert visible(text) == "a␛]0;title␇\nb\t␡\N{REPLACEMENT CHARACTER}2Jé"


def test_a_terminal_gets_symbols_and_a_pipe_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, said in ((True, "␛[2J"), (False, "\x1b[2J")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=is_terminal: terminal)
        assert console.for_stdout("\x1b[2J") == said


def test_a_warning_with_the_name_of_a_hostile_folder_does_not_control_the_terminal() -> None:
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "skipping %s", ("runs/\x1b[2J",), None)
    assert console._Plain("%(message)s").format(record) == "warning: skipping runs/␛[2J"
