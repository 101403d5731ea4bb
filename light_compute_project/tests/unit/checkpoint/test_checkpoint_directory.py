"""What a saved directory holds, and what happens when it cannot be written."""

import errno
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from litgpt_core.checkpoint import load_extra, load_weights, save_directory, verify
from litgpt_core.checkpoint.directory import portable_weights
from litgpt_core.core.directories import clean_temporary
from litgpt_core.core.errors import CheckpointError


def hidden(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]


def test_a_saved_directory_holds_litgpts_files_and_checksums(tmp_path, save, config):
    path = save(tmp_path / "runs" / "a" / "step-00000001", extra={"resume.pt": {"step": 1}})
    assert sorted(file.name for file in path.iterdir()) == [
        "checksums.json",
        "hyperparameters.yaml",
        "lit_model.pth",
        "model_config.yaml",
        "resume.pt",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    listed = json.loads((path / "checksums.json").read_text())
    assert {name: entry["bytes"] for name, entry in listed.items()} == {
        file.name: file.stat().st_size for file in path.iterdir() if file.name != "checksums.json"
    }
    assert yaml.safe_load((path / "model_config.yaml").read_text()) == config.to_yaml_dict()
    assert yaml.safe_load((path / "hyperparameters.yaml").read_text()) == {"lr": 0.001}
    assert torch.equal(load_weights(path)["w"], torch.ones(4, 5))
    verify(path)
    assert hidden(path.parent) == []


def test_weights_are_saved_portably(tmp_path, save):
    big = torch.arange(100.0)
    tied = torch.nn.Parameter(torch.ones(3, 2))
    weights = {
        "_orig_mod.transformer.wte.weight": tied,
        "lm_head.weight": tied,
        "transposed": torch.arange(6.0).view(2, 3).t(),
        "slice": big[:2],
    }
    loaded = load_weights(save(tmp_path / "c", weights=weights))
    assert list(loaded) == ["transformer.wte.weight", "lm_head.weight", "transposed", "slice"]
    assert loaded["lm_head.weight"].data_ptr() == loaded["transformer.wte.weight"].data_ptr()
    assert loaded["transposed"].is_contiguous()
    assert loaded["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert loaded["slice"].untyped_storage().nbytes() == 8
    assert all(type(value) is torch.Tensor and not value.requires_grad for value in loaded.values())
    with pytest.raises(ValueError, match="two weights"):
        portable_weights({"a": big, "_orig_mod.a": big})


def test_extra_is_read_back_without_running_code(tmp_path, save):
    resume = {
        "optimizer": {"state": {0: {"exp_avg": torch.randn(3)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.95)}]},
        "rng": torch.get_rng_state(),
        "step": 3,
        "name": "x",
        "flags": [True, None, 1.5],
    }
    path = save(tmp_path / "c", extra={"resume.pt": resume})
    loaded = load_extra(path, "resume.pt")
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], resume["optimizer"]["state"][0]["exp_avg"])
    assert torch.equal(loaded["rng"], resume["rng"])
    assert {key: loaded[key] for key in ("step", "name", "flags")} == {
        "step": 3,
        "name": "x",
        "flags": [True, None, 1.5],
    }
    assert loaded["optimizer"]["param_groups"] == resume["optimizer"]["param_groups"]
    with pytest.raises(CheckpointError, match=r"absent\.pt is missing"):
        load_extra(path, "absent.pt")


def test_unsafe_objects_are_refused_and_nothing_is_written(tmp_path, save):
    with pytest.raises(TypeError, match=r"resume\.pt must hold tensors and plain values only, not numpy"):
        save(tmp_path / "c", extra={"resume.pt": {"step": np.float64(1)}})
    with pytest.raises(TypeError, match="hyperparameters"):
        save(tmp_path / "c", hyperparameters={"dir": Path("x")})
    assert not (tmp_path / "c").exists()
    assert hidden(tmp_path) == []


def test_an_incomplete_tokenizer_is_named(tmp_path, save, tokenizer_dir):
    (tokenizer_dir / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete: found \['tokenizer.json'\]"):
        save(tmp_path / "c")


def test_saving_again_replaces_the_whole_directory(tmp_path, save):
    path = save(tmp_path / "c", value=1.0, extra={"resume.pt": {}})
    save(path, value=2.0)
    assert load_weights(path)["w"][0, 0] == 2
    assert not (path / "resume.pt").exists()
    verify(path)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("place", ["os.fsync", "torch.save", "Path.rename"])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, save, monkeypatch, place):
    path = save(tmp_path / "c", value=1.0)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(
            {"os.fsync": "os.fsync", "torch.save": "torch.save", "Path.rename": "pathlib.Path.rename"}[place], full
        )
        with pytest.raises(CheckpointError) as caught:
            save(path, value=2.0)
    assert "ENOSPC" in caught.value.given and "untouched" in caught.value.given
    assert "bytes are free" in caught.value.needed
    assert "run.dir=" in caught.value.fix
    assert load_weights(path)["w"][0, 0] == 1
    verify(path)
    assert hidden(tmp_path) == []


def test_a_failure_between_the_two_renames_restores_the_old_directory(tmp_path, save, monkeypatch):
    path = save(tmp_path / "c", value=1.0)
    rename = Path.rename
    calls = []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self.name)
        if len(calls) == 2:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", second_fails)
        with pytest.raises(CheckpointError, match="EACCES"):
            save(path, value=2.0)
    assert load_weights(path)["w"][0, 0] == 1
    assert hidden(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this machine does not allow mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_file_system_is_reported_with_both_sizes(tiny_disk, save):
    path = save(tiny_disk / "c", value=1.0)
    with pytest.raises(CheckpointError) as caught:
        save(path, weights={"w": torch.zeros(1_000_000)})
    assert "ENOSPC" in caught.value.given
    assert "about 4,1" in caught.value.needed and f"disk of {tiny_disk}" in caught.value.needed
    assert load_weights(path)["w"][0, 0] == 1
    assert hidden(tiny_disk) == []


def test_a_path_below_a_file_names_the_component_that_is_not_a_folder(tmp_path, save):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path / "file" / "run" / "step-00000001")
    assert str(tmp_path / "file") in caught.value.given
    assert str(tmp_path) in caught.value.needed


def test_no_write_permission_is_named(tmp_path, save):
    if os.name == "nt" or os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match="permission"):
        save(locked / "c")


def test_an_interrupt_while_saving_leaves_no_partial_directory(tmp_path, save, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "c")
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer"]


def test_temporary_folders_of_dead_processes_are_removed_and_others_kept(tmp_path):
    from litgpt_core.core.directories import hidden_sibling

    done = subprocess.Popen(["true"] if os.name != "nt" else ["cmd", "/c", "exit"])
    done.wait()
    here, parent = f"-{os.getpid()}-", f"-{os.getppid()}-"

    def leftover(name: str, kind: str, process: str) -> Path:
        path = hidden_sibling(tmp_path / name, kind)
        path = path.with_name(path.name.replace(here, process))
        path.mkdir()
        return path

    dead = leftover("step-00000001", "tmp", f"-{done.pid}-")
    ours_from_before = leftover("step-00000002", "tmp", here)
    living = leftover("step-00000003", "tmp", parent)
    aside = leftover("step-00000004", "old", f"-{done.pid}-")
    replaced = leftover("step-00000005", "old", f"-{done.pid}-")
    (tmp_path / "step-00000005").mkdir()
    other_host = tmp_path / f".step-00000006.tmp-{done.pid}-ffffffffffff"
    other_host.mkdir()
    stranger = tmp_path / ".step-00000007.tmp-mine"
    stranger.mkdir()

    assert set(clean_temporary(tmp_path)) == {dead, ours_from_before, aside, replaced}
    left = {living, other_host, stranger, tmp_path / "step-00000004", tmp_path / "step-00000005"}
    assert set(tmp_path.iterdir()) == left
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(other_host, (two_days_ago, two_days_ago))
    assert clean_temporary(tmp_path) == [other_host]


def test_a_process_does_not_remove_its_own_temporary_folder(tmp_path, config, tokenizer_dir, monkeypatch):
    save, seen = torch.save, []

    def clean_meanwhile(content: object, file: object) -> None:
        seen.append(clean_temporary(tmp_path))
        save(content, file)

    monkeypatch.setattr("torch.save", clean_meanwhile)
    path = save_directory(
        tmp_path / "c", weights={"w": torch.ones(1)}, config=config, tokenizer_dir=tokenizer_dir, hyperparameters={}
    )
    assert seen == [[]]
    verify(path)
