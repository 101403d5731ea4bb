"""ONNX: every family against torch through onnxruntime, integers, names, layouts, refusals, wrong graphs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from litgpt_core.checkpoint import load_model
from litgpt_core.checkpoint.compressed import CompressedCheckpoint, save_compressed
from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.core.errors import CheckpointError, ConfigError, EnvironmentProblem
from litgpt_core.export.blocks import blocks_of
from litgpt_core.export.onnx import graph as graph_module
from litgpt_core.export.onnx import matrices, step
from litgpt_core.export.onnx.checking import ROUNDED, TOLERANCE, Runner
from litgpt_core.export.onnx.exporting import export_onnx
from litgpt_core.export.onnx.matrices import packed
from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.structure import structure

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LLAMA: dict[str, Any] = {
    "n_layer": 2, "n_head": 4, "n_embd": 64, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 96, "bias": False, "parallel_residual": False, "rotary_percentage": 1.0,
}  # fmt: skip
GEMMA = {**LLAMA, "mlp_class_name": "GemmaMLP", "gelu_approximate": "tanh", "scale_embeddings": True, "head_size": 16}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_seq_len": 32}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3, tied, as the baseline": {**LLAMA, "norm_qk": True, "norm_eps": 1e-6, "tie_embeddings": True},
    "llama 3, groups": {**LLAMA, "n_query_groups": 2, "head_size": 32, "rope_adjustments": LLAMA3},
    "qwen2, biases in q, k, v": {**LLAMA, "attn_bias": True, "n_query_groups": 1},
    "mistral, window": {**LLAMA, "sliding_window_size": 8},
    "condensed positions": {**LLAMA, "rope_condense_ratio": 4},
    "gpt2": {"n_layer": 2, "n_head": 4, "n_embd": 64, "parallel_residual": False, "gelu_approximate": "tanh",
             "position_embedding": "learned", "tie_embeddings": True},
    "gpt-neox": {"n_layer": 2, "n_head": 4, "n_embd": 64, "rotary_percentage": 0.25, "bias": True},
    "phi": {"n_layer": 2, "n_head": 4, "n_embd": 64, "rotary_percentage": 0.5, "bias": True, "lm_head_bias": True,
            "shared_attention_norm": True, "gelu_approximate": "tanh"},
    "gemma 2": {**GEMMA, "name": "Gemma-2-x", "post_attention_norm": True, "post_mlp_norm": True,
                "attention_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "tie_embeddings": True,
                "sliding_window_size": 8, "sliding_window_indices": [1, 0], "attention_scores_scalar": 24},
    "gemma 3": {**GEMMA, "name": "Gemma-3-x", "post_attention_norm": True, "post_mlp_norm": True, "norm_qk": True,
                "tie_embeddings": True, "sliding_window_size": 8, "sliding_window_indices": [1, 0],
                "rope_base": 1000000, "rope_local_base_freq": 10000.0, "rope_indices": [1, 0]},
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_computes_the_same(name: str, save_ours: Any, tmp_path: Path) -> None:
    """Prefill, decoding with the cache, and a left-padded batch: compared by the export itself."""
    made = export_onnx(save_ours(**MODELS[name]), tmp_path / "out")
    assert made.parity is not None and made.parity.max_delta is not None
    assert made.parity.max_delta <= TOLERANCE / 3
    assert (made.parity.greedy_equal, made.parity.tokens) == (24, 24)
    assert made.parity.max_logit_delta == 0


def test_names_sizes_and_files_are_those_that_other_programs_expect(save_ours: Any, tmp_path: Path) -> None:
    ours = save_ours(**MODELS["llama 3, groups"])
    made = export_onnx(ours, tmp_path / "out")
    files = {each.relative_to(made.path).as_posix() for each in made.path.rglob("*") if each.is_file()}
    assert files == {
        "config.json", "genai_config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "onnx/model.onnx", "onnx/model.onnx.parity.json", "checksums.json",
    }  # fmt: skip
    graph = onnx.load(made.path / "onnx" / "model.onnx").graph

    def sizes(values: Any) -> dict[str, list[Any]]:
        return {each.name: [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim] for each in values}

    past = {f"past_key_values.{n}.{part}": ["batch", 2, "past", 32] for n in (0, 1) for part in ("key", "value")}
    ids = {"input_ids": ["batch", "length"], "position_ids": ["batch", "length"]}
    assert sizes(graph.input) == {**ids, "attention_mask": ["batch", "total"], **past}
    present = {f"present.{n}.{part}": ["batch", 2, "total", 32] for n in (0, 1) for part in ("key", "value")}
    assert sizes(graph.output) == {"logits": ["batch", "length", 300], **present}
    config = json.loads((made.path / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"], config["num_key_value_heads"]) == ("llama", 300, 2)
    model = json.loads((made.path / "genai_config.json").read_text())["model"]
    assert (model["type"], model["vocab_size"], model["context_length"]) == ("llama", 300, 128)
    assert model["decoder"]["filename"] == "onnx/model.onnx"
    assert model["decoder"]["inputs"]["past_key_names"] == "past_key_values.%d.key"
    assert model["decoder"]["outputs"]["present_value_names"] == "present.%d.value"


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("name", ["qwen3, tied, as the baseline", "gpt2", "phi"])
def test_integers_are_multiplied_as_they_are_stored(name: str, kind: str, save_ours: Any, tmp_path: Path) -> None:
    ours = save_ours(**MODELS[name] | {"n_embd": 80, "intermediate_size": 88, "head_size": 20})  # no multiple of 32
    made = export_onnx(ours, tmp_path / "out", type=kind)
    plain = export_onnx(ours, tmp_path / "plain")
    assert made.parity is not None and made.parity.max_delta is not None
    assert TOLERANCE < made.parity.max_delta <= ROUNDED, "it rounds activations; without that, to 1e-4: in the export"
    assert made.parity.kl > 0
    assert made.n_bytes < {"int8": 0.55, "int4": 0.5}[kind] * plain.n_bytes
    assert (made.path / "onnx" / {"int8": "model_int8.onnx", "int4": "model_q4.onnx"}[kind]).is_file()
    if "tied" in name:
        stored = {each.name for each in onnx.load(next(made.path.glob("onnx/*.onnx"))).graph.initializer}
        assert not any(each.startswith("lm_head") for each in stored)


@pytest.mark.parametrize("kind", ["f32", "int8"])
def test_weights_above_the_limit_are_in_a_second_file(
    kind: str, save_ours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 GB is what one message holds; here the limit is lower."""
    ours = save_ours(**MODELS["qwen3, tied, as the baseline"])
    inside = export_onnx(ours, tmp_path / "inside", type=kind)
    monkeypatch.setattr(graph_module, "MOST_BYTES", 50_000)
    made = export_onnx(ours, tmp_path / "out", type=kind)
    file = next(made.path.glob("onnx/*.onnx"))
    data = file.with_name(f"{file.name}_data")
    assert {each.name for each in file.parent.iterdir()} == {file.name, data.name, f"{file.name}.parity.json"}
    assert made.parity is not None and inside.parity is not None
    assert (made.parity.max_delta, made.parity.kl) == (inside.parity.max_delta, inside.parity.kl)
    assert made.n_bytes == file.stat().st_size + data.stat().st_size
    assert file.stat().st_size < inside.n_bytes / 2
    external = [each for each in onnx.load(file, load_external_data=False).graph.initializer if each.external_data]
    assert external and all(int(each.external_data[1].value) % 4096 == 0 for each in external)
    ours_again, theirs = (
        {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
        for path in (file, next(inside.path.glob("onnx/*.onnx")))
    )
    assert ours_again.keys() == theirs.keys()
    assert all(np.array_equal(ours_again[name], theirs[name]) for name in theirs)
    known = json.loads((made.path / "config.json").read_text())["transformers.js_config"]
    assert known == {"use_external_data_format": {file.name: 1}}
    assert f"onnx/{data.name}" in json.loads((made.path / "checksums.json").read_text())


def test_integers_that_are_packed_otherwise_are_noticed(save_ours: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(matrices, "packed", lambda blocks: packed(blocks)[..., ::-1])
    with pytest.raises(CheckpointError, match="differ"):
        export_onnx(save_ours(**LLAMA), tmp_path / "out", type="int8")


def test_blocks_are_those_of_gguf() -> None:
    from litgpt_core.export.gguf.layout import TENSOR_TYPES
    from litgpt_core.export.gguf.quantization import dequantize, quantize

    weight = torch.randn(5, 96, generator=torch.Generator().manual_seed(1))
    kinds = {each.name: each for each in TENSOR_TYPES.values()}
    for bits, name in ((8, "Q8_0"), (4, "Q4_0")):
        blocks = blocks_of(weight, bits=bits)
        there = dequantize(quantize(weight.numpy(), kinds[name]), kinds[name], (5, 96))
        assert torch.equal(blocks.dequantized(), torch.from_numpy(there))
        codes = packed(blocks)
        low = codes if bits == 8 else codes & 15
        assert np.array_equal(low.astype(np.int16) - 2 ** (bits - 1), blocks.codes[..., :: 1 if bits == 8 else 2])


@pytest.fixture
def compressed(save_ours: Any, tokenizer_dir: Path, tmp_path: Path) -> Path:
    """A tied model with blocks of 4 bits and an embedding of 8, whose integers no rounding of its weights gives."""
    model = load_model(save_ours(**MODELS["qwen3, tied, as the baseline"]))
    generator, integers, others = torch.Generator().manual_seed(5), {}, dict(model.state_dict())
    for path, _ in structure(model.config).linears():
        rows, columns = others.pop(f"{path}.weight").shape
        bits, most = (8, 100) if path == "lm_head" else (4, 6)
        codes = torch.randint(-most, most + 1, (rows, columns), generator=generator)
        scales = 0.3 / most * (1 + torch.rand(rows, columns // 32, generator=generator))
        integers[path] = IntegerMatrix(*grid.pack(codes, scales, stored_bits=bits), rows=rows)
    del others["transformer.wte.weight"]
    content = CompressedCheckpoint(matrices=integers, others=others, tied=True, record={}, int8_activations=False)
    return save_compressed(
        tmp_path / "compressed", content, config=model.config, tokenizer_dir=tokenizer_dir, hyperparameters={}
    )


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_compressed_checkpoint_keeps_its_integers(kind: str, compressed: Path, tmp_path: Path) -> None:
    made = export_onnx(compressed, tmp_path / "out", type=kind)
    assert made.parity is not None and made.parity.max_delta is not None
    assert made.parity.max_logit_delta == 0 and made.parity.max_delta <= ROUNDED
    own = load_model(compressed).transformer.h[1].mlp.proj.matrix
    codes, _ = grid.unpack(own.codes, own.scales, outputs=own.rows)
    graph = onnx.load(next(made.path.glob("onnx/*.onnx"))).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    found = stored["transformer.h.1.mlp.proj.codes"]
    assert np.array_equal((found & 15).astype(np.int8) - 8, codes.reshape(64, -1, 32)[..., ::2].numpy())


def test_a_wrong_graph_is_not_kept(save_ours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the turning of queries, and with a mask that ignores padding: both are noticed."""
    ours = save_ours(**MODELS["qwen3, tied, as the baseline"])
    monkeypatch.setattr(step._Step, "_rotated", lambda self, x, table: x)
    with pytest.raises(CheckpointError, match="of a prefill differ"):
        export_onnx(ours, tmp_path / "out")
    monkeypatch.undo()
    before = step._Step._penalty

    def seen_by_all(self: Any, seen: str) -> str:
        node = self.graph._nodes[-1]
        return before(self, node.input[1])  # the causal part alone

    monkeypatch.setattr(step._Step, "_penalty", seen_by_all)
    with pytest.raises(CheckpointError, match=r"^[^;]*of a left-padded batch differ"):
        export_onnx(ours, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused_by_name(save_ours: Any, tmp_path: Path, monkeypatch: Any) -> None:
    experts = {**LLAMA, "mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2}
    with pytest.raises(CheckpointError, match="mixture of experts"):
        export_onnx(save_ours(**experts), tmp_path / "out")
    latent = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    with pytest.raises(CheckpointError, match="latent attention"):
        step.refuse_unsupported(GPTConfig(**LLAMA, latent_attention=latent))
    with pytest.raises(ConfigError, match="q4_0 is unknown"):
        export_onnx(tmp_path, tmp_path / "out", type="q4_0")
    monkeypatch.setitem(sys.modules, "onnx", None)  # importing it fails
    with pytest.raises(EnvironmentProblem, match="pip install onnx"):
        export_onnx(tmp_path, tmp_path / "out")


def test_a_folder_is_replaced_only_if_this_project_wrote_it(save_ours: Any, tmp_path: Path) -> None:
    ours = save_ours(**LLAMA)
    made = export_onnx(ours, tmp_path / "out", check=False)
    with pytest.raises(CheckpointError, match="already exists"):
        export_onnx(ours, tmp_path / "out", check=False)
    export_onnx(ours, tmp_path / "out", check=False, force=True)
    (made.path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        export_onnx(ours, tmp_path / "out", check=False, force=True)


def test_the_runner_grows_its_cache(save_ours: Any, tmp_path: Path) -> None:
    ours = save_ours(**MODELS["llama 3, groups"])
    made = export_onnx(ours, tmp_path / "out", check=False)
    runner = Runner(made.path / "onnx" / "model.onnx", load_model(ours).config)
    logits, past = runner([[1, 2, 3]], runner.empty(1))
    assert logits.shape == (1, 3, 300)
    assert past["past_key_values.1.value"].shape == (1, 2, 3, 32)
