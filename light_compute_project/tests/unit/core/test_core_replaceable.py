"""What may be replaced or deleted: nothing, an empty folder, a link, and what this project wrote alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from litgpt_core.core.directories import new_directory, remove_directory
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.replaceable import foreign_entry, refuse_foreign, refuse_foreign_file, refuse_taken


def _product(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("x")
    listed = {name: {"bytes": 1, "sha256": ""} for name in names}
    (folder / "checksums.json").write_text(json.dumps(listed))
    return folder


def test_nothing_an_empty_folder_and_our_own_product_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    product = _product(tmp_path / "ours", "lit_model.pth", ".metadata", "a[1]*.txt")
    for path in (tmp_path / "absent", tmp_path / "empty", product):
        assert foreign_entry(path) is None
        refuse_foreign(path)
        with new_directory(path) as new:
            (new / "new.txt").write_text("new")
        assert (path / "new.txt").read_text() == "new"
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("extra", ["notes.txt", "sub/notes.txt", ".hidden", "empty_folder/", "a1b.txt"])
def test_anything_else_in_the_folder_is_named_and_kept(tmp_path: Path, extra: str) -> None:
    folder = _product(tmp_path / "mixed", "lit_model.pth", "a[1]b.txt")
    (folder / extra).parent.mkdir(exist_ok=True)
    if extra.endswith("/"):
        (folder / extra).mkdir()
    else:
        (folder / extra).write_text("mine")
    before = sorted(folder.rglob("*"))
    with (
        pytest.raises(CheckpointError, match=extra.rstrip("/").replace(".", r"\.") + " was not written by this"),
        new_directory(folder) as new,
    ):
        (new / "new.txt").write_text("new")
    with pytest.raises(CheckpointError, match="is not deleted"):
        remove_directory(folder)
    assert sorted(folder.rglob("*")) == before
    assert sorted(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("content", [None, "[1]", "{", '{"thesis.txt": 5}', '{"thesis.txt": "sha"}', "[" * 100_000])
def test_only_a_list_of_this_project_makes_files_ours(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "thesis.txt").write_text("thesis")
    if content is not None:
        (tmp_path / "checksums.json").write_text(content)
    with pytest.raises(CheckpointError, match="was not written by this project"):
        refuse_foreign(tmp_path)


def test_patterns_instead_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    (tmp_path / "train.bin").write_text("")
    refuse_foreign(tmp_path, ours=("*.bin", "tokenizer/*"))
    assert foreign_entry(tmp_path, ours=("*.bin",)) == tmp_path / "tokenizer" / "tokenizer.json"


def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("thesis")
    (tmp_path / "link").symlink_to(precious)
    with new_directory(tmp_path / "link") as new:
        (new / "new.txt").write_text("new")
    assert (precious / "thesis.txt").read_text() == "thesis"
    assert not (tmp_path / "link").is_symlink()


def test_a_file_is_overwritten_only_by_its_own_kind(tmp_path: Path) -> None:
    file = tmp_path / "plot.png"
    refuse_foreign_file(file, contains=b"matplotlib", what="a plot")
    for content, fine in ((b"", True), (b"\x89PNG matplotlib", True), (b"\x89PNG holiday", False)):
        file.write_bytes(content)
        if fine:
            refuse_foreign_file(file, contains=b"matplotlib", what="a plot")
        else:
            with pytest.raises(CheckpointError, match="it is not a plot"):
                refuse_foreign_file(file, contains=b"matplotlib", what="a plot")
    with pytest.raises(CheckpointError, match=r"plot\.png was not written"):
        refuse_foreign(file)


def test_the_target_of_an_export_is_no_source_and_only_replaced_by_force(tmp_path: Path) -> None:
    source, ours = _product(tmp_path / "runs" / "source", "a"), _product(tmp_path / "ours", "a")
    refuse_taken(tmp_path / "new", source=source, force=False)
    refuse_taken(ours, source=source, force=True)
    for target, force, message in (
        (ours, False, "--force"),
        (source, True, "is or contains the source"),
        (tmp_path / "runs", True, "is or contains the source"),
    ):
        with pytest.raises(CheckpointError, match=message):
            refuse_taken(target, source=[source], force=force)
    for content, message in ((b"GGUF...", None), (b"thesis", "it is not a file of the same kind")):
        (tmp_path / "file").write_bytes(content)
        if message is None:
            refuse_taken(tmp_path / "file", source=source, force=True, contains=b"GGUF")
        else:
            with pytest.raises(CheckpointError, match=message):
                refuse_taken(tmp_path / "file", source=source, force=True, contains=b"GGUF")
    (ours / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes\.txt was not written"):
        refuse_taken(ours, source=source, force=True)
