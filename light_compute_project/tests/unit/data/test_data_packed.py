"""Packed documents: every target once per epoch, no document cut that fits, the same for every world size."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.dataset import IGNORE_INDEX
from litgpt_core.data.packed_dataset import PackedBatches
from litgpt_core.data.prepare import PreparedData, open_prepared, prepare
from litgpt_core.data.stream import packed_rows
from litgpt_core.data.stream.token_row import TokenRow
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.settings import ByteSettings

T = 64


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedData:
    """Documents of 1 to 150 bytes, in several shards; plans of small groups."""
    monkeypatch.setattr(packed_rows, "GROUP", 40)
    monkeypatch.setattr(packed_rows, "_AT_ONCE", 333)
    rng = random.Random(0)
    rows = [json.dumps({"text": "".join(rng.choices("abcdefgh", k=rng.randrange(1, 150)))}) for _ in range(150)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    settings = RowsSettings(
        path=str(tmp_path / "a.jsonl"), cache_dir=str(tmp_path), workers=1, chunk_bytes=4_000, packing="best_fit"
    )
    return prepare(settings, ByteSettings())


def batches(prepared: PreparedData, **more: Any) -> PackedBatches:
    options = {"block_size": T, "seed": 3, "micro_batch_size": 4, "global_batch_size": 8, **more}
    found = prepared.train_batches(**options)
    assert isinstance(found, PackedBatches)
    return found


def documents(prepared: PreparedData) -> list[list[int]]:
    row = TokenRow(prepared.shards("train"), dtype=prepared.dtype)
    ids = row.span(0, row.tokens)
    return [part.tolist() for part in np.split(ids, np.flatnonzero(ids == prepared.eos_id) + 1)[:-1]]


def test_every_target_is_learnt_once_per_epoch_and_short_documents_stay_whole(prepared: PreparedData) -> None:
    data = batches(prepared, micro_batch_size=1, global_batch_size=1)
    parts = []
    for k in range(len(data.plan)):
        inputs, targets, segments, count = data[k]
        assert (
            int(count) == int((targets != IGNORE_INDEX).sum()) and ((segments > 0) == (targets != IGNORE_INDEX)).all()
        )
        for segment in range(1, int(segments.max()) + 1):
            here = segments[0] == segment
            ids = [*inputs[0][here].tolist(), int(targets[0][here][-1])]
            assert ids[1:] == targets[0][here].tolist()
            parts.append(ids)
    expected = []
    for ids in documents(prepared):  # the slow reference: cut each document by itself
        while len(ids) > 1:
            expected.append(ids[: T + 1])
            ids = ids[T:]
    assert sorted(parts) == sorted(expected)
    assert len(data.plan) * T < 1.15 * sum(len(part) - 1 for part in parts), "little padding"


def test_order_and_counts_do_not_depend_on_the_processes(prepared: PreparedData) -> None:
    data = batches(prepared)
    for k in (0, 3, 41, 10**9):
        whole = data[k]
        ranks = [batches(prepared, micro_batch_size=2, rank=rank, world_size=2)[k] for rank in (0, 1)]
        for at in range(3):
            assert torch.equal(torch.cat([part[at] for part in ranks]), whole[at])
        assert whole[3] == ranks[0][3] == ranks[1][3]
        step = [data[k // 2 * 2 + i] for i in range(2)]
        assert int(whole[3]) == sum(int((part[1] != IGNORE_INDEX).sum()) for part in step)
    assert batches(prepared, seed=4)[0][0].tolist() != data[0][0].tolist()


def test_the_plan_is_kept_in_the_folder(prepared: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    first = batches(prepared).plan
    monkeypatch.setattr(packed_rows, "_make", None)
    again = batches(prepared).plan
    assert np.array_equal(first.parts, again.parts) and np.array_equal(first.bounds, again.bounds)
    assert open_prepared(prepared.directory).fingerprint == prepared.fingerprint
    assert sorted(path.name for path in prepared.directory.glob("rows-*")) == [f"rows-{T}.bounds", f"rows-{T}.parts"]


def test_what_has_no_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match="order=blocks has no effect with packing=best_fit"):
        RowsSettings(path="x", packing="best_fit", order="blocks")
    with pytest.raises(ConfigError, match="packing='crop'"):
        RowsSettings(path="x", packing="crop")  # type: ignore[arg-type]
