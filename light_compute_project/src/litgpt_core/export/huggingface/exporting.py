"""Exports a checkpoint directory, atomically, to a folder that transformers' `AutoModelForCausalLM` loads.

The weights are memory-mapped from the checkpoint and written shard by shard, so only one shard is in memory at a time.
Weights keep their dtype and their bits; only names and the order of rows change.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from litgpt_core.checkpoint import load_model, locate
from litgpt_core.checkpoint.compressed import read_compressed
from litgpt_core.checkpoint.load import EMBEDDING, OUTPUT, empty_model
from litgpt_core.checkpoint.verification import is_compressed
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.export.huggingface.families import choose, write_config
from litgpt_core.export.huggingface.family import Family
from litgpt_core.export.huggingface.layout import CONFIG, SAFETENSORS, SAFETENSORS_INDEX, SHARD
from litgpt_core.export.huggingface.packed import packed_rules, packed_weights, quantization_config
from litgpt_core.export.huggingface.rules import Rule
from litgpt_core.export.huggingface.vocabulary import write_tokenizer
from litgpt_core.export.writing import export_folder
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.structure import structure

logger = logging.getLogger(__name__)

MAX_SHARD_BYTES = 5_000_000_000
"""Larger models are written as several files, as usual on the hub."""

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float64: "float64"}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The result of `export_directory`."""

    path: Path
    architecture: str
    """The class of transformers that loads it."""
    weight_bytes: int
    files: tuple[str, ...]
    """Names of the weight files."""
    added_zeros: int
    """Number of biases that the model does not have, written as zeros."""


def export_directory(
    checkpoint: str | Path | None,
    target: Path,
    *,
    force: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    packed: bool = False,
) -> Exported:
    """Write a checkpoint (a directory of ours or LitGPT's, or a run folder) as a Hugging Face folder.

    Args:
        checkpoint: A name or path as for `litgpt_core.checkpoint.choose`; None: the best candidate.
        target: The folder to create.
        force: Replace an existing `target` that this project wrote, after the new folder is complete.
        max_shard_bytes: Maximum size of a weight file; a larger single weight gets its own file.
        packed: Keep the codes of a compressed directory: see `packed`. The rest becomes float16.

    Raises:
        CheckpointError: The checkpoint is missing or corrupted, no supported architecture is equivalent, or `target`
            exists or cannot be written. No partial folder remains.
        TokenizerError: The tokenizer cannot be read.
    """
    target = Path(target)
    directory = locate(checkpoint)
    refuse_taken(target, source=directory, force=force)
    model = load_model(directory, dequantize=True)
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tied = torch.equal(weights[OUTPUT], weights[EMBEDDING])
    family, config = choose(dataclasses.replace(model.config, tie_embeddings=tied))
    added = add_zero_biases(weights, family, config)
    rules = [rule for rule in family.rules(config) if not (tied and OUTPUT in rule.ours)]
    matrices = _matrices(directory) if packed else {}
    kept = packed_rules(rules, matrices) if packed else {}
    linear_names = {f"{path}.weight" for path, _ in structure(config).linears()}
    if packed:
        weights = {name: _half(name, tensor) for name, tensor in weights.items()}
    shards = _shards(rules, weights, max_shard_bytes=max_shard_bytes)
    with export_folder(target, n_bytes=sum(tensor.nbytes for tensor in weights.values())) as folder:
        files, n_bytes = _write_weights(folder, shards, weights, kept=kept, matrices=matrices)
        ids = write_tokenizer(directory, folder, longest=config.block_size)
        settings = {**write_config(family, config), **ids, "torch_dtype": _DTYPES[weights[EMBEDDING].dtype]}
        if packed:
            linears = [rule.theirs for rule in rules if any(name in linear_names for name in rule.ours)]
            settings["quantization_config"] = quantization_config(kept, [*itertools.chain(*linears)], head=family.head)
        (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return Exported(
        path=target,
        architecture=family.architecture,
        weight_bytes=n_bytes,
        files=tuple(files),
        added_zeros=added,
    )


def add_zero_biases(weights: dict[str, Tensor], family: Family, config: GPTConfig) -> int:
    """Add to `weights` the biases that the model does not have, as zeros; returns the number of tensors."""
    shapes = empty_model(config).state_dict()
    missing = [name for name in shapes if name not in weights]
    if missing:
        logger.info("%s has biases, this model has none: %s tensors are zeros", family.architecture, len(missing))
    for name in missing:
        assert name.endswith("bias"), f"choose() only adds biases, not {name}"
        weights[name] = torch.zeros(shapes[name].shape, dtype=weights[EMBEDDING].dtype)
    return len(missing)


def _bytes(rule: Rule, weights: Mapping[str, Tensor]) -> int:
    return sum(weights[name].nbytes for name in rule.ours)


def _shards(rules: list[Rule], weights: Mapping[str, Tensor], *, max_shard_bytes: int) -> list[list[Rule]]:
    """Rules in order, split into shards of limited size. The tensors of one rule stay together."""
    shards: list[list[Rule]] = [[]]
    size = 0
    for rule in rules:
        grown = _bytes(rule, weights)
        if shards[-1] and size + grown > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(rule)
        size += grown
    return shards


def _converted(
    rules: list[Rule], weights: Mapping[str, Tensor], *, kept: Mapping[str, int], matrices: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    for rule in rules:
        if rule.theirs[0] in kept:
            yield from packed_weights(rule, matrices).items()
            continue
        theirs = rule.to_theirs([weights[name] for name in rule.ours])
        yield from zip(rule.theirs, (tensor.contiguous() for tensor in theirs), strict=True)


def _write_weights(
    folder: Path,
    shards: list[list[Rule]],
    weights: Mapping[str, Tensor],
    *,
    kept: Mapping[str, int],
    matrices: Mapping[str, Any],
) -> tuple[list[str], int]:
    """The weight files, and their index if there are several; returns the files' names and the bytes of all tensors."""
    names: list[str] = []
    places: dict[str, str] = {}
    total = 0
    for number, rules in enumerate(shards, start=1):
        name = SAFETENSORS if len(shards) == 1 else SHARD.format(number=number, total=len(shards))
        tensors = dict(_converted(rules, weights, kept=kept, matrices=matrices))
        save_file(tensors, folder / name, metadata={"format": "pt"})
        names.append(name)
        places |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
        del tensors
    if len(shards) > 1:
        index: dict[str, Any] = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / SAFETENSORS_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return names, total


def _matrices(directory: Path) -> Mapping[str, Any]:
    if not is_compressed(directory):
        raise CheckpointError(
            f"{directory} is not compressed.", needed="integer codes", fix=f"lcp compress {directory} int4"
        )
    return read_compressed(directory).matrices


def _half(name: str, tensor: Tensor) -> Tensor:
    half = tensor.half()
    if not bool(half.isfinite().all()):
        raise CheckpointError(f"{name} has a number beyond float16.", needed="weights up to 65504")
    return half
