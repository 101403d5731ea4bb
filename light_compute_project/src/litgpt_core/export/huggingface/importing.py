"""A Hugging Face folder -> a LitGPT checkpoint directory of ours, whole or not at all.

Everything that can be wrong with the folder is looked for before a weight is read: config.json, then the weight files'
headers against their sizes, then names and shapes against the model, then the tokenizer. Weights that only change their
name are mapped from the folder, never copied; at worst memory holds the model and one shard.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.checkpoint.load import EMBEDDING, OUTPUT, empty_model
from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.huggingface.families import read_config
from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.folder import AGAIN, StoredTensor, WeightFolder, open_weights, read_json
from litgpt_core.export.huggingface.layout import CONFIG
from litgpt_core.export.huggingface.rules import Rule
from litgpt_core.export.huggingface.settings import ConfigFile
from litgpt_core.export.huggingface.vocabulary import gather_tokenizer
from litgpt_core.export.target import refuse_taken
from litgpt_core.model.config import GPTConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What `import_folder` made."""

    path: Path
    config: GPTConfig
    architecture: str
    """The class of transformers that the folder was for."""
    parameters: int
    """A tied weight counts once."""


def import_folder(folder: Path, target: Path, *, force: bool = False) -> Imported:
    """Make a checkpoint directory from a local Hugging Face folder; weights keep their type.

    Args:
        folder: Holds config.json, the weights (safetensors or pytorch_model.bin, whole or in shards) and a tokenizer.
        target: The directory to make.
        force: Replace what is at `target`; it stays until the new one stands.

    Raises:
        CheckpointError: The folder is incomplete, damaged, or of an unknown architecture; names the first bad file.
            Nothing is written then. Also where `target` is taken.
        TokenizerError: The tokenizer is missing or cannot be read.
    """
    folder, target = Path(folder), Path(target)
    refuse_taken(target, source=folder, force=force)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder.", needed="a Hugging Face model folder", fix="check the path, or download it"
        )
    file = ConfigFile(folder / CONFIG, read_json(folder / CONFIG))
    family, config = read_config(file, name=_folder_name(folder))
    stored = open_weights(folder)
    plan = _Plan.make(stored, family, config)
    with tempfile.TemporaryDirectory(prefix="light-compute-import-") as temporary:
        gather_tokenizer(folder, Path(temporary), model=file.content)
        ids = tokenizers.load(Path(temporary)).vocab_size
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
            files=[folder / CONFIG],  # litgpt evaluate reads it
        )
    parameters = sum(weight.numel() for name, weight in weights.items() if name != OUTPUT or not config.tie_embeddings)
    return Imported(path=target, config=config, architecture=family.architecture, parameters=parameters)


def _folder_name(folder: Path) -> str:
    """The model's name: the folder's, or in the hub's cache (models--ORG--NAME/snapshots/HASH) the one above."""
    place = folder.resolve()
    above = place.parent.parent.name
    cached = place.parent.name == "snapshots" and above.startswith("models--")
    return above.split("--")[-1] if cached else place.name


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which stored tensor goes where, decided from names and shapes alone."""

    config: GPTConfig
    tied: bool
    """Whether config.json ties the output layer to the embedding; both may be stored all the same."""
    places: Mapping[str, tuple[Rule, int]]
    """Stored name -> its rule, and its place among the rule's names."""

    @classmethod
    def make(cls, stored: WeightFolder, family: Family, config: GPTConfig) -> _Plan:
        """CheckpointError names the first tensor that is missing, of another shape, or of nobody knows what."""
        names, tied = _canonical_names(stored.tensors, family), config.tie_embeddings
        if family.head in names:  # both are stored: transformers then takes both as they are
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
                        needed=f"every weight of a {family.architecture} as config.json describes it",
                        fix=AGAIN,
                    )
                _check_shape(stored.tensors[names[name]], name, expected=tuple(tensor.shape))
                places[names[name]] = (rule, at)
        _refuse_unknown(stored, family, known=set(places))
        return cls(config=config, tied=tied, places=places)

    def read(self, stored: WeightFolder) -> dict[str, Tensor]:
        """Our state dict, both names of a tied weight included."""
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
    """Full name -> stored name: folders that were saved without the output layer lack the base's prefix."""
    head_layer = family.head.rpartition(".")[0]
    if any(name.startswith(family.base) for name in tensors):
        return {name: name for name in tensors}
    return {name if name.startswith(f"{head_layer}.") else f"{family.base}{name}": name for name in tensors}


def _check_shape(tensor: StoredTensor, name: str, *, expected: tuple[int, ...]) -> None:
    if tensor.shape != expected:
        raise CheckpointError(
            f"{name} in {tensor.file} has the shape {list(tensor.shape)}; by config.json it has {list(expected)}.",
            needed="config.json and weights of the same model",
            fix=AGAIN,
        )


def _refuse_unknown(stored: WeightFolder, family: Family, *, known: set[str]) -> None:
    others = [name for name in stored.tensors if name not in known and not re.search(family.ignored, name)]
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise CheckpointError(
            f"{stored.tensors[others[0]].file} holds {len(others)} weights that a {family.architecture} as config.json "
            f"describes it does not have: {shown}.",
            needed="config.json and weights of the same model",
            fix=AGAIN,
        )
