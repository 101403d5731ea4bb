"""The shipped model files: each builds, and says in its header how many parameters it has."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from litgpt_core.doctor.model_checks import shipped_configs
from litgpt_core.model import GPT, GPTConfig
from litgpt_core.model.cost import count_parameters

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "model"
GPT2 = ["gpt2_124m", "gpt2_1558m", "gpt2_355m", "gpt2_774m"]
NAMES = [
    "baseline",
    "baseline_half",
    *GPT2,
    "llama_1b",
    "llama_gqa",
    "nano_cpu",
    "qwen3_30m",
    "reference",
    "registry",
    "shakespeare_best",
    "tiny",
]


def test_these_models_are_shipped() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted([*NAMES, "pretrained"])


@pytest.mark.parametrize("name", NAMES)
def test_the_file_builds_a_model_for_any_vocabulary(name: str) -> None:
    config = shipped_configs(vocab_size=1000)[name]
    padded = 1000 if config.padding_multiple == 8 else 1024
    assert (config.vocab_size, config.padded_vocab_size) == (1000, padded)
    assert config.head_size % 2 == 0
    assert not {"gemma", "olmo"} & set(re.split("[^a-z]", config.name.lower()))
    with torch.device("meta"):
        assert GPT(config)(torch.zeros(1, config.block_size, dtype=torch.long)).shape == (1, config.block_size, padded)


@pytest.mark.parametrize("name", NAMES)
def test_the_header_tells_the_parameters(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    body, total, vocabulary = re.findall(
        r"# ([\d,]+) parameters in the blocks and the last norm; ([\d,]+) in all with a ([\d,]+)-token",
        text,
    )[0]
    config = shipped_configs(vocab_size=int(vocabulary.replace(",", "")))[name]
    assert f"{count_parameters(config, embedding=False):,}" == body
    assert f"{count_parameters(config):,}" == total


@pytest.mark.parametrize("name", NAMES)
def test_the_file_holds_only_settings_and_no_vocabulary(name: str) -> None:
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert values["source"] == ("registry" if name == "registry" else "fields")
    assert set(values) <= {field.name for field in fields(GPTConfig)} | {"source"}
    assert not {"vocab_size", "padded_vocab_size"} & set(values)


def test_the_baseline_is_what_upstreams_converter_takes_for_qwen3() -> None:
    config = shipped_configs(vocab_size=1000)["baseline"]
    assert config.name.startswith("qwen3")
    assert config.norm_qk
    assert 2_000_000 <= count_parameters(config, embedding=False) <= 3_100_000


def test_llama_gqa_shares_keys_and_values() -> None:
    config = shipped_configs(vocab_size=1000)["llama_gqa"]
    assert 1 < config.n_query_groups < config.n_head
