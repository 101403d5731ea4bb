"""Mixtures: exact shares in every cycle, stages, each sample of a source once per pass, for every world size."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.mixture import MixtureOrder, Stage, quotas
from litgpt_core.data.mixture_data import MixtureData
from litgpt_core.data.module import TokenDataModule
from litgpt_core.data.prepare import PreparedData, open_prepared, prepare
from litgpt_core.data.stream_settings import MixtureSettings, RowsSettings
from litgpt_core.tokenizers.settings import ByteSettings, SubwordSettings

Weights = st.lists(st.floats(0, 100), min_size=1, max_size=5).filter(lambda weights: sum(weights) > 0)


def located(order: MixtureOrder, count: int) -> list[tuple[int, int]]:
    sources, ordinals = order.locate(np.arange(count, dtype=np.int64))
    return list(zip(sources.tolist(), ordinals.tolist(), strict=True))


@given(Weights, st.integers(1, 5000))
def test_quotas_add_up_and_are_off_by_less_than_one(weights: list[float], cycle: int) -> None:
    found = quotas(weights, cycle=cycle)
    assert sum(found) == cycle
    assert all(abs(q - w / sum(weights) * cycle) < 1 + 1e-6 for q, w in zip(found, weights, strict=True))


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(1, 60), st.integers(0, 2**32))
def test_shares_are_exact_in_every_cycle_and_ordinals_have_no_gap(data: Any, cycle: int, seed: int) -> None:
    count = data.draw(st.integers(1, 4))
    weights = st.lists(st.floats(0, 9), min_size=count, max_size=count).filter(lambda each: sum(each) > 0)
    stages = [
        Stage(quotas=quotas(data.draw(weights), cycle=cycle), cycles=data.draw(st.integers(1, 3))) for _ in range(3)
    ]
    order = MixtureOrder(stages, cycle=cycle, seed=seed)
    cycles = [stage for stage in stages for _ in range(stage.cycles or 0)] + [stages[-1]] * 2
    found = located(order, cycle * len(cycles))
    seen: dict[int, list[int]] = {k: [] for k in range(count)}
    for number, stage in enumerate(cycles):  # the slow reference: count, cycle by cycle
        here = found[number * cycle : (number + 1) * cycle]
        for k in range(count):
            ordinals = sorted(ordinal for source, ordinal in here if source == k)
            assert ordinals == list(range(len(seen[k]), len(seen[k]) + stage.quotas[k]))
            seen[k] += ordinals
    for upto in (0, 1, cycle + cycle // 2, len(found)):
        counts = [sum(source == k for source, _ in found[:upto]) for k in range(count)]
        assert order.counts(upto).tolist() == counts


def test_any_sample_is_found_at_once_and_seeds_differ() -> None:
    stages = [Stage(quotas=(3, 1), cycles=10), Stage(quotas=(1, 3), cycles=None)]
    order = MixtureOrder(stages, cycle=4, seed=1)
    sources, ordinals = order.locate(np.array([4 * 10**12, 4 * 10**12 + 1]))
    begins = [30 + (10**12 - 10), 10 + 3 * (10**12 - 10)]
    for source, ordinal in zip(sources.tolist(), ordinals.tolist(), strict=True):
        assert 0 <= ordinal - begins[source] < (1, 3)[source]
    assert located(order, 400) != located(MixtureOrder(stages, cycle=4, seed=2), 400)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prepared folders of bytes, of capitals and of small letters; and one of another tokenizer."""
    root, rng = tmp_path_factory.mktemp("mixture"), random.Random(0)
    for name, letters, count in (("small", "abcdefgh ", 90), ("capital", "ABCDEFGH ", 40), ("other", "abcdefgh ", 90)):
        rows = [json.dumps({"text": "".join(rng.choices(letters, k=rng.randrange(50, 200)))}) for _ in range(count)]
        (root / f"{name}.jsonl").write_text("\n".join(rows))
        rows_of = RowsSettings(
            path=str(root / f"{name}.jsonl"), name=name, cache_dir=str(root), workers=1, val_fraction=0.2
        )
        prepare(rows_of, SubwordSettings(kind="bpe", vocab_size=270) if name == "other" else ByteSettings())
    return root


def mixture(root: Path, **more: Any) -> MixtureData:
    settings = {"sources": {"small": "small", "capital": "capital"}, "cache_dir": str(root), "cycle": 8, **more}
    found = prepare(MixtureSettings(**settings), ByteSettings())
    assert isinstance(found, MixtureData)
    return found


def kinds(inputs: torch.Tensor) -> list[int]:
    """1 for rows of capitals."""
    return [int(any(65 <= token < 91 for token in row)) for row in inputs.tolist()]


def test_batches_have_the_weights_and_follow_the_stages(folders: Path) -> None:
    stages = [{"tokens": 8 * 16 * 3, "weights": {"small": 3, "capital": 1}}, {"weights": {"capital": 1}}]
    data = mixture(folders, stages=stages)
    options: dict[str, Any] = {"block_size": 16, "seed": 5, "global_batch_size": 8}
    batches = data.train_batches(micro_batch_size=8, **options)
    assert [sum(kinds(batches[k][0])) for k in range(6)] == [2, 2, 2, 8, 8, 8]
    for k in range(4):
        inputs, targets = batches[k]
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        ranks = [data.train_batches(micro_batch_size=4, rank=r, world_size=2, **options)[k] for r in (0, 1)]
        assert torch.equal(torch.cat([ranks[0][0], ranks[1][0]]), inputs)
        steps = [data.train_batches(micro_batch_size=2, **options)[4 * k + i] for i in range(4)]
        assert torch.equal(torch.cat([step[1] for step in steps]), targets)


def test_each_window_of_a_source_is_read_once_per_pass(folders: Path) -> None:
    data = mixture(folders)
    batches = data.train_batches(block_size=16, seed=1, micro_batch_size=1, global_batch_size=1)
    windows = batches.sources[1].windows  # type: ignore[attr-defined]
    rows = []
    for k in range(10_000):
        inputs, _ = batches[k]
        if kinds(inputs) == [1]:
            rows.append(tuple(inputs[0].tolist()))
        if len(rows) == windows:
            break
    assert len(set(rows)) == windows


def test_a_mixture_is_a_folder_like_others(folders: Path) -> None:
    data = mixture(folders, weights={"small": 1, "capital": 3})
    again = open_prepared(data.directory)
    assert isinstance(again, MixtureData) and again.meta == data.meta
    assert mixture(folders, weights={"small": 2, "capital": 6}).meta["mixture"] == data.meta["mixture"]
    assert mixture(folders, weights={"small": 3, "capital": 1}).fingerprint != data.fingerprint
    parts = [open_prepared(next(folders.glob(f"{name}-*/meta.json")).parent) for name in ("small", "capital")]
    assert data.val_tokens == sum(part.val_tokens for part in parts) and data.val_bytes == sum(
        p.val_bytes for p in parts
    )
    held_out = data.val_batches(block_size=16, batch_size=4)
    assert held_out.target_tokens == data.val_targets
    assert mixture(folders).meta["mixture"]["stages"][0]["quotas"] == list(
        quotas([part.train_tokens for part in parts], cycle=8)
    )


def test_passes_are_logged(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = mixture(folders, weights={"small": 1, "capital": 1})
    tokens = {name: sum(shard.tokens for shard in shards) for name, shards in data.source_shards().items()}
    expected = {name: 400 * 16 / total for name, total in tokens.items()}
    assert data.passes(samples=800, block_size=16, seed=1) == pytest.approx(expected)
    module = TokenDataModule(data, block_size=16, micro_batch_size=8, global_batch_size=8, eval_batch_size=8)
    module.trainer = SimpleNamespace(max_steps=100, distributed_sampler_kwargs=None)  # type: ignore[assignment]
    with caplog.at_level(logging.INFO):
        module._log_passes()
    assert f"passes over each source: small {expected['small']:.3g}, capital {expected['capital']:.3g}" in caplog.text


def test_what_does_not_fit_is_refused(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tokenized differently"):
        mixture(folders, sources={"a": "small", "b": "other"})
    with pytest.raises(DataError, match="names 0 prepared folders; there is: capital-"):
        mixture(folders, sources={"a": "smaller"})
    with pytest.raises(ConfigError) as caught:
        MixtureSettings(
            sources={"a": "x"}, weights={"b": 1, "a": -1}, stages=[{"weights": {"a": 1}}, {"weight": {}}], cycle=0
        )
    for said in ("'b', which is not in sources", "0 or more", "stages[0].tokens is missing", "stages[1]", "cycle=0"):
        assert said in str(caught.value)
    with pytest.raises(ConfigError, match="sources is empty"):
        MixtureSettings()
    with pytest.raises(ConfigError, match="a number above 0"):
        MixtureSettings(sources={"a": "x"}, weights={"a": 0})


def test_a_mixture_of_a_mixture_is_refused(folders: Path) -> None:
    made: PreparedData = mixture(folders)
    with pytest.raises(DataError, match="is of the kind mixture"):
        mixture(folders, sources={"a": str(made.directory)})
