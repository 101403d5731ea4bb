"""A model of every architecture as a GGUF file and back; llama.cpp computes the same, where it is installed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, save_directory
from litgpt_core.checkpoint.load import EMBEDDING, OUTPUT
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.export.gguf import checking, exporting, llama_cpp
from litgpt_core.export.gguf.architecture import Architecture
from litgpt_core.export.gguf.choosing import choose
from litgpt_core.export.gguf.exporting import export_gguf
from litgpt_core.export.gguf.header import read_gguf
from litgpt_core.export.gguf.importing import import_gguf
from litgpt_core.export.huggingface.families import different_settings
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

_PLAIN: dict[str, Any] = {
    "block_size": 96,
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 64,
    "intermediate_size": 96,
    "vocab_size": 256,
    "padding_multiple": 96,  # 288 rows: more than ids
}
_LLAMA: dict[str, Any] = {
    **_PLAIN,
    "norm_class_name": "RMSNorm",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
    "mlp_class_name": "LLaMAMLP",
    "n_query_groups": 2,
}
_EXPERTS = {"mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2}
_GEMMA: dict[str, Any] = {
    **_LLAMA,
    "mlp_class_name": "GemmaMLP",
    "gelu_approximate": "tanh",
    "scale_embeddings": True,
    "tie_embeddings": True,
    "head_size": 32,
}
_LATER: dict[str, Any] = {
    **_GEMMA,
    "post_attention_norm": True,
    "post_mlp_norm": True,
    "sliding_window_size": 16,
    "attention_scores_scalar": 32,
}
_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_seq_len": 32}
_MARKS = [1, 1, 1, 1, 1, 0, 1]

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**_LLAMA}),
    "llama-tied": ("llama", {**_LLAMA, "n_query_groups": 4, "tie_embeddings": True, "rope_base": 500000}),
    "llama3": ("llama", {**_LLAMA, "rope_base": 500000, "rope_adjustments": _LLAMA3, "head_size": 32}),
    "llama-biased": ("llama", {**_LLAMA, "bias": True}),
    "llama-linear": ("llama", {**_LLAMA, "rope_condense_ratio": 4}),
    "mistral": ("llama", {**_LLAMA, "name": "Mistral", "sliding_window_size": 96}),
    "mixtral": ("llama", {**_LLAMA, **_EXPERTS}),
    "qwen2": ("qwen2", {**_LLAMA, "name": "Qwen2.5-tiny", "attn_bias": True}),
    "qwen3": ("qwen3", {**_LLAMA, "name": "Qwen3-tiny", "norm_qk": True, "head_size": 32, "tie_embeddings": True}),
    "qwen3moe": ("qwen3moe", {**_LLAMA, **_EXPERTS, "norm_qk": True, "moe_intermediate_size": 32}),
    "gpt2": (
        "gpt2",
        {**_PLAIN, "position_embedding": "learned", "parallel_residual": False, "gelu_approximate": "tanh"},
    ),
    "pythia": ("gptneox", {**_PLAIN, "tie_embeddings": True}),
    "neox-serial": ("gptneox", {**_PLAIN, "parallel_residual": False, "gelu_approximate": "tanh"}),
    "phi2": (
        "phi2",
        {**_PLAIN, "name": "phi-2", "shared_attention_norm": True, "lm_head_bias": True, "rotary_percentage": 0.5},
    ),
    "phi3": ("phi3", {**_LLAMA, "name": "Phi-3-tiny"}),
    "olmo2": (
        "olmo2",
        {
            **_LLAMA,
            "norm_1": False,
            "norm_2": False,
            "norm_qk": True,
            "norm_qk_type": "olmo2",
            "post_attention_norm": True,
            "post_mlp_norm": True,
        },
    ),
    "gemma": ("gemma", {**_GEMMA, "name": "Gemma-tiny"}),
    "gemma2": (
        "gemma2",
        {
            **_LATER,
            "name": "Gemma-2-tiny",
            "sliding_window_indices": [1, 0],
            "attention_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma3": (
        "gemma3",
        {
            **_LATER,
            "name": "Gemma-3-tiny",
            "n_layer": 7,
            "norm_qk": True,
            "sliding_window_indices": _MARKS,
            "rope_indices": _MARKS,
            "rope_local_base_freq": 10000.0,
            "rope_base": 1000000,
        },
    ),
}
"""Name -> (GGUF's architecture, settings)."""


def save_model(directory: Path, tokenizer: Path, **settings: Any) -> Path:
    """A checkpoint directory with random weights, far enough from zero to matter; in bfloat16's numbers, as float32."""
    model = GPT(GPTConfig(**settings))
    initialize(model, seed=2)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
            parameter.copy_(parameter.bfloat16().float())
    return save_directory(
        directory, weights=model.state_dict(), config=model.config, tokenizer_dir=tokenizer, hyperparameters={}
    )


needs_llama_cpp = pytest.mark.skipif(llama_cpp.reader_name() is None, reason="xllamacpp (llama.cpp) is not installed")


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    tokenizers.train(tokenizers.ByteSettings(), []).save(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", SHAPES)
def test_out_and_in_again_is_the_same_model(name: str, tmp_path: Path, byte_tokenizer: Path):
    """Bit for bit, and equal to llama.cpp's results within its tolerance, or `export_gguf` would have raised."""
    architecture, settings = SHAPES[name]
    ours = save_model(tmp_path / "ours", byte_tokenizer, **settings)
    made = export_gguf(ours, tmp_path / "model.gguf", type="f32")
    assert made.architecture == architecture
    assert made.parity is not None
    assert made.parity.kl < 1e-9
    if made.parity.reader:
        assert (made.parity.ids_equal, made.parity.greedy_equal) == (made.parity.texts, made.parity.tokens)
        silu = settings.get("mlp_class_name") in ("LLaMAMLP", "LLaMAMoE")
        assert made.parity.max_delta is not None
        assert made.parity.max_delta < (2e-5 if silu else 5e-3)  # GELU is a table of float16 in llama.cpp
    import_gguf(made.path, tmp_path / "back")
    before, after = load_model(ours), load_model(tmp_path / "back")
    rows = {"vocab_size": 256, "padded_vocab_size": 256}
    assert different_settings(dataclasses.replace(before.config, **rows), after.config) == [] or name == "mistral"
    back = after.state_dict()
    for key, tensor in before.state_dict().items():
        expected = tensor[:256] if key in (EMBEDDING, OUTPUT, "lm_head.bias") else tensor
        rounding = 2**-24 if ("gemma" in name and "norm" in key) or "ln_f" in key else 0  # 1 + weight, in float32
        assert (back[key].float() - expected).abs().max() <= rounding, key


@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_every_type_is_as_large_and_as_exact_as_it_says(type: str, tmp_path: Path, byte_tokenizer: Path):
    ours = save_model(tmp_path / "ours", byte_tokenizer, **SHAPES["llama"][1])
    made = export_gguf(ours, tmp_path / "model.gguf", type=type)
    stored = {tensor.name: tensor.type.name for tensor in read_gguf(made.path).tensors.values()}
    assert stored["blk.0.attn_q.weight"] == made.type == type.upper()
    assert stored["blk.0.attn_norm.weight"] == "F32"
    assert stored["token_embd.weight"] == ("Q8_0" if type[:2] in ("q4", "q5") else type.upper())
    assert made.parity is not None
    limits = {"f16": 1e-6, "bf16": 1e-12, "q8_0": 1e-3, "q5_1": 1e-2, "q5_0": 1e-2, "q4_1": 4e-2, "q4_0": 4e-2}
    assert 0 <= made.parity.kl < limits[type]
    record = json.loads((tmp_path / "model.gguf.parity.json").read_text())
    assert record["kl"] == made.parity.kl
    assert record["format"] == "gguf"


def test_rows_that_fill_no_block_are_stored_as_f16(tmp_path: Path, byte_tokenizer: Path):
    settings = {**SHAPES["llama"][1], "intermediate_size": 100}
    made = export_gguf(save_model(tmp_path / "ours", byte_tokenizer, **settings), tmp_path / "m.gguf", type="q8_0")
    assert made.other_types == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")


def test_packed_tensors_are_written_as_they_are(tmp_path: Path, byte_tokenizer: Path):
    ours = save_model(tmp_path / "ours", byte_tokenizer, **SHAPES["llama"][1])
    made = export_gguf(ours, tmp_path / "a.gguf", type="q4_0", check=False)
    file = read_gguf(made.path)
    packed = {each.name: (each.type, file.raw(each)) for each in file.tensors.values() if each.type.name == "Q4_0"}
    again = export_gguf(ours, tmp_path / "b.gguf", type="f32", packed=packed)
    other = read_gguf(again.path)
    assert packed
    for name, (_, data) in packed.items():
        assert other.raw(other.tensors[name]).tobytes() == data.tobytes()


@needs_llama_cpp
@pytest.mark.parametrize(
    ("name", "mutation"),
    [("llama", "permutation"), ("gemma", "norms"), ("llama3", "rope"), ("qwen3", "epsilon"), ("gemma3", "window")],
)
def test_a_wrong_file_is_noticed(name: str, mutation: str, tmp_path: Path, byte_tokenizer: Path, monkeypatch):
    """Both our reader and our writer are broken in the same way: only llama.cpp can notice."""
    ours = save_model(tmp_path / "ours", byte_tokenizer, **SHAPES[name][1])
    if mutation == "permutation":
        monkeypatch.setattr(Architecture, "_heads", lambda *given: None)
    elif mutation == "norms":
        monkeypatch.setattr(Architecture, "_has_offset", lambda *given: False)
    elif mutation == "rope":
        monkeypatch.setattr(exporting, "has_divisors", lambda config: False)
        monkeypatch.setattr(checking, "read_model", lambda file: load_model(ours, dtype=torch.float32))
    else:
        written = Architecture.__dict__.get("write")
        assert written is None  # a field of each architecture
        key, value = {
            "epsilon": ("qwen3.attention.layer_norm_rms_epsilon", 0.5),
            "window": ("gemma3.attention.sliding_window", 3),
        }[mutation]
        write = exporting.write_gguf
        monkeypatch.setattr(
            exporting, "write_gguf", lambda path, metadata, tensors: write(path, {**metadata, key: value}, tensors)
        )
        monkeypatch.setattr(checking, "read_model", lambda file: load_model(ours, dtype=torch.float32))
    with pytest.raises(CheckpointError, match=r"llama\.cpp"):
        export_gguf(ours, tmp_path / "model.gguf", type="f32")
    assert not (tmp_path / "model.gguf").exists()


def test_a_file_that_reads_back_differently_is_not_kept(tmp_path: Path, byte_tokenizer: Path, monkeypatch):
    ours = save_model(tmp_path / "ours", byte_tokenizer, **SHAPES["llama"][1])
    monkeypatch.setattr(exporting, "quantize", lambda values, kind: checking_noise(values))
    with pytest.raises(CheckpointError, match="read back"):
        export_gguf(ours, tmp_path / "model.gguf", type="f32")
    assert list(tmp_path.iterdir()) == [ours]


def checking_noise(values):
    """The bytes of other weights."""
    return (values + 0.2 * (values > 0)).astype("<f4").reshape(-1).view("u1")


def test_layer_norms_without_biases_are_no_llama():
    """The blocks of `model=reference`: GPT-NeoX's with biases of zero."""
    sizes = {**_PLAIN, "bias": False, "parallel_residual": False, "rotary_percentage": 1.0, "tie_embeddings": True}
    architecture, config = choose(GPTConfig(**sizes))
    assert architecture.model_type == "gptneox" and config.bias


def test_what_gguf_cannot_say_is_refused_with_its_name(tmp_path: Path, byte_tokenizer: Path):
    settings = {**SHAPES["llama"][1], "sliding_window_size": 16}
    with pytest.raises(CheckpointError, match="sliding_window_size"):
        export_gguf(save_model(tmp_path / "ours", byte_tokenizer, **settings), tmp_path / "m.gguf")


def test_k_quants_are_left_to_llama_cpps_own_tool(tmp_path: Path, byte_tokenizer: Path):
    ours = save_model(tmp_path / "ours", byte_tokenizer, **SHAPES["llama"][1])
    with pytest.raises(ConfigError, match="llama-quantize"):
        export_gguf(ours, tmp_path / "m.gguf", type="q4_k_m")
    with pytest.raises(ConfigError, match="q8_0"):
        export_gguf(ours, tmp_path / "m.gguf", type="q9")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"general.architecture": "mamba"}, "mamba"),
        ({"llama.block_count": 3}, r"blk\.2"),
        ({"llama.block_count": None}, "block_count"),
        ({"llama.rope.scaling.type": "yarn"}, "yarn"),
        ({"llama.attention.head_count": "four"}, "head_count"),
        ({"split.count": 2}, "one of 2 files"),
        ({"llama.embedding_length": 128}, "shape"),
        ({"tokenizer.ggml.model": "t5"}, "t5"),
        ({"tokenizer.ggml.pre": "tekken"}, "tekken"),
        ({"tokenizer.ggml.tokens": None}, "tokens"),
        ({"tokenizer.ggml.tokens": ["a"] * 256}, "twice"),
        ({"tokenizer.ggml.eos_token_id": 999}, "999"),
        ({"tokenizer.ggml.merges": ["q zz"]}, "merges"),
        ({"tokenizer.ggml.token_type": [1] * 3}, "types"),
    ],
    ids=str,
)
def test_a_file_that_contradicts_itself_is_refused(change, said, tmp_path: Path, byte_tokenizer: Path, monkeypatch):
    ours = save_model(tmp_path / "ours", byte_tokenizer, **SHAPES["llama"][1])
    write = exporting.write_gguf

    def changed(path, metadata, tensors):
        merged = {key: value for key, value in {**metadata, **change}.items() if value is not None}
        return write(path, merged, tensors)

    monkeypatch.setattr(exporting, "write_gguf", changed)
    export_gguf(ours, tmp_path / "m.gguf", check=False)
    with pytest.raises(Exception, match=said) as caught:
        import_gguf(tmp_path / "m.gguf", tmp_path / "back")
    assert type(caught.value).__name__ in ("CheckpointError", "TokenizerError")
    assert not (tmp_path / "back").exists()
