"""One command trains, samples and charts a model; what it leaves works with our commands and with upstream's."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litgpt_core import checkpoint
from litgpt_core.training.metrics import ROW_KEYS

SUMMARY_KEYS = {
    "final",
    "best",
    "n_params",
    "compile_s",
    "wall_s",
    "peak_memory_mb",
    "device",
    "command",
    "git",
    "versions",
}


@pytest.fixture(scope="module")
def trained(module_shell: Any) -> subprocess.CompletedProcess[str]:
    """The smoke experiment with the default logger (W&B without a key)."""
    done: subprocess.CompletedProcess[str] = module_shell.train("+experiment=smoke", "run.name=whole")
    return done


def folder(shell: Any) -> Path:
    return Path(shell.folder / "runs" / "whole")


def test_the_run_folder_is_complete(module_shell: Any, trained: Any) -> None:
    run = folder(module_shell)
    names = {p.name for p in run.iterdir()}
    assert names == {
        "config.yaml",
        "environment.json",
        "log.jsonl",
        "metrics.jsonl",
        "summary.json",
        "loss.png",
        "samples.txt",
        "checkpoints",
        "final",
        "wandb",
    }
    kept = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert kept == ["best", "last", "step-00000020", "step-00000040", "step-00000060"]


def test_metrics_rows_have_every_key_and_the_loss_falls(module_shell: Any, trained: Any) -> None:
    rows = module_shell.rows("whole")
    assert all(tuple(row) == ROW_KEYS for row in rows)
    assert [row["step"] for row in rows] == list(range(5, 61, 5))
    assert rows[0]["train_loss"] - rows[-1]["train_loss"] > 1.0
    assert all(0 < row["mfu"] < 1.5 for row in rows[1:])


def test_summary_and_references(module_shell: Any, trained: Any) -> None:
    summary = module_shell.summary("whole")
    assert set(summary) >= SUMMARY_KEYS
    assert set(summary["final"]) == set(ROW_KEYS)
    assert summary["whole_split"]["tokens"] > 30_000
    assert summary["n_params"] == 116_480
    assert summary["references"]["bigram"] < summary["references"]["unigram"]
    # one token is one byte here, up to one end-of-document token a file
    bits = summary["whole_split"]["val_loss"] / 0.6931471805599453
    assert summary["whole_split"]["val_bpb"] == pytest.approx(bits, rel=0.01)


def test_the_picture_is_a_png_of_some_size(module_shell: Any, trained: Any) -> None:
    data = (folder(module_shell) / "loss.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 800 and height > 500 and len(data) > 20_000


def test_terminal_shows_the_table_and_what_to_type_next(trained: Any) -> None:
    assert "bits per byte" in trained.stdout and "bigram" in trained.stdout
    assert "lcp generate whole" in trained.stdout
    assert "Traceback" not in trained.stderr and "Warning" not in trained.stderr


def test_the_dashboard_is_offline_and_holds_config_metrics_samples_and_picture(module_shell: Any, trained: Any) -> None:
    run = folder(module_shell)
    recordings = list((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(recordings) == 1
    environment = json.loads((run / "environment.json").read_text())
    assert environment["wandb_run_id"] in recordings[0].name
    done = module_shell.run(
        [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(recordings[0])]
    )
    for part in ("max_steps", "loss/val_bits_per_byte", "loss/curve", "samples/final"):
        assert part in done.stdout, part
    assert list((run / "wandb").glob("offline-run-*/files/media/images/**/*.png"))


def test_every_checkpoint_verifies_and_loads(module_shell: Any, trained: Any) -> None:
    run = folder(module_shell)
    for directory in [*(run / "checkpoints").iterdir(), run / "final"]:
        checkpoint.verify(directory)
        assert checkpoint.load_model(directory).num_parameters() == 116_480


def test_generate_streams_reproducibly(module_shell: Any, trained: Any) -> None:
    arguments = [
        "runs/whole/final",
        "--prompt",
        "def ",
        "--max_new_tokens",
        "60",
        "--temperature",
        "0.8",
        "--top_k",
        "50",
        "--seed",
        "1",
    ]
    first = module_shell.run(module_shell.command("generate.py", *arguments))
    second = module_shell.run(module_shell.command("generate.py", *arguments))
    assert first.stdout == second.stdout
    assert first.stdout.startswith("def ") and len(first.stdout) > 40
    assert "tokens/s" in first.stderr or "tok/s" in first.stderr


@pytest.mark.parity
def test_upstream_generates_from_final_unchanged(module_shell: Any, trained: Any) -> None:
    litgpt = str(Path(sys.executable).with_name("litgpt"))
    done = module_shell.run(
        [litgpt, "generate", "runs/whole/final", "--prompt", "def ", "--max_new_tokens", "20", "--top_k", "1"]
    )
    ours = module_shell.run(
        module_shell.command(
            "generate.py", "runs/whole/final", "--prompt", "def ", "--max_new_tokens", "20", "--temperature", "0"
        )
    )
    assert ours.stdout.strip() and ours.stdout.strip() in done.stdout


@pytest.mark.parametrize("logger", ["csv", pytest.param("none", marks=pytest.mark.nightly)])
def test_other_loggers_and_an_optimizer_by_class_path(shell: Any, logger: str) -> None:
    optimizer = (
        ["optim=custom", "optim.class_path=torch.optim.NAdam", "optim.kwargs.lr=2e-3"] if logger == "csv" else []
    )
    shell.train("+experiment=smoke", "trainer.max_steps=10", "trainer.sample_tokens=0", f"logger={logger}", *optimizer)
    run = shell.folder / "runs" / "smoke"
    assert (run / "metrics.jsonl").stat().st_size > 0
    assert (run / "csv" / "version_0" / "metrics.csv").exists() == (logger == "csv")
    assert not (run / "wandb").exists()


@pytest.mark.nightly
def test_a_dead_dashboard_server_does_not_stop_the_run(shell: Any) -> None:
    shell.environment["WANDB_API_KEY"] = "0" * 40
    shell.environment["WANDB_BASE_URL"] = "http://127.0.0.1:9"
    done = shell.train("+experiment=smoke", "trainer.max_steps=4", "trainer.sample_tokens=0", "logger.init_timeout=3.0")
    assert "W&B could not start online" in done.stderr
    assert (shell.folder / "runs" / "smoke" / "final" / "lit_model.pth").exists()


@pytest.mark.nightly
def test_the_dashboard_id_survives_a_resume(shell: Any) -> None:
    base = ["+experiment=smoke", "trainer.sample_tokens=0", "trainer.save_interval=5"]
    shell.train(*base, "trainer.max_steps=5")
    environment = shell.folder / "runs" / "smoke" / "environment.json"
    before = json.loads(environment.read_text())["wandb_run_id"]
    shell.train(*base, "trainer.max_steps=10", "run.resume=true")
    assert json.loads(environment.read_text())["wandb_run_id"] == before
    assert [row["step"] for row in shell.rows("smoke")] == [5, 10]


def test_training_continues_from_given_weights(shell: Any) -> None:
    shell.train("+experiment=smoke", "trainer.max_steps=40", "run.name=first", "trainer.sample_tokens=0", "logger=none")
    shell.train(
        "+experiment=smoke",
        "trainer.max_steps=5",
        "run.name=second",
        "init_from=runs/first",
        "trainer.sample_tokens=0",
        "logger=none",
    )
    assert shell.rows("second")[0]["train_loss"] < shell.rows("first")[0]["train_loss"] - 0.5


@pytest.mark.nightly
def test_the_experiment_for_a_gpu_takes_a_step_on_a_cpu(shell: Any, mirror: Path | None) -> None:
    if mirror is None:
        pytest.skip("Tiny Shakespeare is not here: set LIGHT_COMPUTE_DATA_MIRROR to a folder that holds it")
    shell.environment["LIGHT_COMPUTE_DATA_MIRROR"] = str(mirror)
    quick = ["trainer.max_steps=1", "trainer.global_batch_size=2", "trainer.eval_tokens=500", "trainer.compile=false"]
    shell.train("+experiment=reference", *quick, "trainer.sample_tokens=4", "logger=none")
    summary = shell.summary("reference")
    assert summary["n_params"] == 16_770_816 and summary["precision"] == "32-true"
    assert summary["references"]["bigram"] < summary["references"]["unigram"]
