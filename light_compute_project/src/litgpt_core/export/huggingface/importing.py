"""Imports a Hugging Face folder, atomically, as a LitGPT checkpoint directory.

The folder is checked before any weight is read: config.json, then the sizes of the weight files against their headers,
then names and shapes against the model, then the tokenizer. Weights that only change their name are memory-mapped and
not copied; at most the model and one shard are in memory.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.checkpoint.load import EMBEDDING, OUTPUT, empty_model
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.export.huggingface.added_tokens import build_in_added_tokens, compare_ids
from litgpt_core.export.huggingface.dequantizing import Quantization, open_folder
from litgpt_core.export.huggingface.families import read_config
from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.folder import AGAIN, StoredTensor, read_json
from litgpt_core.export.huggingface.layout import CONFIG
from litgpt_core.export.huggingface.rules import Rule
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.export.huggingface.vocabulary import gather_tokenizer
from litgpt_core.model.config import GPTConfig
from litgpt_core.tokenizers.directory import json_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The result of `import_folder`."""

    path: Path
    config: GPTConfig
    architecture: str
    """The class of transformers named in config.json."""
    parameters: int
    """Number of parameters; a tied weight counts once."""


def import_folder(folder: Path, target: Path, *, force: bool = False) -> Imported:
    """Create a checkpoint directory from a local Hugging Face folder.

    Weights keep their dtype; quantized ones become the numbers that they stand for, in float32: see `dequantizing`.

    Args:
        folder: Contains config.json, the weights (safetensors or pytorch_model.bin, in one file or sharded) and a
            tokenizer.
        target: The directory to create.
        force: Replace an existing `target` that this project wrote, after the new directory is complete.

    Raises:
        CheckpointError: The folder is incomplete, corrupted, or of an unknown architecture (names the first bad file),
            or `target` exists. Nothing is written.
        TokenizerError: The tokenizer is missing, cannot be read, or lacks tokens of the model.
    """
    folder, target = Path(folder), Path(target)
    refuse_taken(target, source=folder, force=force)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder.", needed="a Hugging Face model folder", fix="check the path, or download it"
        )
    file = ConfigFile(folder / CONFIG, read_json(folder / CONFIG))
    family, config = read_config(file, name=_folder_name(folder))
    quantization = Quantization.of(file)
    stored = open_folder(folder, quantization)
    if quantization is not None:
        logger.warning("%s", quantization.said())
    plan = ImportPlan.make(stored, family, config)
    with tempfile.TemporaryDirectory(prefix="light-compute-import-") as temporary:
        gather_tokenizer(folder, Path(temporary), model=file.content)
        build_in_added_tokens(folder, Path(temporary))
        tokenizer = tokenizers.load(Path(temporary))
        compare_ids(folder, tokenizer, model=file.content)
        ids = tokenizer.vocab_size
        if ids > config.padded_vocab_size:
            logger.warning(
                "the tokenizer has %s ids, the embedding %s rows: text with the others will fail",
                f"{ids:,}",
                f"{config.padded_vocab_size:,}",
            )
        config = dataclasses.replace(plan.config, vocab_size=min(ids, config.padded_vocab_size))
        weights = plan.read(stored)
        save_directory(
            target,
            weights=weights,
            config=config,
            tokenizer_dir=Path(temporary),
            hyperparameters={"imported_from": config.name, "huggingface_config": dict(file.content)},
            files=[_plain_config(file, Path(temporary))],  # litgpt evaluate reads it
        )
    parameters = sum(weight.numel() for name, weight in weights.items() if name != OUTPUT or not config.tie_embeddings)
    return Imported(path=target, config=config, architecture=family.architecture, parameters=parameters)


def _plain_config(file: ConfigFile, temporary: Path) -> Path:
    """config.json as the directory's weights are: without a quantization."""
    if "quantization_config" not in file.content:
        return file.path
    kept = {key: value for key, value in file.content.items() if key != "quantization_config"}
    copy = temporary / "plain" / CONFIG
    copy.parent.mkdir()
    copy.write_bytes(json_bytes({**kept, "torch_dtype": "float32"}))
    return copy


def _folder_name(folder: Path) -> str:
    """The model's name: the folder's, or in the hub's cache (models--ORG--NAME/snapshots/HASH) that of the parent."""
    place = folder.resolve()
    above = place.parent.parent.name
    cached = place.parent.name == "snapshots" and above.startswith("models--")
    return above.split("--")[-1] if cached else place.name


class StoredWeights(Protocol):
    """Weights in another format: a Hugging Face folder or a GGUF file, its header read."""

    @property
    def path(self) -> Path:
        """The folder or file."""

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """By stored name."""

    @property
    def described_by(self) -> str:
        """What describes the model, for error messages."""

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Every (stored name, tensor)."""


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """Maps stored tensors to rules, using only names and shapes."""

    config: GPTConfig
    tied: bool
    """Whether config.json ties the output layer to the embedding; both may be stored nevertheless."""
    places: Mapping[str, tuple[Rule, int]]
    """Stored name -> its rule, and its index in the rule's names."""

    @classmethod
    def make(cls, stored: StoredWeights, family: Family, config: GPTConfig) -> ImportPlan:
        """Raises CheckpointError, which names the first tensor that is missing, of another shape, or unknown."""
        names, tied = _canonical_names(stored.tensors, family), config.tie_embeddings
        if family.head in names:  # both are stored: transformers then uses both
            config = dataclasses.replace(config, tie_embeddings=False)
        shapes = empty_model(dataclasses.replace(config, tie_embeddings=False)).state_dict()
        rules = [rule for rule in family.rules(config) if not (config.tie_embeddings and OUTPUT in rule.ours)]
        places: dict[str, tuple[Rule, int]] = {}
        for rule in rules:
            expected = rule.to_theirs([shapes[name] for name in rule.ours])
            for at, (name, tensor) in enumerate(zip(rule.theirs, expected, strict=True)):
                if name not in names:
                    raise CheckpointError(
                        f"The weight {name} is missing in {stored.path}.",
                        needed=f"every weight of a {family.architecture} as {stored.described_by} describes it",
                        fix=AGAIN,
                    )
                _check_shape(stored, names[name], expected=tuple(tensor.shape))
                places[names[name]] = (rule, at)
        _refuse_unknown(stored, family, known=set(places))
        return cls(config=config, tied=tied, places=places)

    def read(self, stored: StoredWeights) -> dict[str, Tensor]:
        """Our state dict, with both names of a tied weight."""
        weights: dict[str, Tensor] = {}
        waiting: dict[Rule, dict[int, Tensor]] = {}
        for name, tensor in stored.read():
            if name not in self.places:
                continue
            rule, at = self.places[name]
            parts = waiting.setdefault(rule, {})
            parts[at] = tensor
            if len(parts) == len(rule.theirs):
                del waiting[rule]
                ours = rule.to_ours([parts[index] for index in range(len(parts))])
                weights.update(zip(rule.ours, ours, strict=True))
        if OUTPUT not in weights or (self.tied and torch.equal(weights[OUTPUT], weights[EMBEDDING])):
            weights[OUTPUT] = weights[EMBEDDING]
        return weights


def _canonical_names(tensors: Mapping[str, StoredTensor], family: Family) -> dict[str, str]:
    """Full name -> stored name: folders saved without the output layer do not have the prefix."""
    head_layer = family.head.rpartition(".")[0]
    if any(name.startswith(family.base) for name in tensors):
        return {name: name for name in tensors}
    return {name if name.startswith(f"{head_layer}.") else f"{family.base}{name}": name for name in tensors}


def _check_shape(stored: StoredWeights, name: str, *, expected: tuple[int, ...]) -> None:
    tensor, by = stored.tensors[name], stored.described_by
    if tensor.shape != expected:
        raise CheckpointError(
            f"{name} in {tensor.file} has the shape {list(tensor.shape)}; by {by} it has {list(expected)}.",
            needed=f"{by} and weights of the same model",
            fix=AGAIN,
        )


def _refuse_unknown(stored: StoredWeights, family: Family, *, known: set[str]) -> None:
    others = [name for name in stored.tensors if name not in known and not re.search(family.ignored, name)]
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise CheckpointError(
            f"{stored.tensors[others[0]].file} holds {len(others)} weights that a {family.architecture} as "
            f"{stored.described_by} describes it does not have: {shown}.",
            needed=f"{stored.described_by} and weights of the same model",
            fix=AGAIN,
        )
