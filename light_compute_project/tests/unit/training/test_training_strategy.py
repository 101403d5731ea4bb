"""What the sharded strategy does apart from collective operations, which integration tests run in several processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from litgpt_core.checkpoint import load as load_room
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.world import World
from litgpt_core.training import random_state
from litgpt_core.training.strategy import ShardedStrategy, _like


def strategy(*, rank: int = 0, cpu_offload: bool = False) -> ShardedStrategy:
    group = ProcessGroup(World(rank=rank, world_size=2, local_rank=rank, local_world_size=2))
    return ShardedStrategy(group, directory_io=None, in_parts=False, cpu_offload=cpu_offload)  # type: ignore[arg-type]


@pytest.mark.parametrize("cpu_offload", [True, False])
def test_shards_in_the_hosts_memory_are_not_moved(cpu_offload: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving them would give DTensors whose device is the GPU around tensors on the CPU, which FSDP2 refuses."""
    moved: list[Any] = []
    monkeypatch.setattr(ModelParallelStrategy, "model_to_device", lambda self: moved.append(self))
    strategy(cpu_offload=cpu_offload).model_to_device()
    assert bool(moved) is not cpu_offload


@pytest.mark.parametrize("rank", [0, 1])
def test_only_rank_zero_copies_gathered_tensors_to_the_host(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sharded(torch.Tensor):
        copies = 0

        def full_tensor(self) -> torch.Tensor:
            return self

        def cpu(self, *arguments: Any, **options: Any) -> torch.Tensor:
            Sharded.copies += 1
            return super().cpu(*arguments, **options)

    monkeypatch.setattr("litgpt_core.training.strategy.DTensor", Sharded)
    shared = strategy(rank=rank)
    module = torch.nn.Module()
    monkeypatch.setattr(ShardedStrategy, "lightning_module", property(lambda _: module))
    whole = shared._whole({"a": torch.ones(3).as_subclass(Sharded), "b": torch.zeros(2).as_subclass(Sharded)})
    assert Sharded.copies == (2 if rank == 0 else 0)
    assert list(whole) == (["a", "b"] if rank == 0 else [])


def test_the_random_state_of_mps_is_saved_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[torch.Tensor] = []
    state = torch.arange(8, dtype=torch.uint8)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch.mps, "set_rng_state", restored.append)
    random_state.set_random_state(random_state.random_state())
    assert len(restored) == 1 and torch.equal(restored[0], state)


def test_a_resume_maps_the_file_and_copies_what_it_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of a machine would otherwise hold the whole optimizer's state in the host's memory."""
    (tmp_path / "checkpoint").mkdir()
    torch.save({"state": torch.arange(4.0)}, tmp_path / "checkpoint" / "resume.pt")
    asked: list[Any] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: asked.append(options["mmap"]) or load(*args, **options))
    monkeypatch.setattr(load_room, "resolve", lambda path: path)
    found = load_room.load_extra(tmp_path / "checkpoint", "resume.pt", mmap=True)
    assert asked == [sys.platform != "win32"] and found["state"].tolist() == [0, 1, 2, 3]
    kept = _like(found["state"], torch.zeros(4))
    assert kept.data_ptr() != found["state"].data_ptr(), "the checkpoint may be deleted while the run goes on"

    class Directory:
        def load_checkpoint(self, directory: Path, *, mmap: bool) -> dict[str, bool]:
            return {"mmap": mmap}

    shared = strategy()
    shared.directory_io = Directory()  # type: ignore[assignment]
    monkeypatch.setattr("litgpt_core.training.strategy.is_sharded", lambda directory: False)
    assert shared.load_checkpoint(tmp_path) == {"mmap": True}
