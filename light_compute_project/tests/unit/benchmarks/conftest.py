"""Work and records without a single measurement, for the tests of everything around measuring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.processes import ProcessResult
from benchmarks.record import comparison_record
from benchmarks.runner import Measurement, RunSpec, Trial
from benchmarks.training import TrainWork

from litgpt_core.model.config import GPTConfig


@pytest.fixture
def work(tmp_path: Path) -> TrainWork:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("train.bin", "val.bin"):
        (corpus / name).write_bytes(bytes(range(64)) * 2)
    model = GPTConfig(
        name="light-bench-test",
        n_layer=2,
        n_head=4,
        n_embd=64,
        block_size=32,
        vocab_size=66,
        padding_multiple=128,
        bias=False,
        norm_class_name="LayerNorm",
        mlp_class_name="GptNeoxMLP",
        parallel_residual=False,
        position_embedding="learned",
        tie_embeddings=True,
    )
    return TrainWork(
        name="test",
        arguments=("+experiment=bench_small",),
        model=model,
        batch_size=12,
        micro_batch_size=4,
        steps=40,
        lr=1e-3,
        betas=(0.9, 0.99),
        weight_decay=0.1,
        max_norm=1.0,
        threads=2,
        device="cpu",
        corpus=corpus,
    )


def spec(label: str, *, ours: bool = False) -> RunSpec:
    return RunSpec(
        label=label,
        ours=ours,
        describes=f"what {label} is",
        command=lambda folder: [],
        read=lambda folder, output: Measurement(tokens_per_s=1.0, precision="fp32"),
    )


def trial(label: str, round_number: int, rate: float, *, precision: str = "fp32", wall_s: float = 10.0) -> Trial:
    return Trial(
        label=label,
        round=round_number,
        command=["python", label],
        measurement=Measurement(tokens_per_s=rate, precision=precision, numbers={"train_loss": 3.0}, raw=[0.1, 0.2]),
        process=ProcessResult(output="", wall_s=wall_s, peak_mb=500.0, tree_mb=700.0),
    )


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    """The record of a comparison of programs with these rates per round."""

    def make(rates: dict[str, list[float]], *, kind: str = "train", **facts: Any) -> dict[str, Any]:
        trials = [
            trial(label, index + 1, values[index], precision="bf16" if label.startswith("ours") else "fp32")
            for index in range(len(next(iter(rates.values()))))
            for label, values in rates.items()
        ]
        work = {
            "name": "test",
            "n_layer": 2,
            "n_head": 4,
            "n_embd": 64,
            "block_size": 32,
            "batch_size": 12,
            "n_params": 123_456,
            "threads": 2,
            "flops_per_token": 2e6,
            **facts,
        }
        ceiling = {
            "gflops": {"fp32": 200.0, "bf16": 400.0},
            "by_size": {"fp32": {"1024": 200.0}, "bf16": {"1024": 400.0}},
            "read_gb_per_s": 40.0,
            "environment": {"device_name": "a processor, 2 threads", "versions": {"torch": "2.0"}},
        }
        return comparison_record(
            kind,
            specs=[spec(label, ours=label.startswith("ours")) for label in rates],
            trials=trials,
            work=work,
            ceiling=ceiling,
            provenance={"date": "2026-01-01 12:00", "command": "python benchmark.py", "git": {}, "peers": {}},
        )

    return make
