"""The benchmark command at its smallest: training against LitGPT and, where a copy is given, nanoGPT; the memory of the
loss head.

The environment variable LIGHT_COMPUTE_NANOGPT may name a folder that holds nanoGPT.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SMALLEST = [
    "--shape",
    "small",
    "--rounds",
    "1",
    "--steps",
    "6",
    "--threads",
    "1",
    "--set",
    "model.n_layer=1",
    "--set",
    "trainer.compile=false",
]


@pytest.fixture
def compare(shell: Any, mirror: Path | None) -> Any:
    """Run `benchmark.py train` against these peers; the JSON and what was printed."""
    if mirror is None:
        pytest.skip("Tiny Shakespeare is not here: set LIGHT_COMPUTE_DATA_MIRROR to a folder that holds it")
    shell.environment["LIGHT_COMPUTE_DATA_MIRROR"] = str(mirror)
    shell.environment["TORCHDYNAMO_DISABLE"] = "1"  # LitGPT always compiles, which takes longer than the whole test

    def run(*arguments: str) -> tuple[dict[str, Any], str]:
        place = [f"--set=data.cache_dir={shell.cache}", "--out", "result.json"]
        done = shell.run(shell.command("benchmark.py", "train", *SMALLEST, *place, *arguments))
        record: dict[str, Any] = json.loads((shell.folder / "result.json").read_text(encoding="utf-8"))
        return record, done.stdout

    return run


@pytest.mark.parity
@pytest.mark.nightly
def test_training_against_litgpt_measures_both(compare: Any, shell: Any) -> None:
    record, printed = compare("--against", "litgpt")
    ours, litgpt = record["contestants"]
    assert (ours["label"], litgpt["label"]) == ("ours", "litgpt")
    for one in (ours, litgpt):
        [trial] = one["laps"]
        assert trial["tokens_per_s"] > 100 and trial["wall_s"] > 1 and trial["peak_mb"] > 200
        assert all(0 < seconds < 60 for seconds in trial["raw_s"])
        assert 3.0 < trial["numbers"]["train_loss"] < 6.0  # both saw the corpus: 128 ids at random have 4.85 nats
    assert len(litgpt["laps"][0]["raw_s"]) == 6
    ratio = record["ratios"]["ours"]["litgpt"]["median"]
    assert ratio == pytest.approx(ours["tokens_per_s"]["median"] / litgpt["tokens_per_s"]["median"])
    assert record["work"]["vocabulary"] == 128 and record["ceiling_gflops"]["fp32"] > 1
    assert "matrix product" in printed
    assert (shell.folder / "result.png").read_bytes().startswith(b"\x89PNG")


def test_training_against_a_copy_of_nanogpt(compare: Any) -> None:
    folder = os.environ.get("LIGHT_COMPUTE_NANOGPT")
    if not folder:
        pytest.skip("LIGHT_COMPUTE_NANOGPT names no folder that holds nanoGPT")
    record, _ = compare("--against", "nanogpt", "--nanogpt_dir", folder)
    assert [one["label"] for one in record["contestants"]] == ["ours", "nanogpt"]
    assert len(record["contestants"][1]["laps"][0]["raw_s"]) == 6
    assert set(record["nanogpt"]["sha256"]) == {"train.py", "model.py", "configurator.py"}


@pytest.mark.nightly
def test_chunks_hold_less_memory_and_give_the_same_loss(shell: Any) -> None:
    arguments = ["--vocab", "100000", "--tokens", "1024", "--width", "16", "--chunks", "0,128", "--rounds", "1"]
    shell.run(shell.command("benchmark.py", "loss-memory", *arguments, "--out", "memory.json"))
    record = json.loads((shell.folder / "memory.json").read_text(encoding="utf-8"))
    whole, chunked = record["variants"]
    logits_mb = 1024 * 100_000 * 4 / 1e6
    assert whole["rise_mb"]["median"] > logits_mb
    assert chunked["rise_mb"]["median"] < 0.6 * logits_mb
    assert chunked["loss"]["median"] == pytest.approx(whole["loss"]["median"], rel=1e-5)


def test_a_missing_folder_is_reported_before_anything_runs(shell: Any) -> None:
    done = shell.run(shell.command("benchmark.py", "train", "--against", "nanogpt", "--nanogpt_dir", "no"), expect=2)
    assert "no train.py, model.py, configurator.py there" in done.stderr
    assert list(shell.folder.iterdir()) == [shell.folder / "home"]
