"""Every form that weights come in gives the same checkpoint; a folder that is not whole is refused by its bad file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint
from litgpt_core.core.errors import CheckpointError, LightComputeError
from litgpt_core.core.files import sha256_of
from litgpt_core.export.huggingface.exporting import export_directory
from litgpt_core.export.huggingface.folder import open_weights
from litgpt_core.export.huggingface.importing import import_folder

pytest.importorskip("transformers")


@pytest.fixture
def whole(make_folder: Any) -> Path:
    """A Llama in one safetensors file."""
    return make_folder("llama3").path


@pytest.fixture
def sharded(make_folder: Any) -> Path:
    """The same in several files and an index."""
    folder = make_folder("llama3", max_shard_size="100KB").path
    assert len(list(folder.glob("*.safetensors"))) >= 3
    return folder


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Import, expect the error, return its text; nothing may be left behind."""

    def refuse(folder: Path, *, kind: type[LightComputeError] = CheckpointError) -> str:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(kind) as caught:
            import_folder(folder, tmp_path / "imported")
        assert caught.value.needed, "an error says what is needed"
        assert sorted(tmp_path.iterdir()) == before
        return str(caught.value)

    return refuse


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def same_weights(first: Path, second: Path) -> bool:
    before, after = checkpoint.load_weights(first), checkpoint.load_weights(second)
    return before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


# --- forms


def test_shards_and_torch_files_of_both_formats_give_the_same_checkpoint(make_folder: Any, tmp_path: Path) -> None:
    made = make_folder("llama3")
    reference = import_folder(made.path, tmp_path / "reference").path
    weights = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    names = sorted(weights)

    def save(**files: object) -> Path:
        for old in [*made.path.glob("*.safetensors"), *made.path.glob("pytorch_model*")]:
            old.unlink()
        for name, content in files.items():
            torch.save(content, made.path / name.replace("__", "."), _use_new_zipfile_serialization=name != "old__bin")
        return made.path

    save(pytorch_model__bin=weights)
    assert same_weights(import_folder(made.path, tmp_path / "zipped").path, reference)

    save(old__bin=weights)
    (made.path / "old.bin").rename(made.path / "pytorch_model.bin")
    assert not (made.path / "pytorch_model.bin").read_bytes().startswith(b"PK")
    assert same_weights(import_folder(made.path, tmp_path / "old").path, reference)

    halves = {"first__bin": names[::2], "second__bin": names[1::2]}  # q, k and v of one layer in different files
    save(**{file: {name: weights[name] for name in part} for file, part in halves.items()})
    index = {name: file.replace("__", ".") for file, part in halves.items() for name in part}
    (made.path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    assert same_weights(import_folder(made.path, tmp_path / "halves").path, reference)


def test_safetensors_shards_give_the_same_checkpoint(make_folder: Any, sharded: Path, tmp_path: Path) -> None:
    whole = make_folder("llama3", folder="whole").path
    assert len(open_weights(sharded).files) >= 3
    first, second = import_folder(sharded, tmp_path / "a").path, import_folder(whole, tmp_path / "b").path
    assert same_weights(first, second)
    assert (second / "config.json").read_bytes() == (whole / "config.json").read_bytes()
    assert "config.json" in json.loads((second / "checksums.json").read_text())


def test_a_folder_saved_without_the_output_layer_and_its_prefix_is_imported(make_folder: Any, tmp_path: Path) -> None:
    made = make_folder("gpt2")
    full = import_folder(made.path, tmp_path / "full").path
    config = (made.path / "config.json").read_bytes()
    made.model.transformer.save_pretrained(made.path)
    (made.path / "config.json").write_bytes(config)
    assert "h.0.ln_1.weight" in open_weights(made.path).tensors
    assert same_weights(import_folder(made.path, tmp_path / "base").path, full)


def test_buffers_of_old_versions_are_ignored(make_folder: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made = make_folder("gpt2")
    file = made.path / "model.safetensors"
    weights = load_file(file) | {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8)}
    full = import_folder(made.path, tmp_path / "full").path
    save_file(weights, file, metadata={"format": "pt"})
    assert same_weights(import_folder(made.path, tmp_path / "with").path, full)


def test_16_bit_weights_keep_their_bits(make_folder: Any, tmp_path: Path) -> None:
    made = make_folder("qwen3")
    made.model.to(torch.bfloat16).save_pretrained(made.path)
    ours = import_folder(made.path, tmp_path / "ours").path
    weights = checkpoint.load_weights(ours)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert torch.equal(weights["transformer.wte.weight"], made.model.state_dict()["model.embed_tokens.weight"])
    assert json.loads((export_directory(ours, tmp_path / "out").path / "config.json").read_text())["torch_dtype"] == (
        "bfloat16"
    )


def test_an_output_layer_stored_alongside_a_tied_embedding_is_kept_if_it_differs(
    make_folder: Any, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    made = make_folder("qwen3")
    file = made.path / "model.safetensors"
    weights = load_file(file)
    assert "lm_head.weight" not in weights
    for name, factor in (("equal", 1.0), ("other", 2.0)):
        save_file(
            weights | {"lm_head.weight": weights["model.embed_tokens.weight"] * factor}, file, metadata={"format": "pt"}
        )
        assert checkpoint.is_tied(import_folder(made.path, tmp_path / name).path) == (factor == 1.0)


# --- refusals: the first bad file is named


def test_missing_files_are_reported(whole: Path, refused: Any, tmp_path: Path) -> None:
    assert "nowhere is not a folder" in refused(tmp_path / "nowhere")
    (whole / "model.safetensors").rename(whole / "elsewhere.safetensors")
    assert "has no weights" in refused(whole) and "elsewhere.safetensors" in refused(whole)
    (whole / "config.json").unlink()
    assert "config.json is missing" in refused(whole)


def test_invalid_json_is_reported(whole: Path, refused: Any) -> None:
    text = (whole / "config.json").read_text()
    (whole / "config.json").write_text(text[: len(text) // 2])
    assert "config.json cannot be read as JSON" in refused(whole)
    (whole / "config.json").write_text("[]")
    assert "config.json holds a list" in refused(whole)


def test_unknown_and_unsupported_architectures_are_refused(whole: Path, refused: Any) -> None:
    config = whole / "config.json"
    original = config.read_text()
    edit_json(config, model_type="qwen33")
    message = refused(whole)
    assert "'qwen33', which is unknown" in message and "the closest is qwen3" in message and "gpt_neox" in message
    for changes, words in (
        ({"architectures": ["LlamaForSequenceClassification"]}, "needed: a language model"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"quantization_config": {"quant_method": "hqq", "bits": 4}}, "quantised by hqq"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "by 'yarn'"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers='two'"),
        ({"num_attention_heads": 3}, "cannot be built"),
        ({"hidden_size": None}, "has no hidden_size"),
    ):
        config.write_text(original)
        edit_json(config, **changes)
        assert words in refused(whole)


def test_truncated_files_are_detected_before_reading(whole: Path, refused: Any) -> None:
    file = whole / "model.safetensors"
    data = file.read_bytes()
    for length in (0, 5, 8, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        message = refused(whole)
        assert "model.safetensors" in message and "truncated or corrupted" in message
    file.write_bytes(data + b"\0")
    assert "truncated or corrupted" in refused(whole)
    file.write_bytes(data[:8] + b"{" * 50 + data[58:])
    assert "not JSON" in refused(whole)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    message = refused(whole)
    assert "Git LFS pointer" in message and "git lfs pull" in message


def test_a_truncated_torch_file_is_refused(make_folder: Any, refused: Any) -> None:
    made = make_folder("llama3")
    (made.path / "model.safetensors").unlink()
    file = made.path / "pytorch_model.bin"
    for zipped in (True, False):
        torch.save(made.model.state_dict(), file, _use_new_zipfile_serialization=zipped)
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        assert "pytorch_model.bin" in refused(made.path)
    torch.save({"model": print}, file)
    assert "run code" in refused(made.path)


def test_shards_and_their_index(sharded: Path, refused: Any) -> None:
    index = sharded / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    second = sorted(set(places.values()))[1]
    data = (sharded / second).read_bytes()
    (sharded / second).write_bytes(data[:-4])
    assert f"{second} (" in refused(sharded) and "truncated" in refused(sharded)
    (sharded / second).unlink()
    assert f"{second} is missing" in refused(sharded)
    (sharded / second).write_bytes(data)
    edit_json(index, weight_map={**places, "model.layers.9.mlp.up_proj.weight": second})
    assert f"lists model.layers.9.mlp.up_proj.weight in {second}, which does not have it" in refused(sharded)
    edit_json(index, weight_map={name: place for name, place in places.items() if "layers.1.mlp.up" not in name})
    assert "model.layers.1.mlp.up_proj.weight is missing" in refused(sharded)
    edit_json(index, weight_map={**places, "x": "../../outside.safetensors"})
    assert "plain file names" in refused(sharded)
    edit_json(index, weight_map=3)
    assert "weight_map" in refused(sharded)


def test_wrong_shapes_and_unknown_weights_are_refused(whole: Path, refused: Any) -> None:
    from safetensors.torch import load_file, save_file

    file = whole / "model.safetensors"
    weights = load_file(file)
    edit_json(whole / "config.json", vocab_size=400)
    assert "model.embed_tokens.weight in" in refused(whole) and "[320, 64]; by config.json it has [400, 64]" in (
        refused(whole)
    )
    edit_json(whole / "config.json", vocab_size=320)
    save_file(weights | {"model.layers.0.extra.weight": torch.ones(2)}, file, metadata={"format": "pt"})
    assert "model.layers.0.extra.weight" in refused(whole)
    save_file({name: tensor.to(torch.float8_e4m3fn) for name, tensor in weights.items()}, file)
    assert "F8_E4M3" in refused(whole)


def test_only_our_own_product_is_replaced_and_only_with_force(whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="already exists"):
        import_folder(whole, target)
    with pytest.raises(CheckpointError, match=r"mine\.txt was not written by this project"):
        import_folder(whole, target, force=True)
    assert (target / "mine.txt").read_text() == "mine"
    (target / "mine.txt").unlink()
    ours = import_folder(whole, target, force=True).path
    checkpoint.verify(ours)
    assert import_folder(whole, target, force=True).path == ours
    with pytest.raises(CheckpointError, match="already exists"):
        export_directory(ours, whole)
    for source, place in ((whole, whole), (whole, whole.parent)):
        with pytest.raises(CheckpointError, match="contains the source"):
            import_folder(source, place, force=True)
    with pytest.raises(CheckpointError, match="contains the source"):
        export_directory(ours, ours, force=True)
    checkpoint.verify(ours)
    with pytest.raises(CheckpointError, match=r"config\.json was not written by this project"):
        export_directory(ours, whole, force=True)
    exported = tmp_path / "exported"
    for _ in range(2):
        export_directory(ours, exported, force=True)
        assert len(open_weights(exported).files) == 1
        checks = json.loads((exported / "checksums.json").read_text())
        assert set(checks) | {"checksums.json"} == {file.name for file in exported.iterdir()}
        assert checks["config.json"]["sha256"] == sha256_of(exported / "config.json")
