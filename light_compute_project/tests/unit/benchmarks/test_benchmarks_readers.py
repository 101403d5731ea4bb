"""The output of each program, read into seconds per step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.child import JOB, RESULT, RUN_CHILD, child_command, child_result, read_generations
from benchmarks.children.timing import time_generations
from benchmarks.programs import hf, litgpt, nanogpt
from benchmarks.programs.ours import parse_variant, read_run

from litgpt_core.core.errors import ConfigError, EnvironmentProblem

NANOGPT = """tokens per iteration will be: 768
step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2651, time 412.30ms, mfu -100.00%
iter 1: loss 4.2000, time 41.20ms, mfu -100.00%
iter 2: loss nan, time 1041.00ms, mfu 0.01%
"""
LITGPT = """Verifying settings ...
Measured TFLOPs: 0.00
Epoch 1 | iter 1 step 0 | loss train: 4.871, val: n/a | iter time: 100.00 ms remaining time: 0:00:10
Epoch 1 | iter 2 step 1 | loss train: 4.860, val: n/a | iter time: 50.00 ms (step) remaining time: 0:00:10
Epoch 1 | iter 3 step 1 | loss train: 4.850, val: n/a | iter time: 20.00 ms remaining time: 0:00:10
Epoch 1 | iter 4 step 2 | loss train: 4.840, val: 4.800 | iter time: 30.00 ms (step) remaining time: 0:00:10
"""
GENERATED = """some text
Time for inference 1: 3.00 sec total, 66.67 tokens/sec
Time for inference 2: 0.40 sec total, 500.00 tokens/sec
Time for inference 3: 0.50 sec total, 400.00 tokens/sec
"""


def test_nanogpts_lines() -> None:
    assert nanogpt.read_steps(NANOGPT) == pytest.approx([0.4123, 0.0412, 1.041])
    assert nanogpt.read_losses(NANOGPT)[:2] == [4.2651, 4.2]


def test_litgpts_micro_batches_add_up_to_steps() -> None:
    assert litgpt.read_steps(LITGPT) == pytest.approx([0.15, 0.05])
    assert litgpt.read_losses(LITGPT) == [4.871, 4.860, 4.850, 4.840]


def test_litgpts_generation_leaves_the_first_out() -> None:
    measured = litgpt.read_generations(GENERATED, new_tokens=200, precision="bf16-true", name="litgpt")
    assert measured.tokens_per_s == 450.0
    assert measured.numbers == {"warm_up_s": 3.0} and measured.precision == "bf16"


def test_litgpt_that_stopped_early_is_found_out() -> None:
    with pytest.raises(EnvironmentProblem, match="generated about 80 tokens"):
        litgpt.read_generations(
            GENERATED.replace("0.40 sec", "0.16 sec"), new_tokens=200, precision="32-true", name="litgpt"
        )
    with pytest.raises(EnvironmentProblem, match="printed the times of 0 generations"):
        litgpt.read_generations("nothing", new_tokens=200, precision="32-true", name="litgpt")


def run_folder(folder: Path, rates: list[float | None], *, device: str = "a processor, 2 threads") -> Path:
    rows = [{"step": i, "tokens_per_s": rate} for i, rate in enumerate(rates)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    summary = {
        "compile_s": 12.0,
        "precision": "bf16-mixed",
        "device": device,
        "peak_memory_mb": 800.0,
        "final": {"train_loss": 2.5},
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def test_our_run_folder(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [None, 100.0, 100.0, 2000.0, 1000.0, 4000.0])
    measured = read_run(run, tokens_per_step=1000, name="ours")
    assert measured.raw == [10.0, 10.0, 0.5, 1.0, 0.25]
    assert measured.tokens_per_s == pytest.approx(2000.0)
    assert measured.precision == "bf16"
    assert measured.numbers == {"compile_s": 12.0, "train_loss": 2.5}


def test_memory_of_a_gpu_is_noted_beside_the_process(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [1.0] * 4, device="NVIDIA H200")
    assert read_run(run, tokens_per_step=1, name="ours").numbers["device_mb"] == 800.0


def test_a_run_without_a_summary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="ours left no readable run folder"):
        read_run(tmp_path, tokens_per_step=1, name="ours")


def test_hugging_faces_result() -> None:
    measured = hf.read_training(
        {"seconds": [9, 9, 0.5, 0.5], "train_loss": 3}, tokens_per_step=100, bf16=True, name="hf-bf16"
    )
    assert (measured.tokens_per_s, measured.precision, measured.numbers) == (200.0, "bf16", {"train_loss": 3.0})
    with pytest.raises(EnvironmentProblem, match="incomplete"):
        hf.read_training({"seconds": []}, tokens_per_step=100, bf16=True, name="hf-bf16")


def test_a_childs_generations() -> None:
    result = {"total_s": [1.0, 2.0, 4.0], "first_s": [0.1, 0.1, 0.1], "new_tokens": [201] * 3, "warm_up_s": 9.0}
    measured = read_generations(result, precision="bf16", name="ours")
    assert measured.tokens_per_s == pytest.approx(100.5)
    assert measured.numbers["first_token_s"] == 0.1 and measured.numbers["warm_up_s"] == 9.0
    assert measured.numbers["decode_tokens_per_s"] == pytest.approx(200 / 1.9)
    four = read_generations({**result, "new_tokens": [804] * 3, "batch": 4}, precision="bf16", name="ours-x4")
    assert four.tokens_per_s == pytest.approx(402.0)
    assert four.numbers["decode_tokens_per_s"] == pytest.approx(800 / 1.9)
    noisy = read_generations({**result, "first_s": [3.0] * 3}, precision="bf16", name="ours")
    assert "decode_tokens_per_s" not in noisy.numbers
    with pytest.raises(EnvironmentProblem, match="the same number"):
        read_generations({**result, "new_tokens": [201, 201, 17]}, precision="bf16", name="ours")
    with pytest.raises(EnvironmentProblem, match="incomplete"):
        read_generations({}, precision="bf16", name="ours")


def test_generations_are_timed_whole_and_for_the_first_token() -> None:
    asked: list[int] = []

    def generate(count: int) -> int:
        asked.append(count)
        return count

    found = time_generations(generate, new_tokens=5, repeats=2, spawned_at=0.0)
    assert asked == [1, 5, 1, 5, 1, 5]
    assert found["new_tokens"] == [5, 5] and len(found["first_s"]) == len(found["total_s"]) == 2
    assert found["start_to_first_s"] > 1e9  # seconds since the epoch that the test calls the start


def test_a_child_gets_its_job_and_its_result_is_read(tmp_path: Path) -> None:
    command = child_command("ceiling:measure", {"threads": 2}, folder=tmp_path)
    assert command[1:] == [str(RUN_CHILD), "ceiling:measure", JOB, RESULT]
    job = json.loads((tmp_path / JOB).read_text(encoding="utf-8"))
    assert job["threads"] == 2 and job["spawned_at"] > 1e9
    with pytest.raises(EnvironmentProblem, match="left no readable result"):
        child_result(tmp_path, name="x")


def test_variants_of_ours() -> None:
    assert parse_variant("fp32=trainer.precision=32-true trainer.compile=false") == (
        "fp32",
        ["trainer.precision=32-true", "trainer.compile=false"],
    )
    for wrong in ("fp32", "=trainer.compile=false", "a b=trainer.compile=false", "fp32="):
        with pytest.raises(ConfigError, match="--ours"):
            parse_variant(wrong)
