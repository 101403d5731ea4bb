"""The checkpoint of the generation and serving benchmarks: with random weights, or one of the user's.

Ours and LitGPT read this directory. With random weights the generated text is noise, on which speed does not depend,
and nanoGPT, transformers and llama.cpp build models of the same shape themselves.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.tokenizers.byte_alphabet import BYTE_TO_CHARACTER

if TYPE_CHECKING:
    from litgpt_core.model import GPTConfig
    from litgpt_core.tokenizers.base import Tokenizer

SHAPE = (
    *("n_layer", "n_head", "n_query_groups", "n_embd", "block_size", "padded_vocab_size", "intermediate_size", "bias"),
    *("mlp_class_name", "rope_base"),
)
"""What other programs need of the config."""
CHARACTERS = "\n " + string.ascii_letters + "!$&',-.3:;?"
"""65 characters, as many as Tiny Shakespeare has."""
TEXT = "It was late and the harbour lay still; someone whistled, and a gull answered from the roofs. "


def make_model(job: dict[str, Any]) -> dict[str, Any]:
    """Write the checkpoint; returns its prompt as `prompt` and `prompt_ids`, its shape and its costs."""
    import torch

    from litgpt_core import tokenizers
    from litgpt_core.checkpoint import save_directory
    from litgpt_core.config.compose import load
    from litgpt_core.model import GPT
    from litgpt_core.model.init import initialize
    from litgpt_core.tokenizers.settings import CharSettings

    folder = Path(job["folder"])
    tokenizer_dir = folder / "tokenizer"
    if job["vocab_size"] == len(CHARACTERS) + 1:
        tokenizer_dir.mkdir(parents=True)
        tokenizers.train(CharSettings(kind="char"), [CHARACTERS]).save(tokenizer_dir)
    else:
        write_pair_tokenizer(tokenizer_dir, vocab_size=job["vocab_size"])
    tokenizer = tokenizers.load(tokenizer_dir)
    config = load(job["overrides"]).model.build(vocab_size=tokenizer.vocab_size)
    model = GPT(config)
    initialize(model, seed=1337)
    save_directory(
        folder / "model",
        weights=model.to(torch.bfloat16).state_dict(),
        config=config,
        tokenizer_dir=tokenizer_dir,
        hyperparameters={},
    )
    return _facts(job, config=config, tokenizer=tokenizer)


def read_model(job: dict[str, Any]) -> dict[str, Any]:
    """The same facts of a checkpoint directory that exists."""
    from dataclasses import replace

    from litgpt_core import tokenizers
    from litgpt_core.checkpoint.parameters import has_tied_output
    from litgpt_core.model import GPTConfig

    folder = Path(job["checkpoint"])
    config = GPTConfig.from_checkpoint(folder)
    config = replace(config, tie_embeddings=has_tied_output(folder, config))
    return _facts(job, config=config, tokenizer=tokenizers.load(folder))


def _facts(job: dict[str, Any], *, config: GPTConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """`make_model`'s result; the prompt is the beginning of `TEXT`, repeated, that has the tokens wanted."""
    from litgpt_core.model.cost import count_parameters, forward_flops_per_token, matmul_parameters

    wanted = job["prompt_tokens"]
    long = TEXT * (1 + 8 * wanted // len(TEXT))  # two characters at most in random ones
    text = next(t for n in range(wanted, len(long)) if len(tokenizer.encode(t := long[:n])) == wanted)
    return {
        "prompt": text,
        "prompt_ids": tokenizer.encode(text),
        "n_params": count_parameters(config),
        "flops_per_token": forward_flops_per_token(config, seq_length=job["prompt_tokens"] + job["new_tokens"]),
        "weights_read_per_token": matmul_parameters(config),
        "model": {name: getattr(config, name) for name in SHAPE},
        "eos_id": tokenizer.eos_id,
        "vocab_size": tokenizer.vocab_size,
    }


def write_pair_tokenizer(folder: Path, *, vocab_size: int) -> None:
    """A byte-level BPE tokenizer of any size up to 65,792 without a corpus: every merge joins two bytes.

    Args:
        folder: Gets tokenizer.json and tokenizer_config.json.
        vocab_size: Includes the end-of-document token, which comes last.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(BYTE_TO_CHARACTER)
    pairs = [(a, b) for a in alphabet for b in alphabet][: vocab_size - 1 - len(alphabet)]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *(a + b for a, b in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
