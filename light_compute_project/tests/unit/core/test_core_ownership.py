"""Who else may have written a file: owners, rights of group and others, links, on the way from the root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from litgpt_core.core.ownership import shared_with

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files have no owners there")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "kernels"
    folder.mkdir(parents=True)
    file = folder / "a.so"
    file.write_text("")
    for path in (tmp_path / "cache", folder, file):
        path.chmod(0o755)
    return file


def test_what_this_user_alone_may_write_is_fine(library: Path) -> None:
    assert shared_with(library) == ""
    assert shared_with(library.parent) == ""
    with pytest.raises(FileNotFoundError):
        shared_with(library.with_name("absent"))


@pytest.mark.parametrize("mode", [0o757, 0o777, 0o1777])
def test_rights_of_others(library: Path, mode: int) -> None:
    library.chmod(mode)
    assert shared_with(library) == f"others may write to {library}"
    library.chmod(0o700)
    library.parent.chmod(mode)
    sticky = mode == 0o1777
    assert shared_with(library) == ("" if sticky else f"others may write to {library.parent}")
    library.parent.chmod(0o700)
    library.parent.parent.chmod(mode)
    assert shared_with(library) == ("" if sticky else f"others may write to {library.parent.parent}")


def test_a_link_is_not_followed(library: Path) -> None:
    link = library.with_name("link.so")
    link.symlink_to(library)
    assert shared_with(link) == f"{link} is a link"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user(library: Path) -> None:
    for path in (library, library.parent):
        os.chown(path, 65534, 65534)
        assert shared_with(library) == f"{path} belongs to another user"
        os.chown(path, 0, 0)
    os.chown(library, 0, 65534)
    library.chmod(0o770)
    assert shared_with(library) == f"others may write to {library}"
