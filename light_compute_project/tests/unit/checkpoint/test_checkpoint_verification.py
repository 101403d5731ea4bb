"""A corrupted, changed or unsafe checkpoint is reported by file; a complete one from elsewhere is accepted."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from litgpt_core.checkpoint import load_weights, verify
from litgpt_core.core.errors import CheckpointError


def test_a_truncated_weights_file_is_reported_with_both_sizes(tmp_path, save):
    path = save(tmp_path / "c")
    file = path / "lit_model.pth"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError) as caught:
        verify(path, full=False)
    assert "lit_model.pth" in caught.value.given and f"{size - 10:,} bytes" in caught.value.given
    assert caught.value.needed == f"{size:,} bytes"


def test_one_changed_byte_is_detected_only_by_the_full_check(tmp_path, save):
    path = save(tmp_path / "c")
    file = path / "tokenizer.json"
    file.write_text(file.read_text().replace("model", "mODEL"))
    verify(path, full=False)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has changed: its SHA-256 is [0-9a-f]{64}"):
        verify(path)


@pytest.mark.parametrize(
    "name", ["lit_model.pth", "model_config.yaml", "tokenizer_config.json", "tokenizer.json", "resume.pt"]
)
def test_a_missing_file_is_named(tmp_path, save, name):
    path = save(tmp_path / "c", extra={"resume.pt": {"step": 1}})
    (path / name).unlink()
    with pytest.raises(CheckpointError) as caught:
        verify(path, full=False)
    assert name in caught.value.given and "missing" in caught.value.given


def test_corrupted_checksums_are_reported(tmp_path, save):
    path = save(tmp_path / "c")
    (path / "checksums.json").write_text('{"lit_model.pth": 3}')
    with pytest.raises(CheckpointError, match=r"checksums\.json"):
        verify(path)


def test_a_directory_without_checksums_is_checked_by_structure(tmp_path, save):
    path = save(tmp_path / "c")
    (path / "checksums.json").unlink()
    verify(path)
    file = path / "lit_model.pth"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        verify(path)


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="is not a directory"):
        verify(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_loading_a_truncated_file_names_it_with_its_size(tmp_path, save, keep):
    file = save(tmp_path / "c") / "lit_model.pth"
    content = file.read_bytes()[:keep]
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_weights(file)
    assert str(file) in caught.value.given and f"{len(content):,} bytes" in caught.value.given
    assert caught.value.fix


def test_a_corrupted_pickle_in_a_complete_archive_is_an_error(tmp_path, save):
    file = save(tmp_path / "c") / "lit_model.pth"
    content = bytearray(file.read_bytes())
    at = content.index(b"ctorch._utils")
    content[at : at + 6] = b"\xff" * 6
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"lit_model\.pth"):
        load_weights(file)


class Poison:
    def __reduce__(self):
        return exec, ("raise SystemExit('code ran')",)


def test_an_unsafe_file_is_refused_without_running_it(tmp_path):
    file = tmp_path / "lit_model.pth"
    torch.save({"w": Poison()}, file)
    with pytest.raises(CheckpointError, match=r"builtins\.exec|__builtin__\.exec"):
        load_weights(file)


def test_a_state_dict_below_model_is_unwrapped_and_others_are_described(tmp_path):
    file = tmp_path / "lit_model.pth"
    torch.save({"model": {"w": torch.ones(2)}, "step": 3}, file)
    assert load_weights(file)["w"].tolist() == [1, 1]
    torch.save({"state_dict": {}, "epoch": 3}, file)
    with pytest.raises(CheckpointError, match="dict with state_dict, epoch"):
        load_weights(file)
    torch.save([torch.ones(1)], file)
    with pytest.raises(CheckpointError, match="list"):
        load_weights(file)


def test_searching_for_checkpoints_does_not_import_torch(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from litgpt_core.checkpoint import newest_valid;"
        "newest_valid(Path('.'));"
        "from litgpt_core.checkpoint import verify, resolve, prune;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
