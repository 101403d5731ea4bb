"""The files around an ONNX graph, and where programs look for them.

config.json, tokenizer.json, tokenizer_config.json, generation_config.json    transformers.js, optimum
genai_config.json                                                             onnxruntime-genai
onnx/model.onnx, model_int8.onnx, model_q4.onnx                               all; the name says the type
onnx/model.onnx_data                                                          its weights, if they are above 2 GB
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litgpt_core.export.huggingface.families import write_config
from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.onnx.matrices import SUFFIXES
from litgpt_core.export.onnx.step import IDS, LOGITS, MASK, PAST, POSITIONS, PRESENT
from litgpt_core.model.config import GPTConfig

FOLDER, GENAI_CONFIG = "onnx", "genai_config.json"
_GENAI_TYPES = ("llama", "mistral", "qwen2", "qwen3", "phi", "phi3", "gemma", "gemma2", "gemma3_text")
"""What onnxruntime-genai calls as transformers does; others are `decoder`."""


def graph_name(kind: str) -> str:
    """Path of the graph in the folder."""
    return f"{FOLDER}/model{SUFFIXES[kind]}.onnx"


def config_json(
    family: Family, config: GPTConfig, ids: Mapping[str, Any], *, large: str | None = None
) -> dict[str, Any]:
    """config.json, as of a Hugging Face folder. `large`: the graph's name, if its weights are in a second file, which
    transformers.js does not look for by itself.
    """
    second = {} if large is None else {"transformers.js_config": {"use_external_data_format": {large: 1}}}
    return {**write_config(family, config), **ids, "torch_dtype": "float32", **second}


def genai_config(family: Family, config: GPTConfig, ids: Mapping[str, Any], *, kind: str) -> dict[str, Any]:
    """genai_config.json.

    Args:
        family: Of `config`.
        config: `padded_vocab_size` is the number of logits.
        ids: `bos_token_id`, `eos_token_id`.
        kind: The graph's type.
    """
    past = {f"past_{part}_names": PAST.replace("%s", part) for part in ("key", "value")}
    present = {f"present_{part}_names": PRESENT.replace("%s", part) for part in ("key", "value")}
    first_end = ids["eos_token_id"][0] if isinstance(ids["eos_token_id"], list) else ids["eos_token_id"]
    bos = ids.get("bos_token_id")
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": graph_name(kind),
        "head_size": config.head_size,
        "hidden_size": config.n_embd,
        "num_attention_heads": config.n_head,
        "num_hidden_layers": config.n_layer,
        "num_key_value_heads": config.n_query_groups,
        "inputs": {"input_ids": IDS, "attention_mask": MASK, "position_ids": POSITIONS, **past},
        "outputs": {"logits": LOGITS, **present},
    }
    model = {
        "type": family.model_type if family.model_type in _GENAI_TYPES else "decoder",
        "context_length": config.block_size,
        "vocab_size": config.padded_vocab_size,
        "bos_token_id": first_end if bos is None else bos,
        "eos_token_id": ids["eos_token_id"],
        "pad_token_id": first_end,
        "decoder": decoder,
    }
    search = {
        "do_sample": False,
        "max_length": config.block_size,
        "min_length": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": False,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    }
    return {"model": model, "search": search}
