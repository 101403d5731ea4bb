"""Runs in a process of its own: makes the model that everybody generates with, of random weights, as a checkpoint.

Ours and LitGPT read this very directory; nanoGPT, transformers and llama.cpp make models of the same shape themselves.
The weights say nothing, so the texts are noise; speed does not depend on them.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from benchmarks.child import carry_out
from litgpt_core.tokenizers.byte_alphabet import BYTE_TO_CHARACTER

CHARACTERS = "\n " + string.ascii_letters + "!$&',-.3:;?"
"""65 characters, as many as Tiny Shakespeare has."""
TEXT = "It was late and the harbour lay still; someone whistled, and a gull answered from the roofs. "


def make_model(job: dict[str, Any]) -> dict[str, Any]:
    """Write the checkpoint; the prompt as `prompt` and `prompt_ids`."""
    import torch

    from litgpt_core import tokenizers
    from litgpt_core.checkpoint import save_directory
    from litgpt_core.config.compose import load
    from litgpt_core.model import GPT
    from litgpt_core.model.cost import count_parameters, forward_flops_per_token, matmul_parameters
    from litgpt_core.model.init import initialize
    from litgpt_core.tokenizers.settings import CharSettings

    folder = Path(job["folder"])
    words = folder / "tokenizer"
    if job["vocab_size"] == len(CHARACTERS) + 1:
        words.mkdir(parents=True)
        tokenizers.train(CharSettings(kind="char"), [CHARACTERS]).save(words)
    else:
        write_pair_tokenizer(words, vocab_size=job["vocab_size"])
    tokenizer = tokenizers.load(words)
    config = load(job["overrides"]).model.build(vocab_size=tokenizer.vocab_size)
    model = GPT(config)
    initialize(model, seed=1337)
    save_directory(
        folder / "model",
        weights=model.to(torch.bfloat16).state_dict(),
        config=config,
        tokenizer_dir=words,
        hyperparameters={},
    )
    text = next(t for n in range(1, 400) if len(tokenizer.encode(t := (TEXT * 5)[:n])) == job["prompt_tokens"])
    return {
        "prompt": text,
        "prompt_ids": tokenizer.encode(text),
        "n_params": count_parameters(config),
        "flops_per_token": forward_flops_per_token(config, seq_length=job["prompt_tokens"] + job["new_tokens"]),
        "weights_read_per_token": matmul_parameters(config),
        "model": {
            name: getattr(config, name)
            for name in ("n_layer", "n_head", "n_embd", "block_size", "padded_vocab_size", "intermediate_size", "bias")
        },
        "eos_id": tokenizer.eos_id,
        "vocab_size": tokenizer.vocab_size,
    }


def write_pair_tokenizer(folder: Path, *, vocab_size: int) -> None:
    """A byte-level BPE tokenizer of any size up to 65,792 without a corpus: every merge joins two bytes.

    Args:
        folder: Where tokenizer.json and tokenizer_config.json go.
        vocab_size: With the end-of-document token, which comes last.
    """
    alphabet = sorted(BYTE_TO_CHARACTER)
    pairs = [(a, b) for a in alphabet for b in alphabet][: vocab_size - 1 - len(alphabet)]
    pieces = [*alphabet, *(a + b for a, b in pairs), "<|endoftext|>"]
    end = len(pieces) - 1
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": end,
                "content": pieces[end],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": [[a, b] for a, b in pairs],
        },
    }
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": pieces[end]}
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")


if __name__ == "__main__":
    carry_out(make_model)
