"""Checkpoints and prepared data folders of format 1 still load, generate and resume: `fixtures/format_1/README.md`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from litgpt_core import checkpoint

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "format_1"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
DIRECTORIES = [
    "base",
    "text/checkpoints/step-00000287",
    "muon/checkpoints/step-00000018",
    "chat/checkpoints/step-00000010",
]

PLACE = ["run.dir=.", "logger=none", "trainer=deterministic", "trainer.accelerator=cpu", "trainer.sample_tokens=0"]
PLACE += ["trainer.eval_tokens=null", "trainer.keep_checkpoints=1"]
SMALL = ["model=tiny", "data=text", "data.path=corpus.txt", "model.n_layer=1", "model.n_head=2", "model.block_size=80"]
SMALL += ["trainer.global_batch_size=8", "trainer.micro_batch_size=4", "optim.lr=0.02"]
SMALL += ["optim.schedule.lr_warmup_steps=5", "optim.schedule.min_lr_fraction=0.5", *PLACE]
TEXT = [*SMALL, "model.n_embd=12", "model.dropout=0.1", "tokenizer=byte", "optim=adamw", "trainer.max_steps=300"]
MUON = [*SMALL, "model.n_embd=8", "tokenizer=char", "data.split=tail", "optim=muon", "trainer.max_steps=28"]
CHAT = ["+experiment=finetune_chat", "init_from=base", "data.path=chats.jsonl", "lora=default", "lora.r=2"]
CHAT += ["optim.lr=1e-2", "trainer.max_steps=20", *PLACE]
RUNS = {
    "text": [*TEXT, "trainer.log_interval=10", "trainer.eval_interval=100", "trainer.save_interval=300"],
    "muon": [*MUON, "trainer.log_interval=4", "trainer.eval_interval=11", "trainer.save_interval=30"],
    "chat": [*CHAT, "trainer.log_interval=3", "trainer.eval_interval=5", "trainer.save_interval=20"],
}
"""How each run was started, without its end by trainer.stop_after."""


@pytest.fixture(scope="module")
def old(module_shell: Any) -> Any:
    """The files in a folder of their own."""
    for path in FIXTURES.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, module_shell.folder / path.name)
    return module_shell


def state_of_data(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file of the prepared folders; hidden files next to them do not count."""
    files = [path for path in (folder / "data").rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def train(old: Any, run: str, *more: str) -> None:
    """Start the run's command, and see that no prepared folder is added or written again."""
    before = state_of_data(old.folder)
    old.run(old.command("train.py", *RUNS[run], f"run.name={run}", f"data.cache_dir={old.folder / 'data'}", *more))
    assert state_of_data(old.folder) == before


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_every_old_directory_is_whole_and_loads(directory: str) -> None:
    checkpoint.verify(FIXTURES / directory)
    weights = checkpoint.load_weights(FIXTURES / directory)
    model = checkpoint.load_model(FIXTURES / directory)
    assert weights and all(bool((value == weights[name]).all()) for name, value in model.state_dict().items())


@pytest.mark.parametrize("compiled", ["false", "auto"])
@pytest.mark.parametrize("text", EXPECTED["texts"], ids=lambda text: f"{text['model']}, {text['prompt']}")
def test_the_recorded_text_is_generated(old: Any, text: dict[str, Any], compiled: str) -> None:
    """Greedy; a relative error of 1e-4 in every weight did not change these texts when they were recorded."""
    options = [
        "--prompt",
        text["prompt"],
        "--repetition_penalty",
        str(text["repetition_penalty"]),
        "--temperature",
        "0",
    ]
    options += ["--max_new_tokens", "60", "--no-stop_at_eos", "--device", "cpu", "--precision", "32"]
    directory = str(FIXTURES / text["model"])
    done = old.run(old.command("generate.py", directory, *options, "--compile", compiled))
    assert done.stdout == f"{text['prompt']}{text['continued']}\n"


@pytest.mark.parametrize("run", RUNS)
def test_an_old_run_continues_with_the_recorded_losses(old: Any, run: str) -> None:
    """Other processors round differently, so losses are compared to 1e-5; on the same one they are equal."""
    already = (FIXTURES / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    train(old, run, "run.resume=true")
    rows = [json.loads(line) for line in (old.folder / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = EXPECTED["resumed"][run]
    assert rows[: len(already)] == [json.loads(line) for line in already]
    added = rows[len(already) :]
    assert [row["step"] for row in added] == [row["step"] for row in expected["rows"]]
    for row, recorded in zip(added, expected["rows"], strict=True):
        assert (row["tokens"], row["lr"]) == (recorded["tokens"], pytest.approx(recorded["lr"], rel=1e-12))
        for key in ("train_loss", "val_loss"):
            wanted = recorded[key]
            assert row[key] == (None if wanted is None else pytest.approx(wanted, rel=1e-5)), (row["step"], key)
        assert row["grad_norm"] == pytest.approx(recorded["grad_norm"], rel=1e-4), row["step"]
    summary = json.loads((old.folder / run / "summary.json").read_text(encoding="utf-8"))
    assert summary["whole_split"]["val_loss"] == pytest.approx(expected["whole_split"], rel=1e-5)
    checkpoint.verify(old.folder / run / "final")


@pytest.mark.parametrize("run", RUNS)
def test_a_new_run_uses_the_old_prepared_folder(old: Any, run: str) -> None:
    train(old, run, f"run.name=new-{run}", "trainer.max_steps=1")
    assert (old.folder / f"new-{run}" / "final").is_dir()
