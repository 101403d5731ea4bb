"""Files of a folder of others are read only where they lie in it, or in the cache of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from litgpt_core.checkpoint.discovery import discover
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.links import leads_out, refuse_leading_out
from litgpt_core.export.huggingface.folder import open_weights, read_json
from litgpt_core.export.huggingface.vocabulary import gather_tokenizer
from litgpt_core.tokenizers.directory import copy_companions, read_description


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text('{"password": "x"}')
    return tmp_path / "secret"


def test_links_inside_the_folder_and_of_the_hubs_cache(tmp_path: Path, secret: Path) -> None:
    folder = tmp_path / "models--org--name" / "snapshots" / "abc"
    (folder / "sub").mkdir(parents=True)
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir()
    (blobs / "hash").write_text("{}")
    (folder / "a.json").symlink_to("../../blobs/hash")
    (folder / "b.json").symlink_to("a.json")
    (folder / "real.json").write_text("{}")
    (folder / "c.json").symlink_to("real.json")
    for name in ("a.json", "b.json", "c.json", "real.json", "absent"):
        assert not leads_out(folder / name)
        assert refuse_leading_out(folder / name) == folder / name
    (folder / "d.json").symlink_to(secret)
    (folder / "e.json").symlink_to("../../../secret")
    (folder / "f.json").symlink_to("d.json")
    for name in ("d.json", "e.json", "f.json"):
        with pytest.raises(CheckpointError, match="outside its folder"):
            refuse_leading_out(folder / name)
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.json").symlink_to(blobs / "hash")
    assert leads_out(plain / "a.json"), "only a snapshot may lead to blobs"


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json", "merges.txt", "special_tokens_map.json"])
def test_an_import_copies_no_file_from_elsewhere(tmp_path: Path, secret: Path, name: str) -> None:
    folder, target = tmp_path / "hf", tmp_path / "target"
    folder.mkdir()
    target.mkdir()
    (folder / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match="outside its folder"):
        gather_tokenizer(folder, target, model={})
    assert not list(target.iterdir())


def test_no_reader_of_a_folder_follows_a_link_out_of_it(tmp_path: Path, secret: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"):
        (folder / name).symlink_to(secret)
    for read in (
        lambda: read_json(folder / "config.json"),
        lambda: open_weights(folder),
        lambda: read_description(folder),
        lambda: copy_companions(folder, tmp_path),
    ):
        with pytest.raises(CheckpointError, match="outside its folder"):
            read()


def test_discovery_follows_links_within_the_roots_and_to_single_models(tmp_path: Path) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "models"
    for folder in (elsewhere / "a", elsewhere / "deep" / "b", root / "own", root / "group"):
        folder.mkdir(parents=True)
    for folder in (elsewhere / "a", elsewhere / "deep" / "b", root / "own"):
        (folder / "model_config.yaml").write_text("")
    (root / "linked").symlink_to(elsewhere / "a")  # a model: people link models
    (root / "all").symlink_to(elsewhere)  # a folder of others' models
    (root / "group" / "deep").symlink_to(elsewhere / "deep" / "b")  # deeper than a root's own entries
    (root / "group" / "again").symlink_to(root / "own")
    seen = " ".join(discover([root]).skipped)  # without weights, each is named as it is met
    assert "own: " in seen and "linked: " in seen
    assert "deep" not in seen and "all" not in seen and "again" not in seen
