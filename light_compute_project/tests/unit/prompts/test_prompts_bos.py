"""Foreign models that want their begin-of-sequence token get it."""

import json

import pytest

from litgpt_core.core.errors import CheckpointError
from litgpt_core.prompts import starts_with_bos


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
def test_models_from_elsewhere_get_their_bos(tmp_path, folder, config, expected):
    (tmp_path / folder).mkdir()
    if config is not None:
        (tmp_path / folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert starts_with_bos(tmp_path / folder) is expected


def test_a_corrupted_tokenizer_config_is_reported(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        starts_with_bos(tmp_path)
