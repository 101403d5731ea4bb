"""Many shards as one row: the same batches as from one file however they are cut; blocks in a seeded order."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from litgpt_core.core.errors import DataError
from litgpt_core.data.dataset import TrainBatches, ValBatches
from litgpt_core.data.order import epoch_keys, permute_blocks
from litgpt_core.data.stream import token_row
from litgpt_core.data.stream.manifest import Shard
from litgpt_core.data.stream.token_row import TokenRow, sample_tokens


def cut(folder: Path, sizes: list[int], *, offset: int = 0) -> list[Shard]:
    """Token i of the row has the value i."""
    shards, first = [], 0
    for number, size in enumerate(sizes):
        path = folder / f"{number}.ds"
        path.write_bytes(bytes(offset) + np.arange(first, first + size, dtype="<u2").tobytes())
        shards.append(Shard(path=path, offset=offset, tokens=size))
        first += size
    return shards


@pytest.mark.parametrize("sizes", [[1003], [500, 503], [7, 1, 1, 490, 3, 501], [17] * 59])
@pytest.mark.parametrize("offset", [0, 1024])
def test_batches_do_not_depend_on_the_cut(
    tmp_path: Path, sizes: list[int], offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_row, "MAPPED", 3)
    one = tmp_path / "one.bin"
    np.arange(1003, dtype="<u2").tofile(one)
    options = {"dtype": "uint16", "block_size": 8, "seed": 3, "micro_batch_size": 4}
    whole, many = TrainBatches(one, **options), TrainBatches(cut(tmp_path, sizes, offset=offset), **options)  # type: ignore[arg-type]
    assert many.windows == whole.windows
    for k in (*range(70), 10**12):
        assert all(np.array_equal(a, b) for a, b in zip(many[k], whole[k], strict=True))
    copy = pickle.loads(pickle.dumps(many))
    assert all(np.array_equal(a, b) for a, b in zip(copy[5], whole[5], strict=True))
    held_out = {"dtype": "uint16", "block_size": 8, "batch_size": 5}
    a, b = ValBatches(one, **held_out), ValBatches(cut(tmp_path, sizes, offset=offset), **held_out)  # type: ignore[arg-type]
    assert len(a) == len(b) and a.target_tokens == b.target_tokens
    for k in range(len(a)):
        assert all(np.array_equal(x, y) for x, y in zip(a[k], b[k], strict=True))


def test_spans_and_samples(tmp_path: Path) -> None:
    row = TokenRow(cut(tmp_path, [10, 20, 30]), dtype="uint16")
    assert row.span(5, 35).tolist() == list(range(5, 35)) and row.span(55, 99).tolist() == list(range(55, 60))
    assert row.span(60, 70).tolist() == [] and len(row._mapped) == 3
    for outside in (np.array([-1]), np.array([0, 57])):
        with pytest.raises(IndexError):
            row.windows(outside, 4)
    with pytest.raises(IndexError):
        row.span(-1, 3)
    assert sample_tokens(row.shards, dtype="uint16").tolist() == list(range(60))
    few = sample_tokens(cut(tmp_path, [3000, 3000]), dtype="uint16", at_most=640)
    assert len(few) == 640 and few[0] == 0 and few[-1] == 5999


def test_a_shard_that_is_missing_or_short_is_named(tmp_path: Path) -> None:
    shards = cut(tmp_path, [10, 20])
    shards[1].path.write_bytes(bytes(39))
    with pytest.raises(DataError, match=r"1\.ds has 39 bytes, too few for 20 tokens"):
        TokenRow(shards, dtype="uint16")
    shards[1].path.unlink()
    with pytest.raises(DataError, match=r"cannot open the token shard .*1\.ds"):
        TokenRow(shards, dtype="uint16")


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**40))
def test_blocks_visit_every_window_once_and_stay_together(n: int, block: int, group: int, seed: int) -> None:
    keys = epoch_keys(seed, np.zeros(n, dtype=np.int64))
    order = permute_blocks(np.arange(n, dtype=np.int64), n=n, keys=keys, block=block, group=group)
    assert sorted(order.tolist()) == list(range(n))
    entire = n // block * block
    for begin in range(0, entire, block * group):
        at_once = {window // block for window in order[begin : min(begin + block * group, entire)].tolist()}
        assert len(at_once) <= group, "windows of more blocks than a group has are read at a time"
    assert set(order[entire:].tolist()) == set(range(entire, n))
    one = permute_blocks(np.array([n - 1]), n=n, keys=keys[:1], block=block, group=group)
    assert one[0] == order[n - 1], "every position by itself"


def test_blocks_differ_by_epoch_and_seed_and_cover_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litgpt_core.data.dataset.BLOCK_BYTES", 8 * 2 * 4)
    monkeypatch.setattr("litgpt_core.data.dataset.BLOCKS_AT_ONCE", 3)
    shards = cut(tmp_path, [400, 603])
    options = {"dtype": "uint16", "block_size": 8, "micro_batch_size": 1, "order": "blocks"}
    data = TrainBatches(shards, seed=1, **options)  # type: ignore[arg-type]
    epochs = []
    for epoch in range(3):
        starts = np.concatenate([data.starts(k) for k in range(epoch * data.windows, (epoch + 1) * data.windows)])
        windows = (starts - starts.min()) // 8
        assert sorted(windows.tolist()) == list(range(data.windows))
        epochs.append(windows.tolist())
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != TrainBatches(shards, seed=2, **options).starts(0).tolist()  # type: ignore[arg-type]
