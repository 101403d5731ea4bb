"""A model that `train` has trained as a LitGPT checkpoint directory: this project and LitGPT read it as any other."""

from __future__ import annotations

from pathlib import Path

from litgpt_core.core.files import write_atomically, write_json
from litgpt_core.core.replaceable import refuse_foreign
from litgpt_core.pure.train import Config, Trained
from litgpt_core.pure.weights import write_weights

_FILES = ("lit_model.pth", "model_config.yaml", "tokenizer.json", "tokenizer_config.json")
END = "<|endoftext|>"
"""The token on both ends of a name."""


def save(trained: Trained, directory: Path) -> None:
    """Write weights, settings and tokenizer; each file is replaced at once or not at all.

    CheckpointError if the directory holds anything else.
    """
    refuse_foreign(directory, ours=_FILES)
    write_weights(directory / "lit_model.pth", {name: matrix.data for name, matrix in trained.weights.items()})
    write_atomically(directory / "model_config.yaml", model_config(trained.config))
    write_json(directory / "tokenizer.json", tokenizer_json(trained.letters))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "kind": "char"}
    write_json(directory / "tokenizer_config.json", settings | {"bos_token": None, "eos_token": END})


def model_config(c: Config) -> str:
    """The fields of `GPTConfig` that make the core build the same model."""
    values = {"name": "microgpt", "block_size": c.block_size, "n_layer": c.n_layer, "n_embd": c.n_embd}
    values |= {"vocab_size": c.vocab_size, "padded_vocab_size": c.vocab_size, "norm_class_name": "RMSNorm"}
    values |= {"norm_eps": f"{c.norm_eps:.10f}", "parallel_residual": "false", "n_head": c.n_head, "bias": "false"}
    values |= {"rotary_percentage": 1.0, "rope_base": c.rope_base, "mlp_class_name": "LLaMAMLP"}
    values |= {"intermediate_size": c.intermediate_size}
    return "".join(f"{key}: {value}\n" for key, value in values.items())


def tokenizer_json(letters: str) -> dict[str, object]:
    """One id for each letter and one for the end, in the format of Hugging Face's `tokenizers`."""
    end = {"id": len(letters), "content": END, "special": True}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    split = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {END: len(letters)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
