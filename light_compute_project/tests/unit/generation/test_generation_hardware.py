"""From typed words to a device and a number type."""

import json

import pytest
import torch

from litgpt_core.errors import CheckpointError, ConfigError, EnvironmentProblem
from litgpt_core.generation.hardware import choose_device, named_dtype
from litgpt_core.generation.prompts import starts_with_bos

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", None), ("bf16", torch.bfloat16), ("32-true", torch.float32), ("16", torch.float16)],
)
def test_the_number_type(name, expected):
    assert named_dtype(name) == expected


def test_wrong_words_are_answered():
    with pytest.raises(ConfigError, match="bf16"):
        named_dtype("bf61")
    with pytest.raises(ConfigError, match="'gpu'"):
        choose_device("gpu")
    assert choose_device("cpu") == CPU
    with pytest.raises(EnvironmentProblem, match="--device cpu"):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    ("folder", "config", "expected"),
    [
        ("x", {"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        ("x", {"tokenizer_class": "LlamaTokenizer"}, True),
        ("x", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, False),
        ("x", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}, True),
        ("Llama-3.2-1B", {"tokenizer_class": "PreTrainedTokenizerFast"}, True),
        ("SmolLM2-135M", {"tokenizer_class": "GPT2Tokenizer"}, False),
        ("SmolLM2-135M-Instruct", {"tokenizer_class": "GPT2Tokenizer"}, True),
        ("x", None, False),
    ],
)
def test_foreign_models_get_their_bos(tmp_path, folder, config, expected):
    (tmp_path / folder).mkdir()
    if config is not None:
        (tmp_path / folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert starts_with_bos(tmp_path / folder) is expected


def test_a_damaged_tokenizer_config_is_named(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        starts_with_bos(tmp_path)
