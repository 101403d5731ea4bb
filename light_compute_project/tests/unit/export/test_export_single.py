"""A model in one file: arrays that the libraries read alone, and a program for Python alone."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, save_directory
from litgpt_core.core.errors import CheckpointError, TokenizerError
from litgpt_core.export.parity import SAMPLE
from litgpt_core.export.single import arrays, python_file
from litgpt_core.export.single.arrays import export_arrays
from litgpt_core.export.single.python_file import export_python, modules_of
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Qwen 3 in bfloat16 with a SentencePiece tokenizer."""
    root = tmp_path_factory.mktemp("single")
    tokenizer = tokenizers.train(tokenizers.SubwordSettings(kind="sentencepiece", vocab_size=400), [SAMPLE * 3])
    tokenizer.save(root / "tokenizer")
    model = GPT(
        GPTConfig(
            name="Qwen3-tiny", block_size=64, n_layer=2, n_head=4, n_query_groups=2, n_embd=32, intermediate_size=64,
            vocab_size=400, padding_multiple=64, norm_class_name="RMSNorm", norm_qk=True, bias=False,
            parallel_residual=False, rotary_percentage=1.0, mlp_class_name="LLaMAMLP", tie_embeddings=True,
        )
    )  # fmt: skip
    initialize(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.2)
    return save_directory(
        root / "model", weights=model.bfloat16().state_dict(), config=model.config,
        tokenizer_dir=root / "tokenizer", hyperparameters={},
    )  # fmt: skip


def test_safetensors_alone_reads_the_file(checkpoint: Path, tmp_path: Path):
    from safetensors import safe_open

    made = export_arrays(checkpoint, tmp_path / "m.safetensors", format="safetensors")
    assert made.parity is not None
    assert made.parity.max_logit_delta == 0
    with safe_open(made.path, framework="pt") as opened:
        metadata = opened.metadata()
        found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    assert base64.b64decode(metadata["tokenizer.model"]) == (checkpoint / "tokenizer.model").read_bytes()
    for name, tensor in load_model(checkpoint).state_dict().items():
        assert torch.equal(found[name], tensor)


def test_numpy_alone_reads_the_file(checkpoint: Path, tmp_path: Path):
    made = export_arrays(checkpoint, tmp_path / "m.npz", format="npz")
    with np.load(made.path, allow_pickle=False) as found:
        assert found["files/model_config.yaml"].tobytes() == (checkpoint / "model_config.yaml").read_bytes()
        for name, tensor in load_model(checkpoint).state_dict().items():
            assert np.array_equal(found[name], tensor.float().numpy())


def test_json_holds_every_digit(checkpoint: Path, tmp_path: Path):
    made = export_arrays(checkpoint, tmp_path / "m.json", format="json")
    content = json.loads(made.path.read_text())
    for name, tensor in load_model(checkpoint).state_dict().items():
        assert content["weights"][name]["shape"] == list(tensor.shape)
        assert content["weights"][name]["values"] == tensor.double().flatten().tolist()
    assert base64.b64decode(content["files"]["model_config.yaml"]) == (checkpoint / "model_config.yaml").read_bytes()


def test_a_file_with_another_number_is_not_kept(checkpoint: Path, tmp_path: Path, monkeypatch):
    write, read, reader = arrays._FORMATS["npz"]

    def damaged(path: Path):
        found = read(path)
        found["transformer.ln_f.weight"][3] += 1
        return found

    monkeypatch.setitem(arrays._FORMATS, "npz", (write, damaged, reader))
    with pytest.raises(CheckpointError, match=r"transformer\.ln_f\.weight"):
        export_arrays(checkpoint, tmp_path / "m.npz", format="npz")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_not_replaced(checkpoint: Path, tmp_path: Path):
    (tmp_path / "m.json").write_text('{"my": "notes"}')
    with pytest.raises(CheckpointError, match="already exists"):
        export_arrays(checkpoint, tmp_path / "m.json", format="json")
    with pytest.raises(CheckpointError, match="not overwritten"):
        export_arrays(checkpoint, tmp_path / "m.json", format="json", force=True)
    assert (tmp_path / "m.json").read_text() == '{"my": "notes"}'


# --- one Python file


def test_the_file_prints_what_the_engine_prints(checkpoint: Path, tmp_path: Path):
    """The export runs it with `python -I -S` in an empty folder and compares; here its own options."""
    made = export_python(checkpoint, tmp_path / "m.py")
    assert made.parity is not None
    assert (made.parity.greedy_equal, made.parity.tokens) == (24, 24)
    assert made.parity.max_logit_delta < 1e-4
    packed = made.path.read_text().partition("FILES = {")[2]
    assert max(map(len, packed.splitlines())) <= 98
    command = [sys.executable, "-I", "-S", str(made.path), "The ships", "--max_new_tokens", "5", "--temperature", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("The ships")
    assert len(done.stdout) > len("The ships\n")


def test_the_file_imports_nothing_but_the_standard_library():
    import ast

    found = modules_of("litgpt_core.export.single.python_main")
    assert "litgpt_core.pure.gpt" in found
    for source in found.values():
        for node in ast.parse(source).body:  # not inside functions: parsing.py has PyYAML, for YAML files alone
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in {"litgpt_core", "_typeshed", *sys.stdlib_module_names}, name
                assert top != "litgpt_core" or name in found, name  # _typeshed: for types alone


def test_a_file_that_prints_something_else_is_not_kept(checkpoint: Path, tmp_path: Path, monkeypatch):
    tail = python_file._TAIL.replace("main(FILES)", 'main(FILES, ["Another"])')
    monkeypatch.setattr(python_file, "_TAIL", tail)
    with pytest.raises(CheckpointError, match="prints"):
        export_python(checkpoint, tmp_path / "m.py")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_needs_a_library_is_refused(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (folder / "checksums.json").unlink()
    with pytest.raises(TokenizerError, match="foreign"):
        export_python(folder, tmp_path / "m.py")
