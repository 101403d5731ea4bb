"""A killed run continues exactly: the loss trace of 40 steps equals that of 20 + killed + 20, bit for bit, on a CPU
with pinned threads.
"""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from litgpt_core import checkpoint
from litgpt_core.core import machine

EXACT = [
    "+experiment=smoke",
    "trainer=deterministic",
    "trainer.max_steps=40",
    "trainer.log_interval=1",
    "trainer.eval_interval=10",
    "trainer.eval_tokens=2048",
    "trainer.save_interval=10",
    "trainer.global_batch_size=8",
    "trainer.sample_tokens=0",
    "model.dropout=0.1",
    "optim.schedule.lr_warmup_steps=5",
    "logger=none",
]
TRACE_KEYS = ("step", "tokens", "train_loss", "val_loss", "val_bpb", "lr", "grad_norm")
SLOWER = "trainer.micro_batch_size=2"


def trace(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in TRACE_KEYS) for row in rows]


@pytest.fixture(scope="module")
def undisturbed(module_shell: Any) -> dict[str, list[tuple[Any, ...]]]:
    module_shell.train(*EXACT, "run.name=whole")
    return {"whole": trace(module_shell.rows("whole"))}


def checkpoint_at(folder: Path, step: int) -> bool:
    return (folder / "checkpoints" / f"step-{step:08d}").exists()


def test_a_rerun_is_bit_identical(module_shell: Any, undisturbed: dict[str, list[tuple[Any, ...]]]) -> None:
    module_shell.train(*EXACT, "run.name=again")
    assert trace(module_shell.rows("again")) == undisturbed["whole"]


def test_every_step_has_one_row(undisturbed: dict[str, list[tuple[Any, ...]]]) -> None:
    assert [row[0] for row in undisturbed["whole"]] == list(range(1, 41))
    validated = [row[0] for row in undisturbed["whole"] if row[3] is not None]
    assert validated == [10, 20, 30, 40]


@pytest.mark.serial
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.nightly)],
    ids=lambda v: str(v),
)
def test_killed_and_resumed_equals_undisturbed(
    module_shell: Any, undisturbed: dict[str, list[tuple[Any, ...]]], number: signal.Signals, exit_code: int
) -> None:
    name = f"stopped-by-{number.name}"
    run = module_shell.folder / "runs" / name
    done = module_shell.start_and_signal(
        [*EXACT, f"run.name={name}"], when=lambda: checkpoint_at(run, 20), number=number
    )
    assert done.returncode == exit_code, done.stdout
    assert not (run / "final").exists()
    if number != signal.SIGKILL:
        assert "run.resume=true" in done.stdout
    module_shell.train(*EXACT, f"run.name={name}", "run.resume=true")
    assert trace(module_shell.rows(name)) == undisturbed["whole"]


@pytest.mark.nightly
@pytest.mark.serial
def test_resume_in_the_middle_of_accumulation(module_shell: Any) -> None:
    module_shell.train(*EXACT, SLOWER, "run.name=whole-accumulated")
    run = module_shell.folder / "runs" / "accumulated"
    module_shell.start_and_signal(
        [*EXACT, SLOWER, "run.name=accumulated"], when=lambda: checkpoint_at(run, 10), number=signal.SIGKILL
    )
    module_shell.train(*EXACT, SLOWER, "run.name=accumulated", "run.resume=auto")
    assert trace(module_shell.rows("accumulated")) == trace(module_shell.rows("whole-accumulated"))


def test_resume_auto_starts_where_nothing_is(shell: Any) -> None:
    shell.train(*EXACT, "trainer.max_steps=2", "run.name=fresh", "run.resume=auto")
    assert shell.rows("fresh")[-1]["step"] == 2


def test_resume_true_needs_a_run(shell: Any) -> None:
    done = shell.train(*EXACT, "run.name=absent", "run.resume=true", expect=2)
    assert "holds no run to continue" in done.stderr and "run.resume=auto" in done.stderr


def test_a_used_folder_is_refused_with_both_ways_out(
    module_shell: Any, undisturbed: dict[str, list[tuple[Any, ...]]]
) -> None:
    done = module_shell.train(*EXACT, "run.name=whole", expect=2)
    assert "run.resume=true" in done.stderr and "run.name=whole-2" in done.stderr
    assert trace(module_shell.rows("whole")) == undisturbed["whole"]


def test_resuming_as_another_run_is_refused(module_shell: Any, undisturbed: dict[str, list[tuple[Any, ...]]]) -> None:
    done = module_shell.train(*EXACT, "run.name=whole", "run.resume=true", "model.n_layer=3", "seed=4", expect=2)
    assert "model.n_layer: 2 -> 3" in done.stderr and "seed: 1337 -> 4" in done.stderr


def test_a_longer_run_from_a_finished_one_keeps_its_rows_and_drops_the_old_ending(shell: Any) -> None:
    shell.train(*EXACT, "trainer.max_steps=10", "run.name=longer")
    first = shell.rows("longer")
    shell.train(*EXACT, "trainer.max_steps=14", "run.name=longer", "run.resume=true")
    rows = shell.rows("longer")
    assert rows[:10] == first and [row["step"] for row in rows] == list(range(1, 15))
    times = [row["elapsed_s"] for row in rows]
    assert times == sorted(times)
    assert shell.summary("longer")["final"]["step"] == 14


def test_a_finished_run_is_left_alone(module_shell: Any, undisturbed: dict[str, list[tuple[Any, ...]]]) -> None:
    summary = module_shell.folder / "runs" / "whole" / "summary.json"
    before = summary.read_bytes()
    done = module_shell.train(*EXACT, "run.name=whole", "run.resume=true")
    assert "finished already" in done.stderr and summary.read_bytes() == before


def test_resuming_on_another_corpus_is_refused(shell: Any) -> None:
    text = shell.folder / "text.txt"
    text.write_text("\n\n".join(f"line {i * i} of a small text" for i in range(300)))
    own = [*EXACT, "trainer.max_steps=2", "trainer.save_interval=1", "data=text", "data.path=text.txt", "run.name=own"]
    shell.train(*own)
    text.write_text(text.read_text() + "\n\nand one more line")
    done = shell.train(*own, "trainer.max_steps=4", "run.resume=true", expect=2)
    assert "prepared data has changed" in done.stderr


def test_corrupted_checkpoints_are_not_overwritten(shell: Any) -> None:
    shell.train(*EXACT, "trainer.max_steps=2", "run.name=broken")
    weights = next((shell.folder / "runs" / "broken" / "checkpoints").glob("step-*/lit_model.pth"))
    weights.write_bytes(weights.read_bytes()[:1000])
    done = shell.train(*EXACT, "trainer.max_steps=4", "run.name=broken", "run.resume=auto", expect=2)
    assert "none of the checkpoints" in done.stderr and "run.name=broken-2" in done.stderr


def test_a_run_that_blows_up_keeps_finite_checkpoints(shell: Any) -> None:
    settings = ["trainer.max_steps=40", "trainer.save_interval=1", "trainer.log_interval=100", "optim.lr=1e25"]
    done = shell.train(*EXACT, *settings, "optim.schedule.lr_warmup_steps=0", "run.name=blown", expect=2)
    assert "not a number" in done.stderr and "optim.lr" in done.stderr
    for directory in (shell.folder / "runs" / "blown" / "checkpoints").glob("step-*"):
        assert all(bool(w.isfinite().all()) for w in checkpoint.load_weights(directory).values())


@pytest.mark.nightly
@pytest.mark.serial
def test_killed_again_and_again_at_any_moment(shell: Any) -> None:
    """In a step, between micro-batches, in a save, in a validation, where an epoch ends: it does not matter."""
    (shell.folder / "text.txt").write_text("\n\n".join(f"line {i * i} of a small text, {i}" for i in range(400)))
    text = ["data=text", "data.path=text.txt", "tokenizer=char", "trainer.eval_tokens=null", "trainer.eval_interval=3"]
    small = ["trainer.max_steps=90", "trainer.save_interval=1", "trainer.micro_batch_size=2", "trainer.num_workers=2"]
    settings = [*EXACT, *text, *small, "run.resume=auto"]
    said = shell.train(*settings, "run.name=calm").stderr
    assert float(re.search(r"\((\d+\.\d+) epochs of", said)[1]) > 2, "the run crosses the boundaries of epochs"

    chance, steps = random.Random(7), []
    run = shell.folder / "runs" / "hunted"
    for _ in range(5):
        before = max((int(p.name[5:]) for p in (run / "checkpoints").glob("step-*")), default=0)
        pause = 0.5 * chance.random()

        def time_to_go(before: int = before, pause: float = pause) -> bool:
            if not any(int(p.name[5:]) > before + 3 for p in (run / "checkpoints").glob("step-*")):
                return False
            time.sleep(pause)
            return True

        done = shell.start_and_signal([*settings, "run.name=hunted"], when=time_to_go, number=signal.SIGKILL)
        assert done.returncode == -9
        steps.append(before)
        if max(int(p.name[5:]) for p in (run / "checkpoints").glob("step-*")) > 70:
            break
    assert len(steps) > 2, "the run was too short to be killed often"
    shell.train(*settings, "run.name=hunted")
    assert trace(shell.rows("hunted")) == trace(shell.rows("calm"))


@pytest.mark.serial
@pytest.mark.nightly
@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-4), ("bf16-mixed", 1e-2)])
def test_resumed_with_the_training_kernels_equals_undisturbed(
    module_shell: Any, precision: str, tolerance: float
) -> None:
    if precision == "bf16-mixed" and not machine.cpu_has_avx512_bf16():
        pytest.skip("this processor has no AVX512-BF16")
    exact = [*EXACT, "model.dropout=0.0", f"trainer.precision={precision}", "trainer.max_steps=20"]
    module_shell.train(*exact, f"run.name=eager-{precision}")
    kernels = [*exact, "trainer.cpu_kernels=true"]
    done = module_shell.train(*kernels, f"run.name=kernels-{precision}")
    assert "computed by the training kernels" in done.stderr
    module_shell.train(*kernels, f"run.name=parts-{precision}", "trainer.stop_after=10")
    module_shell.train(*kernels, f"run.name=parts-{precision}", "run.resume=true", "trainer.stop_after=null")
    whole = trace(module_shell.rows(f"kernels-{precision}"))
    assert trace(module_shell.rows(f"parts-{precision}")) == whole
    for ours, eager in zip(whole, trace(module_shell.rows(f"eager-{precision}")), strict=True):
        assert ours[2] == pytest.approx(eager[2], rel=tolerance), f"loss of step {ours[0]}"
