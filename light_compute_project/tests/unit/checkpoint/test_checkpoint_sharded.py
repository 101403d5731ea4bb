"""Sharded checkpoints: loaded as full tensors, verified, consolidated into a LitGPT directory."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from litgpt_core import checkpoint
from litgpt_core.checkpoint import sharded
from litgpt_core.checkpoint.consolidate import consolidate
from litgpt_core.checkpoint.verification import is_sharded
from litgpt_core.core.errors import CheckpointError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT

Save = Callable[..., Path]


@pytest.fixture
def model(config: GPTConfig) -> GPT:
    torch.manual_seed(0)
    return GPT(config)


@pytest.fixture
def parts(tmp_path: Path, save: Save, model: GPT) -> Path:
    tensors = {sharded.MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors[sharded.OPTIMIZER + "0/exp_avg"] = torch.arange(6.0)

    def fill(folder: Path) -> sharded.Facts:
        return sharded.write_shards(folder, tensors, group=None, gather=lambda value: [value])

    return save(tmp_path / "step-00000004", weights=None, fill=fill, extra={"resume.pt": {"x": 1}})


def test_shards_are_loaded_as_full_tensors(parts: Path, model: GPT) -> None:
    assert is_sharded(parts) and not (parts / "lit_model.pth").exists()
    read = sharded.read_full(parts, prefix=sharded.MODEL)
    assert read.keys() == model.state_dict().keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(sharded.read_full(parts, prefix=sharded.OPTIMIZER)["0/exp_avg"], torch.arange(6.0))
    assert checkpoint.resolve(parts.parent) == parts
    loaded = checkpoint.load_model(parts)
    assert all(
        torch.equal(p, q) for p, q in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_tied_weights_are_restored_as_one_tensor(tmp_path: Path, save: Save) -> None:
    table = torch.randn(4, 2)
    tensors = {f"{sharded.MODEL}{name}.weight": table for name in ("transformer.wte", "lm_head")}

    def fill(folder: Path) -> sharded.Facts:
        return sharded.write_shards(folder, tensors, group=None, gather=lambda value: [value])

    read = sharded.read_weights(save(tmp_path / "step-00000001", weights=None, fill=fill))
    assert read["lm_head.weight"] is read["transformer.wte.weight"]


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata"])
def test_a_corrupted_shard_is_named_and_never_pruned(parts: Path, save: Save, file: str) -> None:
    newer = save(parts.with_name("step-00000008"))
    whole = (parts / file).read_bytes()
    (parts / file).write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        checkpoint.verify(parts)
    checkpoint.prune(parts.parent, keep=1)
    assert parts.is_dir() and newer.is_dir()
    (parts / file).write_bytes(whole)
    checkpoint.prune(parts.parent, keep=1)
    assert not parts.exists(), "complete again and old: it is deleted"


def test_a_missing_shard_is_named(parts: Path) -> None:
    (parts / "__0_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp is missing"):
        checkpoint.verify(parts)
    with pytest.raises(CheckpointError, match="cannot be read"):
        sharded.read_full(parts, prefix=sharded.MODEL)


def test_a_missing_name_is_an_error(parts: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        sharded.read_shards(parts, {"model/nothing": torch.zeros(2)}, group=None)


def test_a_rank_that_cannot_write_ends_the_save_on_all(tmp_path: Path, save: Save) -> None:
    def fill(folder: Path) -> sharded.Facts:
        return sharded.write_shards(
            folder,
            {"model/w": torch.ones(2)},
            group=None,
            gather=lambda value: [value, ({}, "No space left on device")],
        )

    with pytest.raises(CheckpointError, match="No space left"):
        save(tmp_path / "step-00000001", weights=None, fill=fill)
    assert not list(tmp_path.glob("*step*"))


def test_consolidate(parts: Path, model: GPT, save: Save, tmp_path: Path) -> None:
    made = consolidate(parts, tmp_path / "consolidated")
    checkpoint.verify(made)
    assert not is_sharded(made) and not (made / "resume.pt").exists()
    assert all(torch.equal(checkpoint.load_weights(made)[n], t) for n, t in model.state_dict().items())
    with pytest.raises(CheckpointError, match="exists"):
        consolidate(parts, made)
    with pytest.raises(CheckpointError, match="already a LitGPT directory"):
        consolidate(made, tmp_path / "again")


def test_optimizer_states_are_flattened_and_restored() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    tensors, rest = sharded.flatten_state(state)
    assert set(tensors) == {"optimizer/0/step", "optimizer/0/exp_avg", "optimizer/0/exp_avg_sq"}
    joined = sharded.unflatten_state(tensors, rest)
    assert joined["param_groups"] == state["param_groups"]
    assert all(torch.equal(joined["state"][0][k], v) for k, v in state["state"][0].items())


class _Hostile:
    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call, self.arguments


def test_a_hostile_index_of_shards_runs_no_code(parts: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for hostile in (_Hostile(os.mkdir, str(mark)), {"a": [_Hostile(eval, f"open({str(mark)!r}, 'w')")]}):
        (parts / ".metadata").write_bytes(pickle.dumps(hostile))
        for read in (checkpoint.load_weights, lambda path: sharded.read_shards(path, {}, group=None)):
            with pytest.raises(CheckpointError, match="could run code"):
                read(parts)
            assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.state_dict_metadata.update({"model/lm_head.weight": BytesStorageMetadata()}), "BytesStorageMeta"),
        (lambda m: [setattr(p, "relative_path", "../x/__0_0.distcp") for p in m.storage_data.values()], "plain file"),
        (lambda m: [setattr(p, "transform_descriptors", ["zstd"]) for p in m.storage_data.values()], "plain file"),
        (lambda m: [setattr(e, "size", torch.Size([2**50])) for e in m.state_dict_metadata.values()], "describes"),
        (lambda m: [setattr(e, "size", (-1,)) for e in m.state_dict_metadata.values()], "instead of sizes"),
        (lambda m: setattr(m, "state_dict_metadata", {"model/w": 1}), "not a tensor"),
    ],
)
def test_an_index_of_shards_that_lies_is_refused(parts: Path, change: Callable[[Any], object], message: str) -> None:
    metadata = pickle.loads((parts / ".metadata").read_bytes())
    change(metadata)
    (parts / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load_weights(parts)
