"""Checkpoints that every process writes its own part of, and how they become whole tensors again.

The tensors lie in PyTorch's distributed checkpoint format (`.metadata` and `__<rank>_<n>.distcp`) beside the other
files of a checkpoint directory, under flat names: `model/<name>` for weights and `optimizer/<index>/<key>` for the
optimizer's state. Any number of processes can read what any other number has written. `checksums.json` covers all
parts, so a torn one is noticed like any other.
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


def write_parts(
    folder: Path, tensors: Mapping[str, Tensor], *, group: dist.ProcessGroup | None, gather: Callable[[Any], list[Any]]
) -> Facts:
    """Write every process's parts into `folder`, which exists; all ranks call it.

    Args:
        folder: The same for all.
        tensors: Flat names; DTensors are written part by part, plain tensors by one rank.
        group: A gloo group over all ranks.
        gather: Collects every rank's value on every rank.

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
    everybodys = gather((facts, _reason(problem)))
    reasons = [reason for _, reason in everybodys if reason]
    if reasons:
        raise CheckpointError(
            f"a process could not write its part of the checkpoint {folder.name}: {reasons[0]}",
            needed="room and rights in the run folder on every node",
            fix="free some, then the same command with run.resume=auto",
        ) from problem
    return {name: entry for part, _ in everybodys for name, entry in part.items()}


def read_parts(directory: Path, into: Mapping[str, Tensor], *, group: dist.ProcessGroup | None) -> None:
    """Fill tensors, in place, with what a sharded checkpoint holds under their names; DTensors take their part.

    Raises:
        CheckpointError: A name or a shape is not there, or a file is damaged.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        reader = FileSystemReader(directory)
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process reads: that is meant
        load(dict(into), storage_reader=reader, process_group=group, no_dist=group is None)
    except (CheckpointException, RuntimeError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"the parts in {directory} cannot be read: {_reason(error)}",
            needed="the parts of the same model, undamaged",
            fix="take another checkpoint of the run",
        ) from error


def part_shapes(directory: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Flat name -> whole shape and type of every tensor in a sharded checkpoint.

    Raises:
        CheckpointError: Its index is damaged.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        entries = FileSystemReader(directory).read_metadata().state_dict_metadata
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(
            f"{directory / SHARDS} cannot be read: {_reason(error)}",
            needed="an undamaged index of the parts",
            fix="take another checkpoint of the run",
        ) from error
    return {
        name: (entry.size, entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def read_whole(directory: Path, *, prefix: str) -> dict[str, Tensor]:
    """All tensors below `prefix` (`MODEL` or `OPTIMIZER`), whole, on the CPU, by one process; names without it."""
    tensors = {
        name: torch.empty(shape, dtype=dtype)
        for name, (shape, dtype) in part_shapes(directory).items()
        if name.startswith(prefix)
    }
    read_parts(directory, tensors, group=None)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All weights, whole, on the CPU, by one process; an embedding that is tied to the output is one tensor again.

    Every name has parts of its own in the files. After training, two tensors are equal only if they are one.
    """
    weights = read_whole(directory, prefix=MODEL)
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
    """An optimizer's state dict as (flat tensors, the rest); `unflatten_state` joins them again."""
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
    """The optimizer's state dict of `flatten_state`, from names with or without their prefix."""
    state: dict[int, dict[str, Any]] = {index: dict(values) for index, values in rest["state"].items()}
    for name, tensor in tensors.items():
        index, key = name.removeprefix(OPTIMIZER).split("/", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {**rest, "state": state}
