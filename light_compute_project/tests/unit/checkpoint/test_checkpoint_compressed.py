"""Compressed checkpoint directories: read as any other, complete or not at all, and never silently changed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from litgpt_core import checkpoint
from litgpt_core.checkpoint.compressed import CompressedCheckpoint, read_compressed, save_compressed
from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix, LowRankMatrix, SparseMatrix
from litgpt_core.core.errors import CheckpointError
from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.grid import Grid
from litgpt_core.model.init import initialize
from litgpt_core.model.low_rank import LowRankLinear
from litgpt_core.model.quantized import QuantLinear
from litgpt_core.model.sparse import pack_sparse

CONFIG = GPTConfig(name="tiny", n_layer=1, n_head=2, n_embd=32, block_size=16, vocab_size=20, padding_multiple=4)


def integers(weight: torch.Tensor, bits: int) -> IntegerMatrix:
    kind = Grid(bits)
    scales = grid.stored_scales(kind.absmax_scales(grid.grouped(weight)))
    codes = kind.codes(grid.grouped(weight), scales).flatten(-2)
    return IntegerMatrix(*grid.pack(codes, scales, stored_bits=bits), rows=weight.size(0))


def content(*, tied: bool) -> CompressedCheckpoint:
    """Every kind of matrix in one model."""
    model = GPT(CONFIG)
    initialize(model, seed=0)
    weights = model.state_dict()
    sparse = weights["transformer.h.0.mlp.fc.weight"].view(-1, 4).clone()
    sparse[:, 1::2] = 0
    matrices = {
        "lm_head": integers(weights["lm_head.weight"], 8),
        "transformer.h.0.attn.qkv": integers(weights["transformer.h.0.attn.qkv.weight"], 4),
        "transformer.h.0.attn.proj": LowRankMatrix(torch.randn(4, 32), torch.randn(32, 4)),
        "transformer.h.0.mlp.fc": SparseMatrix(*pack_sparse(sparse.view(-1, 32), n=2, m=4), 2, 4),
    }
    gone = {f"{path}.weight" for path in matrices} | ({"transformer.wte.weight"} if tied else set())
    others = {name: value for name, value in weights.items() if name not in gone}
    return CompressedCheckpoint(matrices=matrices, others=others, tied=tied, record={"recipe": "test"})


@pytest.fixture
def directory(tmp_path: Path, tokenizer_dir: Path) -> Path:
    options = {"config": CONFIG, "tokenizer_dir": tokenizer_dir, "hyperparameters": {}}
    return save_compressed(tmp_path / "small", content(tied=True), **options)


def changed(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def test_the_model_computes_with_the_stored_matrices(directory):
    model, weights = checkpoint.load_model(directory), checkpoint.load_weights(directory)
    kinds = [model.get_submodule(f"transformer.h.0.{name}") for name in ("attn.qkv", "attn.proj", "mlp.fc", "mlp.proj")]
    assert [type(kind) for kind in kinds] == [QuantLinear, LowRankLinear, torch.nn.Linear, torch.nn.Linear]
    assert model.lm_head.matrix is model.transformer.wte.matrix
    plain = GPT(CONFIG).eval()
    plain.load_state_dict(weights)
    for module in model.modules():
        if isinstance(module, QuantLinear):
            module.int8_activations = False
    ids = torch.tensor([[1, 2, 3, 19]])
    assert torch.allclose(model(ids), plain(ids), atol=1e-5)
    dense = checkpoint.load_model(directory, dequantize=True)
    assert torch.equal(dense(ids), plain(ids)) and checkpoint.is_tied(directory)


def test_a_written_directory_is_read_back_bit_for_bit(directory):
    before, after = content(tied=True), read_compressed(directory)
    assert after.record["recipe"] == "test" and after.tied and after.matrices.keys() == before.matrices.keys()
    for path in ("lm_head", "transformer.h.0.attn.qkv", "transformer.h.0.mlp.fc"):
        for name, tensor in before.matrices[path].tensors().items():
            assert torch.equal(after.matrices[path].tensors()[name], tensor)
    assert after.others.keys() == before.others.keys()


def test_codes_begin_at_cache_lines_and_are_read_as_safetensors_reads_them(directory):
    from safetensors.torch import load_file

    read, expected = read_compressed(directory), load_file(directory / "compressed.safetensors")
    for path, matrix in read.matrices.items():
        for name, tensor in matrix.tensors().items():
            assert torch.equal(tensor, expected[f"{path}.{name}"])
            assert name != "codes" or tensor.data_ptr() % 64 == 0
    assert all(torch.equal(value, expected[name]) for name, value in read.others.items())


def test_an_untied_head_and_the_embedding_are_two_matrices(tmp_path, tokenizer_dir):
    options = {"config": CONFIG, "tokenizer_dir": tokenizer_dir, "hyperparameters": {}}
    model = checkpoint.load_model(save_compressed(tmp_path / "small", content(tied=False), **options))
    assert isinstance(model.lm_head, QuantLinear) and isinstance(model.transformer.wte, torch.nn.Embedding)
    assert model(torch.tensor([[1, 2]])).isfinite().all()


def test_it_is_found_verified_and_resolved_as_a_checkpoint(directory):
    assert checkpoint.resolve(directory) == directory == checkpoint.resolve(directory / "compressed.safetensors")
    checkpoint.verify(directory)
    found = checkpoint.discover([directory.parent])
    assert [model.directory for model in found.models] == [directory] and found.models[0].n_bytes > 0


def test_litgpt_finds_no_weights_unless_they_were_requested(directory, tmp_path, tokenizer_dir):
    assert not (directory / "lit_model.pth").exists()
    options = {"config": CONFIG, "tokenizer_dir": tokenizer_dir, "hyperparameters": {}}
    both = save_compressed(tmp_path / "both", content(tied=True), with_dequantized=True, **options)
    plain = torch.load(both / "lit_model.pth", weights_only=True)
    assert plain.keys() == GPT(CONFIG).state_dict().keys()
    assert isinstance(checkpoint.load_model(both).lm_head, QuantLinear)


def test_every_changed_byte_is_noticed(directory):
    file = directory / "compressed.safetensors"
    original = file.read_bytes()
    for at in (0, 9, len(original) // 2, len(original) - 1):
        changed(file, at)
        with pytest.raises(CheckpointError, match="has changed"):
            checkpoint.load_model(directory)
        file.write_bytes(original)
    file.write_bytes(original[:-1])
    with pytest.raises(CheckpointError, match="bytes"):
        checkpoint.load_model(directory)


def rewrite(directory: Path, **changes: object) -> None:
    description = yaml.safe_load((directory / "compression.yaml").read_text()) | changes
    (directory / "compression.yaml").write_text(yaml.safe_dump(description))
    (directory / "checksums.json").unlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has format 2"),
        ({"matrices": {"lm_head": {"kind": "integer", "rows": 21}}}, r"lm_head in .* has shape \(21, 32\)"),
        ({"matrices": {"lm_head": {"kind": "sparse", "n": 2, "m": 4}}}, "do not fit"),
        ({"matrices": {"lm_head": {"kind": "unknown"}}}, "do not fit"),
    ],
)
def test_a_newer_format_and_a_wrong_description_are_refused(directory, changes, message):
    rewrite(directory, **changes)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load_model(directory)


def test_without_its_description_it_is_incomplete(directory):
    (directory / "compression.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"compression\.yaml is missing"):
        checkpoint.verify(directory, full=False)


def test_a_failed_write_leaves_what_was_there(directory, tokenizer_dir, monkeypatch):
    before = json.loads((directory / "checksums.json").read_text())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("litgpt_core.checkpoint.compressed._write_tensors", full)
    options = {"config": CONFIG, "tokenizer_dir": tokenizer_dir, "hyperparameters": {}}
    with pytest.raises(CheckpointError, match="No space left"):
        save_compressed(directory, content(tied=True), **options)
    assert json.loads((directory / "checksums.json").read_text()) == before
    assert not [path for path in directory.parent.iterdir() if path.name.startswith(".")]
    checkpoint.load_model(directory)


def test_a_copy_is_complete(directory, tmp_path):
    checkpoint.load_model(Path(shutil.copytree(directory, tmp_path / "copy")))
