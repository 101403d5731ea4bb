"""Files of torch.save without torch: read, written, and refused."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from litgpt_core.core.errors import CheckpointError
from litgpt_core.model.config import GPTConfig, registry_names
from litgpt_core.pure.config import read_config, read_yaml
from litgpt_core.pure.weights import read_weights, write_weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_reads_what_torch_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    """Matrices, vectors, views with other strides, and one tensor under two names."""
    matrix = torch.randn(5, 3, dtype=torch.float64).to(dtype)
    saved = {
        "a": matrix,
        "tied": matrix,
        "vector": torch.arange(4).to(dtype),
        "transposed": matrix.T,
        "part": matrix[2:4],
    }
    torch.save(saved, tmp_path / "x.pth")
    read = read_weights(tmp_path / "x.pth")
    for name, tensor in saved.items():
        assert read[name].shape == tuple(tensor.shape)
        assert torch.equal(torch.tensor(read[name].values.tolist(), dtype=torch.float64), tensor.double().flatten())
    assert read["a"] is read["tied"]
    assert read["transposed"].rows()[1] == matrix.T[1].tolist()
    torch.save({"model": saved, "step": torch.tensor(1.0)}, tmp_path / "x.pth")
    assert set(read_weights(tmp_path / "x.pth")) == set(saved)


def test_torch_reads_what_was_written(tmp_path: Path) -> None:
    rows = {"wte.weight": [[1.5, -2.0], [0.25, 3.0], [0.1, 1e-30]], "ln_f.weight": [[1.0, 2.0]]}
    write_weights(tmp_path / "x.pth", rows)
    for mmap in (False, True):
        loaded = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mmap)
        assert loaded["wte.weight"].tolist() == torch.tensor(rows["wte.weight"]).tolist()
        assert loaded["ln_f.weight"].tolist() == [1.0, 2.0]
    assert read_weights(tmp_path / "x.pth")["wte.weight"].shape == (3, 2)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("touched"),)  # type: ignore[return-value]


def test_a_pickle_that_calls_something_is_refused_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2), "b": Evil()}, "x.pth")
    with pytest.raises(CheckpointError, match=r"it names .*, which is no tensor"):
        read_weights(Path("x.pth"))
    assert not Path("touched").exists()


def test_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    good = tmp_path / "good.pth"
    torch.save({"a": torch.randn(50, 50)}, good)
    whole = good.read_bytes()
    cases = {"cut off": whole[:-300], "half": whole[: len(whole) // 2], "empty": b"", "text": b"no archive"}
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_weights(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_weights(tmp_path / "absent")
    torch.save([torch.ones(2)], good)
    with pytest.raises(CheckpointError, match="does not hold a state dict"):
        read_weights(good)


def archive_of(path: Path, content: bytes, *, numbers: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/data/0", numbers)


def test_shapes_beyond_the_numbers_and_compressed_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    write_weights(path, {"a": [[1.0, 2.0], [3.0, 4.0]]})
    with zipfile.ZipFile(path) as archive:
        content, numbers = archive.read("archive/data.pkl"), archive.read("archive/data/0")
    archive_of(path, content, numbers=numbers)
    assert read_weights(path)["a"].rows() == [[1.0, 2.0], [3.0, 4.0]]
    archive_of(path, content, numbers=numbers[:12])
    with pytest.raises(CheckpointError, match="reaches beyond its 3 numbers"):
        read_weights(path)
    archive_of(path, content, numbers=numbers[:13])
    with pytest.raises(CheckpointError, match="no whole numbers"):
        read_weights(path)
    layouts = [
        b"".join(b"J" + struct.pack("<i", each) for each in pair) for pair in ((2, 2), (2, 1), (2**30, 2**30), (0, 0))
    ]
    shape, strides, huge, zeros = layouts
    archive_of(path, content.replace(shape, huge).replace(strides, zeros), numbers=numbers)
    with pytest.raises(CheckpointError, match="reaches beyond its 4 numbers"):
        read_weights(path)
    archive_of(path, content, numbers=bytes(10**6), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        read_weights(path)
    archive_of(path, pickle.dumps({"a": 1}), numbers=b"")
    with pytest.raises(CheckpointError, match="does not hold a state dict"):
        read_weights(path)


def test_settings_are_read_as_pyyaml_reads_them(tmp_path: Path) -> None:
    """Of every registry name, as a training run writes them and as LitGPT does."""
    for name in registry_names():
        config = GPTConfig.from_name(name)
        for values in (config.to_yaml_dict(), config.to_full_dict()):
            for text in (yaml.safe_dump(values), yaml.safe_dump(values, sort_keys=False)):
                assert read_yaml(text) == yaml.safe_load(text), name
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(GPTConfig.from_name("Gemma-3-4b-it").to_full_dict()))
    config, core = read_config(tmp_path), GPTConfig.from_name("Gemma-3-4b-it")
    assert (config.name, config.head_size, config.rope_indices) == (core.name, core.head_size, core.rope_indices)


@pytest.mark.parametrize("text", ["n_layer: &x 2", "- 1\n- 2", "what", "n_layer: two", "n_head: 0"])
def test_settings_that_are_not_understood_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"model_config\.yaml cannot be read"):
        read_config(tmp_path)
