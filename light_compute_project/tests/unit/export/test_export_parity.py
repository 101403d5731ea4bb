"""Logits and weights against transformers on random models, both ways, for every architecture that is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint
from litgpt_core.export.huggingface.exporting import export_directory
from litgpt_core.export.huggingface.importing import import_folder

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

TOLERANCE = 1e-5
"""Largest difference of a logit, relative to the largest logit, fp32."""

IN_AND_OUT = [
    "gpt2", "gpt2-untied", "llama3", "llama-tied-linear", "llama-biased", "mistral", "qwen2", "qwen2-windowed", "qwen3",
    "pythia", "neox-serial", "phi", "phi3", "gemma", "gemma2", "gemma3",
]  # fmt: skip

GPT2_LIKE = {"n_layer": 2, "n_head": 4, "n_embd": 64, "parallel_residual": False, "gelu_approximate": "tanh"}
LLAMA_LIKE = {
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 64,
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 96,
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "qk-norm, tied, as the baseline": (
        "Qwen3ForCausalLM",
        {**LLAMA_LIKE, "norm_qk": True, "norm_eps": 1e-6, "tie_embeddings": True},
    ),
    "grouped queries, untied": ("LlamaForCausalLM", {**LLAMA_LIKE, "n_query_groups": 2}),
    "condensed rope": ("LlamaForCausalLM", {**LLAMA_LIKE, "rope_condense_ratio": 4}),
    "sliding window": ("MistralForCausalLM", {**LLAMA_LIKE, "sliding_window_size": 16}),
    "some layers windowed": (
        "Qwen3ForCausalLM",
        {**LLAMA_LIKE, "norm_qk": True, "sliding_window_size": 16, "sliding_window_indices": [1, 0]},
    ),
    "biases in q, k, v": ("Qwen2ForCausalLM", {**LLAMA_LIKE, "attn_bias": True}),
    "learned positions, tied": (
        "GPT2LMHeadModel",
        {**GPT2_LIKE, "position_embedding": "learned", "tie_embeddings": True},
    ),
    "learned positions, untied, no biases": (
        "GPT2LMHeadModel",
        {**GPT2_LIKE, "position_embedding": "learned", "bias": False},
    ),
    "rotary positions, tied, as tiny": (
        "GPTNeoXForCausalLM",
        {**GPT2_LIKE, "gelu_approximate": "none", "rotary_percentage": 1.0, "tie_embeddings": True},
    ),
    "no biases, tied, as reference": (
        "GPTNeoXForCausalLM",
        {**GPT2_LIKE, "rotary_percentage": 0.5, "bias": False, "tie_embeddings": True},
    ),
}


@pytest.fixture
def difference() -> Callable[[torch.Tensor, torch.Tensor], float]:
    def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
        assert found.shape == expected.shape
        return float((found - expected).abs().max() / expected.abs().max())

    return relative


def logits_there(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """What transformers computes; fails where a weight is missing, of another shape, or left over."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    assert not any(report.values()), report
    with torch.no_grad():
        return model(ids).logits


def logits_here(directory: Path, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return checkpoint.load_model(directory)(ids)


@pytest.mark.parametrize("name", IN_AND_OUT)
def test_import_and_export_give_equal_logits_and_bit_equal_weights(
    name: str, make_folder: Any, difference: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    theirs = make_folder(name)
    ours = import_folder(theirs.path, tmp_path / "imported").path
    expected = theirs.logits(ids)
    assert difference(logits_here(ours, ids), expected) <= TOLERANCE

    made = export_directory(ours, tmp_path / "back")
    assert made.architecture == type(theirs.model).__name__
    assert torch.equal(logits_there(made.path, ids), expected), "the same numbers through the same code"
    again = import_folder(made.path, tmp_path / "again").path
    before, after = checkpoint.load_weights(ours), checkpoint.load_weights(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert checkpoint.is_tied(ours) == checkpoint.is_tied(again) == theirs.model.config.tie_word_embeddings


@pytest.mark.parametrize("name", OURS)
def test_our_models_are_exported_and_imported_again(
    name: str, save_ours: Any, difference: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    architecture, settings = OURS[name]
    ours = save_ours(**settings)
    made = export_directory(ours, tmp_path / "theirs")
    assert made.architecture == architecture
    expected = logits_here(ours, ids)
    assert difference(logits_there(made.path, ids), expected) <= TOLERANCE
    back = import_folder(made.path, tmp_path / "back").path
    assert difference(logits_here(back, ids), expected) <= TOLERANCE
    before, after = checkpoint.load_weights(ours), checkpoint.load_weights(back)
    assert all(torch.equal(before[key], after[key]) for key in before)
    zeros = [tensor for key, tensor in after.items() if key not in before]
    assert len(zeros) == made.added_zeros and not any(tensor.any() for tensor in zeros)
    assert bool(zeros) == (architecture in ("GPT2LMHeadModel", "GPTNeoXForCausalLM") and settings.get("bias") is False)


UPSTREAM = ["llama3", "qwen2", "qwen3", "pythia", "phi", "phi3", "gemma", "gemma2", "gemma3"]


@pytest.mark.parametrize("name", UPSTREAM)
def test_litgpt_loads_imported_models_and_converts_them_back(
    name: str, make_folder: Any, difference: Any, ids: torch.Tensor, tmp_path: Path
) -> None:
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint
    from litgpt.tokenizer import Tokenizer

    theirs = make_folder(name)
    ours = import_folder(theirs.path, tmp_path / "imported").path
    upstream = GPT(Config.from_file(ours / "model_config.yaml")).eval()
    upstream.load_state_dict(torch.load(ours / "lit_model.pth", weights_only=True))
    expected = theirs.logits(ids)
    with torch.no_grad():
        assert difference(upstream(ids), expected) <= TOLERANCE
    assert Tokenizer(ours).decode(Tokenizer(ours).encode("def main():")) == "def main():"

    convert_lit_checkpoint(ours, tmp_path / "converted")
    converted = torch.load(tmp_path / "converted" / "model.pth", weights_only=True)
    there = theirs.model.state_dict()
    assert all(torch.equal(converted[key], there[key]) for key in converted)
    assert converted.keys() >= there.keys() - {"lm_head.weight"}
