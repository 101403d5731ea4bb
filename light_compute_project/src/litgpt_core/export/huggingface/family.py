"""What this room knows of one architecture: the shape of `families`' entries. No architecture is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from litgpt_core.export.huggingface.rules import Rule
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.model.config import GPTConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type` of config.json, both ways.

    `read` and `write` leave out what all architectures share: vocabulary size, tying, special tokens.
    """

    model_type: str
    architecture: str
    """Class of transformers that loads the folder."""
    read: Callable[[ConfigFile], dict[str, Any]]
    """config.json -> fields of GPTConfig; CheckpointError where a setting has no counterpart."""
    write: Callable[[GPTConfig], dict[str, Any]]
    """The way back. Whether the family can hold the model is not its question: `families.choose` reads the result."""
    rules: Callable[[GPTConfig], Iterable[Rule]]
    """Every weight, the output layer included."""
    base: str
    """Prefix of the names below the output layer; folders saved without that layer lack it."""
    head: str
    """Name of the output layer's weight."""
    tied_by_default: bool = False
    """What an absent `tie_word_embeddings` means."""
    ignored: str = r"rotary_emb\.inv_freq$"
    """Pattern of stored names that are no weights."""
    name_start: str = ""
    """What a model's name must begin with, so that LitGPT computes and converts it as this family; any case."""
    always_biased: bool = False
    """Linear layers have biases; a model without them is written with zeros."""

    def is_named_by(self, name: str) -> bool:
        """Whether a model's name speaks of this family."""
        return bool(self.name_start) and name.lower().startswith(self.name_start.lower())

    def model_name(self, folder_name: str) -> str:
        """A name that LitGPT takes for this family: "Gemma" and "OLMo" in a name change what its models compute."""
        plain = folder_name or self.model_type
        if not self.name_start:
            return plain.replace("Gemma", "gemma").replace("OLMo", "olmo")
        if self.is_named_by(plain):
            return self.name_start + plain[len(self.name_start) :]
        return f"{self.name_start}-{plain}"
