"""The way out: which architecture a model becomes, what is refused, shards, and what a failed export leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.errors import CheckpointError
from litgpt_core.doctor.model_checks import shipped_configs
from litgpt_core.export.huggingface import exporting
from litgpt_core.export.huggingface.exporting import export_directory
from litgpt_core.export.huggingface.families import FAMILIES, choose, what_computes
from litgpt_core.export.huggingface.folder import open_weights
from litgpt_core.export.huggingface.importing import import_folder
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT

LLAMA = {
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


def test_the_shipped_models_have_the_architectures_that_the_page_names() -> None:
    shipped = shipped_configs(vocab_size=256)
    page = (PROJECT_DIR / "docs" / "huggingface.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`.*?) \| `(\w+ForCausalLM|\w+LMHeadModel)` \|$", page, re.MULTILINE)
    named = {name: architecture for names, architecture in rows for name in re.findall(r"`(\w+)`", names)}
    assert {"baseline", "reference", "tiny"} <= set(named)
    assert {name: choose(shipped[name])[0].architecture for name in named} == named


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("pythia-14m", "GPTNeoXForCausalLM"),
        ("Llama-3.2-1B", "LlamaForCausalLM"),
        ("Qwen2.5-0.5B", "Qwen2ForCausalLM"),
        ("Qwen3-0.6B", "Qwen3ForCausalLM"),
        ("Mistral-7B-v0.1", "MistralForCausalLM"),
        ("phi-2", "PhiForCausalLM"),
        ("Phi-3-mini-4k-instruct", "Phi3ForCausalLM"),
        ("Gemma-2b", "GemmaForCausalLM"),
        ("Gemma-2-2b", "Gemma2ForCausalLM"),
        ("Gemma-3-1b-it", "Gemma3ForCausalLM"),
    ],
)
def test_named_models_of_litgpt_are_exported_as_their_architecture(name: str, architecture: str) -> None:
    assert choose(GPTConfig.from_name(name))[0].architecture == architecture


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_the_names_of_every_family_are_exactly_the_models_weights(family: Any) -> None:
    names = {
        "llama": "Llama-3.2-1B", "qwen3": "Qwen3-0.6B", "qwen2": "Qwen2.5-0.5B", "mistral": "Mistral-7B-v0.1",
        "gpt_neox": "pythia-14m", "phi": "phi-2", "phi3": "Phi-3-mini-4k-instruct", "gemma": "Gemma-2b",
        "gemma2": "Gemma-2-2b", "gemma3_text": "Gemma-3-1b-it",
    }  # fmt: skip
    shipped = shipped_configs(vocab_size=256)["gpt2_124m"]
    config = shipped if family.model_type == "gpt2" else GPTConfig.from_name(names[family.model_type])
    with torch.device("meta"):
        weights = GPT(config).state_dict()
    ours = [name for rule in family.rules(config) for name in rule.ours]
    assert sorted(ours) == sorted(weights) and len(ours) == len(set(ours))


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({"rope_interleave": True}, "rope_interleave"),
        ({"norm_qk": True, "norm_qk_type": "olmo2"}, "norm_qk_type"),
        ({"n_expert": 4, "n_expert_per_token": 2, "mlp_class_name": "LLaMAMoE"}, "LLaMAMoE"),
        ({"norm_qk": True, "n_query_groups": 2, "attn_bias": True}, "attn_bias"),
        ({"norm_qk": True, "mlp_class_name": "GptNeoxMLP"}, "mlp_class_name (GptNeoxMLP here, LLaMAMLP there)"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"name": "OLMo-x", "norm_class_name": "LayerNorm"}, "norms without weights"),
    ],
)
def test_a_model_without_an_equivalent_architecture_is_refused_with_the_lost_settings(
    settings: dict[str, Any], lost: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        choose(GPTConfig(vocab_size=300, **{**LLAMA, **settings}))
    assert lost in caught.value.given and "the closest" in caught.value.given


def test_settings_without_effect_are_ignored() -> None:
    base = GPTConfig(vocab_size=300, **LLAMA)
    for same in (
        {"dropout": 0.1},
        {"gelu_approximate": "tanh"},
        {"attention_scores_scalar": 16},
        {"n_expert_groups": 2},
    ):
        assert what_computes(GPTConfig(vocab_size=300, **{**LLAMA, **same})) == what_computes(base)
    for other in (
        {"norm_eps": 1e-6},
        {"rope_base": 500},
        {"attn_bias": True},
        {"name": "Gemma"},
        {"n_query_groups": 1},
    ):
        assert what_computes(GPTConfig(vocab_size=300, **{**LLAMA, **other})) != what_computes(base)


def test_large_models_are_exported_in_shards_with_an_index(save_ours: Any, tmp_path: Path) -> None:
    ours = save_ours(**LLAMA)
    made = export_directory(ours, tmp_path / "out", max_shard_bytes=60_000)
    assert len(made.files) >= 3 and made.files[0] == f"model-00001-of-{len(made.files):05d}.safetensors"
    index = json.loads((made.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == made.weight_bytes
    assert max((made.path / name).stat().st_size for name in made.files) < 60_000 + 30_000, "one weight may be larger"
    stored = open_weights(made.path)
    assert {name: tensor.file.name for name, tensor in stored.tensors.items()} == index["weight_map"]
    back = import_folder(made.path, tmp_path / "back").path
    before, after = checkpoint.load_weights(ours), checkpoint.load_weights(back)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_folder_can_be_exported(save_ours: Any, tmp_path: Path) -> None:
    save_ours(folder="run/final", **LLAMA)
    assert export_directory(tmp_path / "run", tmp_path / "out").architecture == "LlamaForCausalLM"


def test_a_failed_export_leaves_the_existing_folder(
    save_ours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = save_ours(**LLAMA)
    export_directory(ours, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    names = sorted(path.name for path in tmp_path.iterdir())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        export_directory(ours, tmp_path / "out", force=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == names
