"""Sharded checkpoints, of which every process writes its own shards, and how to load them as full tensors.

The tensors are in PyTorch's distributed checkpoint format (`.metadata` and `__<rank>_<n>.distcp`) alongside the other
files of a checkpoint directory, under flat names: `model/<name>` for weights and `optimizer/<index>/<key>` for the
optimizer's state. They can be loaded by another number of processes than wrote them. `checksums.json` covers all
shards, so that corruption is detected.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from litgpt_core.checkpoint.layout import SHARDS
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import sha256_of

if TYPE_CHECKING:
    import torch.distributed as dist

MODEL, OPTIMIZER = "model/", "optimizer/"

Facts = dict[str, dict[str, int | str]]


def write_shards(
    folder: Path, tensors: Mapping[str, Tensor], *, group: dist.ProcessGroup | None, gather: Callable[[Any], list[Any]]
) -> Facts:
    """Write the shards of every process into the existing `folder`; called by all ranks.

    Args:
        folder: The same on all ranks.
        tensors: By flat name; each rank writes its shard of a DTensor, and one rank writes plain tensors.
        group: A gloo group over all ranks.
        gather: Gathers the values of all ranks on every rank.

    Returns:
        Size and hash of every file written, on every rank.

    Raises:
        CheckpointError: A rank could not write.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    problem: BaseException | None = None
    facts: Facts = {}
    try:
        save(dict(tensors), storage_writer=FileSystemWriter(folder), process_group=group)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        index = [folder / SHARDS] if rank == 0 else []
        for file in [*sorted(folder.glob(f"__{rank}_*.distcp")), *index]:
            facts[file.name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    except (CheckpointException, OSError) as error:
        problem = error
    gathered = gather((facts, _reason(problem)))
    reasons = [reason for _, reason in gathered if reason]
    if reasons:
        raise CheckpointError(
            f"a process could not write its shards of the checkpoint {folder.name}: {reasons[0]}",
            needed="disk space and write permission in the run folder on every node",
            fix="free disk space, then run the same command with run.resume=auto",
        ) from problem
    return {name: entry for part, _ in gathered for name, entry in part.items()}


def read_shards(directory: Path, into: Mapping[str, Tensor], *, group: dist.ProcessGroup | None) -> None:
    """Load a sharded checkpoint in place into tensors, by name; each rank loads its own shard of a DTensor.

    Raises:
        CheckpointError: A name is missing, a shape differs, or a file is corrupted.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    from litgpt_core.checkpoint.shard_reader import ShardReader

    try:
        reader = ShardReader(directory)
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # reading in one process is intended
        load(dict(into), storage_reader=reader, process_group=group, no_dist=group is None)
    except (CheckpointException, RuntimeError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"the shards in {directory} cannot be read: {_reason(error)}",
            needed="uncorrupted shards of the same model",
            fix="use another checkpoint of the run",
        ) from error


def tensor_shapes(directory: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Flat name -> full shape and dtype of every tensor in a sharded checkpoint.

    Raises:
        CheckpointError: Its index is corrupted.
    """
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    from litgpt_core.checkpoint.shard_reader import ShardReader

    try:
        entries = ShardReader(directory).read_metadata().state_dict_metadata
    except Exception as error:  # a corrupted pickle can raise any exception
        raise CheckpointError(
            f"{directory / SHARDS} cannot be read: {_reason(error)}",
            needed="an uncorrupted index of the shards",
            fix="use another checkpoint of the run",
        ) from error
    return {
        name: (entry.size, entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def read_full(directory: Path, *, prefix: str) -> dict[str, Tensor]:
    """All full tensors under `prefix` (`MODEL` or `OPTIMIZER`), on the CPU, in one process; names without it."""
    tensors = {
        name: torch.empty(shape, dtype=dtype)
        for name, (shape, dtype) in tensor_shapes(directory).items()
        if name.startswith(prefix)
    }
    read_shards(directory, tensors, group=None)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All full weights, on the CPU, in one process; restores the tie of the embedding and the output layer.

    The files store tied weights under both names. After training, two tensors are equal only if they are tied.
    """
    weights = read_full(directory, prefix=MODEL)
    embedding, output = weights.get("transformer.wte.weight"), weights.get("lm_head.weight")
    if embedding is not None and output is not None and torch.equal(embedding, output):
        weights["lm_head.weight"] = embedding
    return weights


def _reason(problem: BaseException | None) -> str:
    if problem is None:
        return ""
    causes = getattr(problem, "failures", None)
    if causes:
        first = next(iter(causes.values()))
        problem = first[0] if isinstance(first, tuple) else first
    return str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__


def flatten_state(optimizer_state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state dict into (flat tensors, the rest); `unflatten_state` is the inverse."""
    tensors: dict[str, Tensor] = {}
    plain: dict[int, dict[str, Any]] = {}
    for index, state in optimizer_state["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{index}/{key}"] = value
            else:
                plain.setdefault(index, {})[key] = value
    return tensors, {**optimizer_state, "state": plain}


def unflatten_state(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten_state`; accepts names with or without their prefix."""
    state: dict[int, dict[str, Any]] = {index: dict(values) for index, values in rest["state"].items()}
    for name, tensor in tensors.items():
        index, key = name.removeprefix(OPTIMIZER).split("/", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {**rest, "state": state}
