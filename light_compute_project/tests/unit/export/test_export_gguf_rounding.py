"""llama.cpp rounds activations to the type of 16-bit weights: shown by an emulation that agrees far better."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.gguf import emulation, llama_cpp
from litgpt_core.export.gguf.architecture import Architecture
from litgpt_core.export.gguf.emulation import RESULTS, ROUNDED_TO, emulated, excess, rounding_activations
from litgpt_core.export.gguf.exporting import export_gguf
from litgpt_core.export.gguf.importing import read_model
from litgpt_core.export.parity import sample_ids
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT

LLAMA: dict[str, Any] = {
    "n_layer": 1, "n_head": 4, "n_query_groups": 2, "n_embd": 64, "norm_class_name": "RMSNorm", "bias": False,
    "mlp_class_name": "LLaMAMLP", "intermediate_size": 96, "parallel_residual": False, "rotary_percentage": 1.0,
}  # fmt: skip
needs_llama_cpp = pytest.mark.skipif(llama_cpp.reader_name() is None, reason="xllamacpp (llama.cpp) is not installed")


@pytest.fixture
def ours(save_ours: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "bytes"
    tokenizers.train(tokenizers.ByteSettings(), []).save(folder)
    return save_ours(tokenizer=folder, **LLAMA | {"vocab_size": 256, "padding_multiple": 256})


@needs_llama_cpp
@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_the_emulation_is_what_llama_cpp_computes(type: str, ours: Path, tmp_path: Path) -> None:
    """To float32's precision, in one layer; without rounding, llama.cpp is hundreds of times further away.

    With more layers, an activation that is rounded to the other neighbour changes all that follow.
    """
    made = export_gguf(ours, tmp_path / "model.gguf", type=type, check=False)
    model, tokenizer = read_model(made.path).float().eval(), tokenizers.load(ours)
    ids, _ = sample_ids(tokenizer, longest=96)
    lengths = list(range(8, len(ids) + 1, 8))
    answers = llama_cpp.ask(
        made.path, texts=[], prompt=ids[:8], n_tokens=1, prefixes=[ids[:n] for n in lengths], special=False
    )
    asked = [(n - 1, token, value) for n, top in zip(lengths, answers.most_probable, strict=True)
             for token, value in top.items()]  # fmt: skip

    def mean_difference(kind: str) -> float:
        found = emulated(model, ids, rows=256, kind=kind)[0]
        return sum(abs(found[place, token].item() - value) for place, token, value in asked) / len(asked)

    plain, rounded = mean_difference("F32"), mean_difference(type.upper())
    assert len(asked) >= 20
    assert rounded < plain / 50, (rounded, plain)
    other = mean_difference({"f16": "BF16", "bf16": "F16"}[type])
    assert rounded < other / 50


@needs_llama_cpp
@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_a_wrong_file_is_noticed_in_16_bits_too(type: str, ours: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Architecture, "_heads", lambda *given: None)
    with pytest.raises(CheckpointError, match=r"llama\.cpp"):
        export_gguf(ours, tmp_path / "model.gguf", type=type)


@needs_llama_cpp
@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_activations_of_integer_weights_have_8_bits_and_half_precision_scales(
    type: str, ours: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """With scales in float32, as the CPU kernel has them, llama.cpp is a thousand times further away."""
    made = export_gguf(ours, tmp_path / "model.gguf", type=type, check=False)
    model, tokenizer = read_model(made.path).float().eval(), tokenizers.load(ours)
    ids, _ = sample_ids(tokenizer, longest=96)
    lengths = list(range(8, len(ids) + 1, 8))
    answers = llama_cpp.ask(
        made.path, texts=[], prompt=ids[:8], n_tokens=1, prefixes=[ids[:n] for n in lengths], special=False
    )
    asked = [(n - 1, token, value) for n, top in zip(lengths, answers.most_probable, strict=True)
             for token, value in top.items()]  # fmt: skip

    def median_difference(kind: str) -> float:
        found = emulated(model, ids, rows=256, kind=kind)[0]
        return statistics.median(abs(found[place, token].item() - value) for place, token, value in asked)

    half = median_difference(type.upper())

    def float_scales(x: torch.Tensor) -> torch.Tensor:
        groups = x.unflatten(-1, (-1, 32))
        scales = groups.abs().amax(-1, keepdim=True) / 127
        return ((groups / scales).round() * scales).flatten(-2)

    monkeypatch.setitem(ROUNDED_TO, type.upper(), float_scales)
    single, plain = median_difference(type.upper()), median_difference("F32")
    assert half < 1e-6 < 1e-4 < single < plain


def test_rounded_weights_give_several_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "NOISE", 2.0**-9)  # so much that in a small model something is rounded otherwise
    model = GPT(GPTConfig(**LLAMA, block_size=32, vocab_size=64, padding_multiple=64)).eval()
    ids = list(range(20))
    plain = emulated(model, ids, rows=64, kind="F32")
    assert plain.shape == (1, 20, 64)
    for kind in ROUNDED_TO:
        found = emulated(model, ids, rows=64, kind=kind)
        assert found.shape == (RESULTS, 20, 64)
        assert torch.equal(found, emulated(model, ids, rows=64, kind=kind)), "the same random changes"
        assert 0 < (found - plain).abs().max() < 0.1
        assert (found[1:] - found[0]).abs().max() > 0
    assert torch.equal(emulated(model, ids, rows=64, kind="Q4_K"), plain), "nothing is left of the rounding"


def test_routers_read_what_was_not_rounded() -> None:
    experts = {**LLAMA, "mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2}
    model = GPT(GPTConfig(**experts, block_size=32, vocab_size=64, padding_multiple=64)).eval()
    seen: dict[str, torch.Tensor] = {}
    with rounding_activations(model, ROUNDED_TO["BF16"]), torch.no_grad():
        for name in ("transformer.h.0.mlp.gate", "transformer.h.0.attn.qkv"):
            layer = model.get_submodule(name)
            layer.register_forward_hook(lambda _, given, __, name=name: seen.update({name: given[0]}))
        model(torch.arange(8)[None])
    assert not torch.equal(seen["transformer.h.0.mlp.gate"], seen["transformer.h.0.mlp.gate"].bfloat16().float())
    assert torch.equal(seen["transformer.h.0.attn.qkv"], seen["transformer.h.0.attn.qkv"].bfloat16().float())


def test_what_counts_is_the_distance_beyond_three_standard_deviations() -> None:
    results = torch.tensor([1.0, 2.0, 3.0])  # mean 2, standard deviation 1
    assert excess(results, 4.9) == 0
    assert excess(results, 5.5) == pytest.approx(0.5)
    assert excess(results, -2.0) == pytest.approx(1.0)
    assert excess(torch.tensor([2.0]), 2.25) == 0.25
