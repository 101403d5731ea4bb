"""Batches from shards: the shift by one, exact coverage, and an order that no world size, worker or restart changes."""

from __future__ import annotations

import itertools
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from litgpt_core.core.errors import DataError
from litgpt_core.data.dataset import IGNORE_INDEX, TrainBatches, ValBatches


def shard(folder: Path, tokens: int, *, dtype: str = "uint16") -> Path:
    """Token i has the value i, so that a batch tells where it was taken from."""
    path = folder / f"{tokens}-{dtype}.bin"
    np.arange(tokens, dtype=np.dtype(dtype).newbyteorder("<")).tofile(path)
    return path


def train(path: Path, **changes: object) -> TrainBatches:
    return TrainBatches(path, **{"dtype": "uint16", "block_size": 8, "seed": 1, "micro_batch_size": 4, **changes})


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_targets_are_the_next_tokens(tmp_path: Path, dtype: str) -> None:
    data = train(shard(tmp_path, 1000, dtype=dtype), dtype=dtype)
    for k in (0, 3, 10**12):
        inputs, targets = data[k]
        assert inputs.shape == targets.shape == (4, 8)
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.is_contiguous() and targets.is_contiguous()
        assert torch.equal(targets, inputs + 1)
        assert torch.equal(inputs, inputs[:, :1] + torch.arange(8))
        assert inputs[:, 0].tolist() == data.starts(k).tolist()


def test_large_ids_survive_uint32(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    np.full(20, 4_000_000_000, dtype="<u4").tofile(path)
    assert int(train(path, dtype="uint32")[0][0].max()) == 4_000_000_000


def test_each_epoch_visits_every_window_once_at_its_own_offset(tmp_path: Path) -> None:
    data = train(shard(tmp_path, 1003), micro_batch_size=1)
    offsets = set()
    for epoch in range(20):
        n = data.samples_per_epoch
        starts = np.concatenate([data.starts(k) for k in range(epoch * n, (epoch + 1) * n)])
        offset = int(starts.min())
        assert 0 <= offset < 8
        assert sorted(starts.tolist()) == list(range(offset, offset + 8 * n, 8))
        assert starts.max() + 8 < 1003
        offsets.add(offset)
    assert len(offsets) > 4


@pytest.mark.parametrize("tokens", [9, 10, 15, 16, 17, 23, 24, 25, 31, 33])
def test_short_shards_never_read_past_the_end(tmp_path: Path, tokens: int) -> None:
    data = train(shard(tmp_path, tokens))
    starts = np.concatenate([data.starts(k) for k in range(60)])
    assert starts.min() == 0
    assert starts.max() + 8 + 1 <= tokens
    if tokens < 24:  # one window per epoch: every place it can stand is used
        assert set(starts.tolist()) == set(range(min(8, tokens - 8)))


@pytest.mark.parametrize(("world_size", "micro"), [(1, 8), (2, 4), (4, 2), (8, 1), (2, 2)])
def test_order_does_not_depend_on_how_the_work_is_shared(tmp_path: Path, world_size: int, micro: int) -> None:
    path = shard(tmp_path, 500)
    expected = np.concatenate([train(path, micro_batch_size=1).starts(g) for g in range(160)])
    ranks = [train(path, micro_batch_size=micro, rank=r, world_size=world_size) for r in range(world_size)]
    count = 160 // (world_size * micro)
    seen = np.concatenate([rank.starts(k) for k in range(count) for rank in ranks])
    assert seen.tolist() == expected.tolist()


def test_seed_changes_the_order_and_nothing_else_does(tmp_path: Path) -> None:
    path = shard(tmp_path, 5000)
    assert train(path).starts(5).tolist() == train(path).starts(5).tolist()
    assert train(path).starts(5).tolist() != train(path, seed=2).starts(5).tolist()
    torch.manual_seed(123)
    np.random.seed(5)  # noqa: NPY002
    assert train(path).starts(5).tolist() == train(path).starts(5).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restart_continues_the_undisturbed_order(tmp_path: Path, workers: int) -> None:
    data = train(shard(tmp_path, 500))

    def batches(start: int, count: int) -> list[list[int]]:
        loader = DataLoader(data, batch_size=None, sampler=range(start, start + count + 4), num_workers=workers)
        return [inputs[:, 0].tolist() for inputs, _ in itertools.islice(loader, count)]

    undisturbed = batches(0, 30)
    assert batches(13, 17) == undisturbed[13:]
    assert undisturbed == [data.starts(k).tolist() for k in range(30)]


def test_pickling_carries_the_path_and_not_the_tokens(tmp_path: Path) -> None:
    data = train(shard(tmp_path, 60_000))
    expected = data[3][0]
    frozen = pickle.dumps(data)
    assert len(frozen) < 2000
    assert torch.equal(pickle.loads(frozen)[3][0], expected)


def test_any_position_costs_the_same(tmp_path: Path) -> None:
    data = train(shard(tmp_path, 60_000), micro_batch_size=64)
    data[0]
    start = time.perf_counter()
    for k in range(10**12, 10**12 + 50):
        data[k]
    assert time.perf_counter() - start < 1.0


def test_a_shard_below_one_sample_names_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"100 tokens.*block_size=128") as caught:
        train(shard(tmp_path, 100), block_size=128)
    assert "129 tokens" in str(caught.value)
    assert "model.block_size=64" in str(caught.value)


def test_missing_and_truncated_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.bin"):
        train(tmp_path / "nowhere.bin")
    (tmp_path / "truncated.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match="3 bytes"):
        train(tmp_path / "truncated.bin")


@pytest.mark.parametrize("tokens", [2, 8, 9, 10, 65, 66, 100, 129])
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 3), (2, 2), (3, 64), (5, 1)])
def test_validation_scores_every_target_once(tmp_path: Path, tokens: int, world_size: int, batch_size: int) -> None:
    path = shard(tmp_path, tokens)
    seen: list[int] = []
    lengths = set()
    for rank in range(world_size):
        data = ValBatches(path, dtype="uint16", block_size=8, batch_size=batch_size, rank=rank, world_size=world_size)
        lengths.add(len(data))
        for inputs, targets in (data[i] for i in range(len(data))):
            assert inputs.shape == targets.shape == (data.batch_size, 8)
            real = targets != IGNORE_INDEX
            assert torch.equal(targets[real], inputs[real] + 1)
            assert not inputs[~real].any()
            seen += targets[real].tolist()
    assert sorted(seen) == list(range(1, tokens))
    assert len(lengths) == 1
    assert data.target_tokens == tokens - 1


def test_a_limited_validation_is_fixed_and_evenly_spread(tmp_path: Path) -> None:
    path = shard(tmp_path, 8 * 100 + 1)

    def starts(max_tokens: int, world_size: int = 1) -> list[int]:
        found = []
        for rank in range(world_size):
            data = ValBatches(
                path,
                dtype="uint16",
                block_size=8,
                batch_size=4,
                max_tokens=max_tokens,
                rank=rank,
                world_size=world_size,
            )
            rows = [(i, t) for b in range(len(data)) for i, t in zip(*data[b], strict=True)]
            found += [int(inputs[0]) for inputs, targets in rows if (targets != IGNORE_INDEX).any()]
            assert data.target_tokens == max_tokens // 8 * 8
        return sorted(found)

    assert starts(80) == [8 * 10 * i for i in range(10)]
    assert starts(87) == starts(80) == starts(80, world_size=3)
    assert starts(8) == [0]
    assert starts(800) == [8 * i for i in range(100)]


def test_validation_needs_two_tokens(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 1 tokens"):
        ValBatches(shard(tmp_path, 1), dtype="uint16", block_size=8, batch_size=1)
