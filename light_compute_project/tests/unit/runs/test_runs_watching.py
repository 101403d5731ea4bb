"""Runs that are watched while they grow: what was appended is read, what changed is noticed, odd files end nothing."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litgpt_core.core.errors import ConfigError
from litgpt_core.runs import growing
from litgpt_core.runs.growing import GrowingRows
from litgpt_core.runs.watching import MOST_CURVES, MOST_POINTS, RunWatch, UnknownRun, thinned
from litgpt_core.training.rows import read_rows


def row(step: int, **more: object) -> dict[str, object]:
    return {"step": step, "tokens": 10 * step, "elapsed_s": step / 2, "train_loss": 5.0 - step / 100} | more


def write_run(folder: Path, *rows: dict[str, object], **config: object) -> Path:
    """A run with these rows; unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"trainer": {"max_steps": 100}, "optim": {"lr": 0.1}, "run": {"name": folder.name}} | config
    (folder / "config.yaml").write_text(json.dumps(whole))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


def age(folder: Path, seconds: float) -> None:
    moment = time.time() - seconds
    for path in folder.iterdir():
        os.utime(path, (moment, moment))


# ---- rows of a growing file


def test_appended_rows_are_read_and_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    path, rows = tmp_path / "metrics.jsonl", GrowingRows()
    assert rows.read(path) == []
    path.write_text('{"step": 1}\n{"st')
    assert rows.read(path) == [{"step": 1}]
    with path.open("a") as file:
        file.write('ep": 2}\nno json\n[3]\n{"step": 4}\n')
    assert rows.read(path) == [{"step": 1}, {"step": 2}, {"step": 4}]
    assert rows.read(path) is rows.read(path), "nothing new: nothing is built anew"


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path, in_place: bool) -> None:
    path, rows = tmp_path / "metrics.jsonl", GrowingRows()
    path.write_text('{"step": 1}\n{"step": 2}\n')
    rows.read(path)
    new = '{"step": 1}\n{"step": 7}\n{"step": 8}\n'
    if in_place:
        path.write_text(new)
    else:
        path.with_name("other").write_text(new)
        path.with_name("other").replace(path)
    assert rows.read(path) == [{"step": 1}, {"step": 7}, {"step": 8}]


def test_growing_rows_equal_the_plain_reader_at_every_moment(tmp_path: Path) -> None:
    path, rows, rng = tmp_path / "metrics.jsonl", GrowingRows(), random.Random(1)
    step = 0
    for _ in range(60):
        if rng.random() < 0.2:  # resumed: rows after the checkpoint are dropped
            kept = read_rows(path)[: rng.randrange(5)]
            path.with_name("new").write_text("".join(json.dumps(each) + "\n" for each in kept))
            path.with_name("new").replace(path)
        with path.open("a") as file:
            for _ in range(rng.randrange(4)):
                step += 1
                file.write(json.dumps({"step": step}) + "\n")
        assert rows.read(path) == read_rows(path)


def test_the_rows_of_files_that_nobody_asks_for_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "MOST_ROWS", 5)
    rows = GrowingRows()
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text('{"step": 1}\n{"step": 2}\n')
        assert len(rows.read(tmp_path / name)) == 2
    assert [path.name for path in rows._files] == ["b", "c"]
    assert len(rows.read(tmp_path / "a")) == 2


def test_a_huge_file_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "MOST_BYTES", 30)
    (tmp_path / "m").write_text('{"step": 1}\n' * 10)
    rows = GrowingRows()
    assert len(rows.read(tmp_path / "m")) == len(rows.read(tmp_path / "m")) == 2


# ---- the list


def test_a_run_is_running_while_it_writes(tmp_path: Path) -> None:
    watch = RunWatch(tmp_path)
    assert watch.listed() == [] and RunWatch(tmp_path / "nowhere").listed() == []
    write_run(tmp_path / "old", row(10), row(20, val_loss=4.5, val_bpb=2.0))
    age(tmp_path / "old", 3600)
    write_run(tmp_path / "sweep" / "new", row(10))
    new, old = watch.listed()
    assert (new["name"], new["state"], new["step"], new["max_steps"]) == ("sweep/new", "running", 10, 100)
    assert (old["name"], old["state"], old["best_val_loss"], old["best_val_bpb"]) == ("old", "unfinished", 4.5, 2.0)
    assert old["idle_s"] > 3000 and old["n_params"] is None


def test_a_version_changes_with_the_files_of_the_runs_it_is_about(tmp_path: Path) -> None:
    write_run(tmp_path / "a", row(1))
    write_run(tmp_path / "b", row(1))
    watch = RunWatch(tmp_path)
    every, only_b = watch.version(), watch.version(["b"])
    assert (every, only_b) == (watch.version(), watch.version(["b"]))
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(2)) + "\n")
    assert watch.version() != every and watch.version(["b"]) == only_b
    assert {facts["name"]: facts["step"] for facts in watch.listed()} == {"a": 2, "b": 1}
    age(tmp_path / "b", 3600)
    assert watch.version(["b"]) != only_b, "it stopped running"


def test_one_run_is_described_with_its_settings_and_samples_and_without_secrets(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", row(1), logger={"api_key": "wonderful"})
    (run / "samples.txt").write_text("Once upon a time\n")
    (run / "environment.json").write_text(json.dumps({"command": "lcp train my.txt", "recorded_at": "2026-11-29"}))
    told = RunWatch(tmp_path).described("a")
    assert told["samples"] == "Once upon a time\n" and told["command"] == "lcp train my.txt"
    assert told["config"]["optim"] == {"lr": 0.1} and "wonderful" not in json.dumps(told)
    for name in ("b", "../a", str(run), ""):
        with pytest.raises(UnknownRun):
            RunWatch(tmp_path).described(name)


# ---- curves


def test_curves_are_those_of_the_file_and_compare(tmp_path: Path) -> None:
    write_run(tmp_path / "a", row(10, val_loss=4.0, val_bpb=2.0), row(20), tokenizer={"kind": "byte"})
    write_run(tmp_path / "b", row(10, val_loss=3.0, val_bpb=2.5), tokenizer={"kind": "bpe"})
    watch = RunWatch(tmp_path)
    found = watch.curves(["a", "gone", "b", "a"])
    assert found["keys"] == ["val_bpb"], "their tokenizers differ"
    assert found["curves"] == [
        {"name": "a", "key": "val_bpb", "points": [(10, 2.0)]},
        {"name": "b", "key": "val_bpb", "points": [(10, 2.5)]},
    ]
    assert found["known"] == ["train_loss", "val_bpb", "val_loss"]
    [one] = watch.curves(["a"], keys=["train_loss"], x="time")["curves"]
    assert one["points"] == [(5.0, 4.9), (10.0, 4.8)]
    assert watch.curves(["a"])["keys"] == ["val_loss"] and watch.curves([])["curves"] == []
    assert watch.curves(["a"], x="flops")["curves"] == [], "no checkpoint says them"
    with pytest.raises(ConfigError, match="there is no x axis 'epochs'"):
        watch.curves(["a"], x="epochs")
    with pytest.raises(ConfigError, match="curves"):
        watch.curves(["a"], keys=[f"k{n}" for n in range(MOST_CURVES + 1)])


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=300), st.integers(1, 60))
def test_thinning_keeps_the_ends_the_extremes_and_the_order(values: list[float], most: int) -> None:
    points = list(enumerate(values))
    kept = thinned(points, most=most)
    assert len(kept) <= most and set(kept) <= set(points) and kept == sorted(kept)
    assert kept[0] == points[0] and (most < 2 or kept[-1] == points[-1])
    if most >= 4:
        assert min(y for _, y in kept) == min(values) and max(y for _, y in kept) == max(values)


def test_a_long_curve_has_a_bounded_number_of_points(tmp_path: Path) -> None:
    write_run(tmp_path / "a", *(row(step) for step in range(1, 5001)))
    [curve] = RunWatch(tmp_path).curves(["a"], keys=["train_loss"], points=10**9)["curves"]
    assert 1000 < len(curve["points"]) <= MOST_POINTS


# ---- odd content

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("trainer", "tokenizer", "model", "final", "best", "whole_split", "early_stop", "command", "recorded_at", "data")
FILES = ("config.yaml", "summary.json", "environment.json", "metrics.jsonl")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_value_in_any_file_of_a_run_leaves_the_list_and_the_curves_whole(
    tmp_path: Path, data: st.DataObject
) -> None:
    run = tmp_path / "odd"
    run.mkdir(exist_ok=True)
    (run / "final").mkdir(exist_ok=True)
    for name in FILES:
        keys = ("step", "tokens", "val_loss", "train_loss", "elapsed_s") if name == "metrics.jsonl" else KEYS
        value = data.draw(ANY | st.dictionaries(st.sampled_from(keys), ANY, max_size=4), label=name)
        (run / name).write_text(json.dumps(value) + "\n")
    watch = RunWatch(tmp_path)
    json.dumps([watch.listed(), watch.described("odd"), watch.curves(["odd"], keys=["val_loss", "step"])], default=str)
