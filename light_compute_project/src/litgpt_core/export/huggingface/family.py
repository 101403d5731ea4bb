"""The description of an architecture; `families` lists the supported ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from litgpt_core.export.huggingface.rules import Rule
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.model.config import GPTConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type` of config.json, for import and export.

    `read` and `write` omit what all architectures share: vocabulary size, tying, special tokens.
    """

    model_type: str
    architecture: str
    """The class of transformers that loads the folder."""
    read: Callable[[ConfigFile], dict[str, Any]]
    """config.json -> fields of GPTConfig. Raises CheckpointError for a setting without a counterpart."""
    write: Callable[[GPTConfig], dict[str, Any]]
    """The inverse of `read`. `families.choose` checks, by reading the result, whether the family fits the model."""
    rules: Callable[[GPTConfig], Iterable[Rule]]
    """Rules for every weight, including the output layer."""
    base: str
    """Prefix of all names except the output layer's; folders saved without that layer do not have it."""
    head: str
    """Name of the output layer's weight."""
    tied_by_default: bool = False
    """Meaning of a missing `tie_word_embeddings`."""
    ignored: str = r"rotary_emb\.inv_freq$"
    """Pattern of stored names that are not weights."""
    name_start: str = ""
    """Required prefix of a model's name, so that LitGPT treats it as this family; case-insensitive."""
    always_biased: bool = False
    """Whether linear layers always have biases; for a model without them, zeros are written."""

    def is_named_by(self, name: str) -> bool:
        """Whether a model's name has the prefix of this family."""
        return bool(self.name_start) and name.lower().startswith(self.name_start.lower())

    def model_name(self, folder_name: str) -> str:
        """A name that LitGPT treats as this family: "Gemma" and "OLMo" in a name change LitGPT's computation."""
        plain = folder_name or self.model_type
        if not self.name_start:
            return plain.replace("Gemma", "gemma").replace("OLMo", "olmo")
        if self.is_named_by(plain):
            return self.name_start + plain[len(self.name_start) :]
        return f"{self.name_start}-{plain}"
