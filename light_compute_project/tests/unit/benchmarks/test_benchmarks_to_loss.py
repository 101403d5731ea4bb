"""Reading both programs of `to-loss`, and comparing them round by round."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.charts import draw
from benchmarks.children.nanogpt import evaluate
from benchmarks.processes import ProcessResult
from benchmarks.record import comparison_record
from benchmarks.runner import Measurement, RunSpec, Trial
from benchmarks.tables import tables
from benchmarks.to_loss import compare, read_nanogpt, read_ours

from litgpt_core.core.errors import EnvironmentProblem

STAND_IN = """
import torch
from dataclasses import dataclass


@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int


class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, ids, targets):
        logits = self.table.expand(*ids.shape, -1)
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""


def write_run(folder: Path) -> Path:
    """20 steps of 100 tokens: 10 at 1,000 tokens/s, 10 at 500."""
    rows = [
        {"tokens": 1000, "tokens_per_s": 1000.0, "val_loss": None},
        {"tokens": 2000, "tokens_per_s": 500.0, "val_loss": 2.5},
    ]
    summary = {"whole_split": {"val_loss": 2.4}, "compile_s": 7.0, "n_params": 10, "precision": "bf16-master"}
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_our_clock_is_the_sum_of_the_rows(tmp_path: Path) -> None:
    measured = read_ours(write_run(tmp_path / "run"))
    assert measured.numbers["clock_s"] == pytest.approx(1.0 + 2.0)
    assert measured.numbers["val_loss"] == 2.4
    assert measured.numbers["tokens"] == 2000
    assert measured.curve == [(pytest.approx(3.0), 2.5)]
    assert measured.precision == "bf16"


def test_a_first_row_of_the_first_step_alone_counts_at_the_next_rate(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().replace("1000.0", "null")
    (run / "metrics.jsonl").write_text(lines)
    assert read_ours(run).numbers["clock_s"] == pytest.approx(2.0 + 2.0)
    (run / "metrics.jsonl").write_text(lines.splitlines()[0] + "\n")
    with pytest.raises(EnvironmentProblem, match="too few rows"):
        read_ours(run)


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no readable run folder"):
        read_ours(tmp_path)


def test_nanogpts_evaluations_are_not_on_its_clock() -> None:
    lines = ["step 0: train loss 4.2000, val loss 4.3000"]
    for i in range(251):
        lines += [f"step {i}: train loss 2.4000, val loss 2.5000"] if i == 250 else []
        lines += [f"iter {i}: loss 2.0, time {9000 if i in (0, 250) else 40:.2f}ms, mfu -100.00%"]
    measured = read_nanogpt("\n".join(lines), reached={"val_loss": 1.9, "n_params": 5})
    assert measured.numbers["clock_s"] == pytest.approx(251 * 0.04)
    assert measured.numbers["tokens"] == 251 * 12 * 64
    assert measured.curve == [(pytest.approx(250 * 0.04), 2.5)]
    with pytest.raises(EnvironmentProblem, match="no iterations"):
        read_nanogpt("nothing", reached={"val_loss": 1.9, "n_params": 5})


def test_a_checkpoint_of_nanogpts_is_read_over_the_whole_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits 0, 0, log 2: probabilities 1/4, 1/4, 1/2, over windows that do not divide the split."""
    (tmp_path / "model.py").write_text(STAND_IN)
    (tmp_path / "out").mkdir()
    table = torch.tensor([0.0, 0.0, math.log(2)])
    saved = {"model": {"_orig_mod.table": table}, "model_args": {"block_size": 4, "vocab_size": 3}, "iter_num": 8}
    torch.save(saved, tmp_path / "out" / "ckpt.pt")
    ids = np.array([0, 1, 2, 2, 0, 1, 1, 2, 2, 2, 0], dtype=np.uint16)
    ids.tofile(tmp_path / "val.bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        found = evaluate({"val": str(tmp_path / "val.bin")})
    finally:
        sys.modules.pop("model", None)
    wanted = np.where(ids[1:] == 2, math.log(2), math.log(4)).mean()
    assert found["val_loss"] == pytest.approx(wanted, abs=1e-6)
    assert (found["tokens"], found["iteration"], found["n_params"]) == (10, 8, 3)


def trial(label: str, index: int, *, clock: float, wall: float, loss: float) -> Trial:
    numbers = {"clock_s": clock, "val_loss": loss, "compile_s": 5.0, "tokens": 1000.0, "n_params": 10.0}
    return Trial(
        label=label,
        round=index,
        command=["python"],
        measurement=Measurement(
            tokens_per_s=1000 / clock, precision="fp32", numbers=numbers, raw=[0.1], curve=[(clock, loss)]
        ),
        process=ProcessResult(output="", wall_s=wall, peak_mb=1.0, tree_mb=1.0),
    )


def test_ratios_are_formed_within_a_round(tmp_path: Path) -> None:
    specs = [
        RunSpec(label=label, ours=label == "ours", describes="", command=lambda folder: [], read=lambda f, o: None)  # type: ignore[arg-type, return-value]
        for label in ("ours", "nanogpt")
    ]
    trials = [
        *(trial("ours", 1, clock=5, wall=20, loss=1.88), trial("nanogpt", 1, clock=60, wall=80, loss=1.91)),
        *(trial("nanogpt", 2, clock=140, wall=150, loss=1.91), trial("ours", 2, clock=10, wall=50, loss=1.90)),
    ]
    found = compare(specs, trials)
    assert found["to_loss"]["nanogpt"]["clock"]["rounds"] == [12, 14]
    assert found["to_loss"]["nanogpt"]["wall"]["rounds"] == [4, 3]
    assert found["losses"]["ours"]["max"] == 1.90
    work: dict[str, Any] = {"name": "test", "flops_per_token": 1.0}
    record = {
        **comparison_record("to-loss", specs=specs, trials=trials, work=work, ceiling=None, provenance={}),
        **found,
    }
    table = tables(record)[0]
    assert [list(column.cells) for column in table.columns][4] == ["", "13.0x"]
    draw(record, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
