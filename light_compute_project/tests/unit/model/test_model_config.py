"""GPTConfig derives what is left out, refuses what cannot be built with one error, and writes what LitGPT reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.model.config import GPTConfig, registry_names

SMALL: dict[str, Any] = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 32, "vocab_size": 100}


def test_what_is_left_out_is_derived() -> None:
    config = GPTConfig(**SMALL, padding_multiple=64)
    assert (config.head_size, config.n_query_groups, config.intermediate_size) == (16, 4, 256)
    assert (config.padded_vocab_size, config.rope_n_elem) == (128, 4)
    assert (config.qk_head_dim, config.v_head_dim) == (16, 16)


def test_a_given_padded_vocabulary_bounds_the_vocabulary() -> None:
    assert GPTConfig(**{**SMALL, "vocab_size": 500}, padded_vocab_size=128).vocab_size == 128


def test_windows_and_local_bases_cover_all_layers_by_default_and_long_lists_are_cut() -> None:
    config = GPTConfig(**SMALL, sliding_window_size=8, rope_local_base_freq=100.0, rope_indices=[0, 1, 1, 1])
    assert (config.sliding_window_indices, config.rope_indices) == ([1, 1], [0, 1])
    assert [config.window_of(layer) for layer in range(2)] == [8, 8]
    mixed = GPTConfig(**SMALL, sliding_window_size=8, sliding_window_indices=[0, 1])
    assert [mixed.window_of(layer) for layer in range(2)] == [None, 8]


def test_the_first_layers_of_a_mixture_may_be_dense() -> None:
    config = GPTConfig(**SMALL, mlp_class_name="LLaMAMoE", n_expert=4, n_expert_per_token=2, first_k_dense_replace=1)
    assert [config.mlp_class_of(layer) for layer in range(2)] == ["LLaMAMLP", "LLaMAMoE"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"n_head": 5}, "n_embd=64 is not a multiple of n_head=5", "model.n_head=4"),
    ({"n_query_groups": 3}, "n_head=4 is not a multiple of n_query_groups=3", "model.n_query_groups=2"),
    ({"head_size": 10, "rotary_percentage": 0.5}, "is 5: rope turns pairs", "model.rotary_percentage=1.0"),
    ({"rotary_percentage": 1.5}, "rotary_percentage=1.5", "model.rotary_percentage=1.0"),
    ({"mlp_class_name": "LLaMAMLP"}, "LLaMAMLP needs intermediate_size", "model.intermediate_size=192"),
    ({"block_size": 0}, "block_size=0 must be at least 1", "model.block_size=256"),
    ({"n_layer": -1}, "n_layer=-1 must be at least 1", "model.n_layer=4"),
    ({"sliding_window_size": 4, "sliding_window_indices": [1]}, "has 1 entries for n_layer=2", "indices=null"),
    ({"sliding_window_size": 4, "sliding_window_indices": [1, 2]}, "only 0 and 1", "indices=null"),
    ({"sliding_window_indices": [1, 1]}, "would be ignored", "model.sliding_window_indices=null"),
    ({"rope_indices": [1, 1]}, "would be ignored", "model.rope_indices=null"),
    ({"dropout": 1.0}, "dropout=1.0", "model.dropout=0.1"),
    ({"dropout": -0.1}, "dropout=-0.1", "model.dropout=0.1"),
    ({"mlp_class_name": "LlamaMLP"}, "mlp_class_name='LlamaMLP' is unknown", "model.mlp_class_name=LLaMAMLP"),
    ({"norm_class_name": "RMS"}, "norm_class_name='RMS' is unknown", "model.norm_class_name=RMSNorm"),
    ({"gelu_approximate": "fast"}, "gelu_approximate='fast'", "model.gelu_approximate=tanh"),
    ({"n_embd": "64"}, "n_embd='64' is of type str, not int", ""),
    ({"norm_eps": "1e-5"}, "norm_eps='1e-5' is of type str, not float", ""),
    ({"bias": 1}, "bias=1 is of type int, not bool", ""),
    ({"n_head": True}, "n_head=True is of type bool, not int", ""),
    ({"mlp_class_name": "LLaMAMoE"}, "no experts", "model.n_expert=8"),
    ({"first_k_dense_replace": 1}, "needs mlp_class_name=LLaMAMoE", "model.first_k_dense_replace=null"),
    ({"shared_attention_norm": True, "parallel_residual": False}, "shared_attention_norm", "parallel_residual=true"),
    ({"rope_adjustments": {"factor": 2.0, "low_freq_factor": 1.0}}, "lacks high_freq_factor", "rope_adjustments"),
    ({"rope_adjustments": {"type": "ntk"}}, "unknown keys: type", ""),
    ({"latent_attention": {"q_lora_rank": 4}}, "lacks whole numbers for kv_lora_rank", "latent_attention.kv_lora_rank"),
    ({"position_embedding": "learned", "rope_adjustments": {"factor": 2.0}}, "needs position_embedding=rope", "=rope"),
    ({"attention_logit_softcapping": 0.0}, "must be positive", "model.attention_logit_softcapping=null"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "says", "fix"), WRONG)
def test_a_wrong_setting_says_what_to_type(settings: dict[str, Any], says: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GPTConfig(**{**SMALL, **settings})
    assert says in caught.value.given
    assert fix in caught.value.fix


def test_all_problems_come_in_one_error() -> None:
    with pytest.raises(ConfigError) as caught:
        GPTConfig(name="mine", n_head=5, n_embd=64, block_size=0, dropout=2.0, mlp_class_name="LLaMAMLP")
    assert [line.strip()[:2] for line in caught.value.given.splitlines()[1:]] == ["1.", "2.", "3.", "4."]
    assert "'mine'" in caught.value.given
    typed = dict(part.split("=") for part in caught.value.fix.split())
    fixed = {key.removeprefix("model."): float(value) if "." in value else int(value) for key, value in typed.items()}
    assert set(fixed) == {"n_head", "block_size", "dropout", "intermediate_size"}
    GPTConfig(**{"n_embd": 64, "mlp_class_name": "LLaMAMLP", **fixed})  # what the message says to type is right


def test_grouped_routing_is_checked() -> None:
    moe = {**SMALL, "mlp_class_name": "LLaMAMoE", "n_expert": 8, "n_expert_per_token": 5, "n_expert_groups": 4}
    with pytest.raises(ConfigError, match="5 is more than 2 groups of 2 experts"):
        GPTConfig(**moe, n_topk_groups=2, n_topk_scores_per_group=2)
    with pytest.raises(ConfigError, match="n_topk_scores_per_group=3"):
        GPTConfig(**moe, n_topk_groups=4, n_topk_scores_per_group=3)
    with pytest.raises(ConfigError, match="n_expert_groups=3"):
        GPTConfig(**{**moe, "n_expert_groups": 3})


# --- the registry


def test_a_name_resolves_also_with_its_organisation() -> None:
    config = GPTConfig.from_name("pythia-14m")
    assert (config.n_layer, config.n_embd, config.name) == (6, 128, "pythia-14m")
    assert GPTConfig.from_name("EleutherAI/pythia-14m") == config


def test_overrides_replace_values_and_a_new_vocabulary_replaces_the_padding() -> None:
    config = GPTConfig.from_name("Llama-3.2-1B", n_layer=2, vocab_size=1000)
    assert (config.n_layer, config.vocab_size, config.padded_vocab_size) == (2, 1000, 1024)
    assert GPTConfig.from_name("Llama-3.2-1B").padded_vocab_size == 128256


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"LitGPT has no model called 'llama-3\.2-1b'") as caught:
        GPTConfig.from_name("llama-3.2-1b")
    assert caught.value.fix == "model.name=Llama-3.2-1B"


def test_an_unknown_override_says_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no setting called n_layr") as caught:
        GPTConfig.from_name("pythia-14m", n_layr=2)
    assert "n_layr -> n_layer" in caught.value.fix


def test_configs_of_one_name_share_nothing() -> None:
    first, second = GPTConfig.from_name("Gemma-2-2b"), GPTConfig.from_name("Gemma-2-2b")
    assert first.sliding_window_indices is not None
    first.sliding_window_indices[0] = 7
    first.hf_config["name"] = "changed"
    assert second.sliding_window_indices is not None
    assert (second.sliding_window_indices[0], second.hf_config["name"]) == (1, "gemma-2-2b")


def test_reading_the_registry_imports_neither_torch_nor_litgpt() -> None:
    code = (
        "import sys; from litgpt_core.model import GPTConfig; GPTConfig.from_name('pythia-14m');"
        "from litgpt_core.model import cost; cost.count_parameters(GPTConfig());"
        "print([name for name in ('torch', 'litgpt', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- files


def test_the_yaml_holds_only_what_differs_and_upstream_knows() -> None:
    config = GPTConfig(**SMALL, name="x", tie_embeddings=True, dropout=0.1, init_projection="zero", bias=False)
    written = config.to_yaml_dict()
    assert written["bias"] is False
    assert written["padded_vocab_size"] == 512
    assert not {"tie_embeddings", "dropout", "init_projection", "position_embedding", "norm_eps"} & set(written)


def test_learned_positions_are_written_so_that_upstream_refuses() -> None:
    assert GPTConfig(**SMALL, position_embedding="learned").to_yaml_dict()["position_embedding"] == "learned"


@pytest.mark.parametrize("name", ["pythia-14m", "Gemma-3-4b-it", "Mixtral-8x7B-v0.1"])
def test_a_written_directory_reads_back(name: str, tmp_path: Path) -> None:
    config = GPTConfig.from_name(name)
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(config.to_yaml_dict()), encoding="utf-8")
    assert GPTConfig.from_checkpoint(tmp_path) == config


def test_the_full_dictionary_builds_the_same_config() -> None:
    config = GPTConfig(**SMALL, tie_embeddings=True, dropout=0.1)
    assert GPTConfig.from_dict(config.to_full_dict()) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no model_config.yaml"),
        ("n_layer: [", "cannot be read"),
        ("", "contains NoneType"),
        ("n_layer: 2\nn_heads: 4\n", "no setting called n_heads"),
        ("n_layer: two\n", "n_layer='two' is of type str"),
        ("n_embd: 64\nn_head: 5\n", "not a multiple of n_head=5"),
    ],
)
def test_a_broken_directory_is_a_checkpoint_error(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "model_config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        GPTConfig.from_checkpoint(tmp_path)
    assert says in caught.value.given


def test_the_registry_has_all_names_once() -> None:
    names = registry_names()
    assert len(names) == len(set(names)) >= 200
