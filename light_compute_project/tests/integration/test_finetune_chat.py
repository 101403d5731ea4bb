"""From a chat log to a better model: all weights or adapters, killed and resumed, read by LitGPT, before and after."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from litgpt_core import checkpoint
from litgpt_core.checkpoint.layout import ADAPTER
from litgpt_core.prompts import load_style

TRACE_KEYS = ("step", "train_loss", "val_loss", "val_bpb", "lr", "grad_norm")
TUNE = [
    "+experiment=finetune_chat",
    "init_from=runs/base",
    "logger=none",
    "trainer=deterministic",
    "trainer.max_steps=30",
    "trainer.log_interval=1",
    "trainer.eval_interval=10",
    "trainer.save_interval=10",
    "trainer.sample_tokens=24",
    "trainer.micro_batch_size=4",
]
FULL = [*TUNE, "optim.lr=3e-3", "run.name=full"]
LORA = [*TUNE, "optim.lr=1e-2", "lora=default"]


def write_log(path: Path, *, colours: int = 5) -> None:
    """Thirty exchanges with a pattern that can be learnt, a broken line, and an answer rated down."""
    rows: list[dict[str, Any]] = []
    for colour in ("red", "blue", "green", "black", "white")[:colours]:
        for thing in ("car", "door", "cat", "ball", "hat", "cup"):
            name = f"{colour}-{thing}"
            user, assistant = f"What colour is the {colour} {thing}?", f"The {thing} is {colour}."
            rows.append({"user": user, "assistant": assistant, "id": name, "conversation_id": name, "turn": 0})
    rows.append({"user": "Bye", "assistant": "Go away", "id": "rude", "conversation_id": "rude", "turn": 0})
    rows.append({"type": "rating", "id": "rude", "rating": -1})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n", encoding="utf-8")


@pytest.fixture(scope="module")
def base(module_shell: Any) -> Any:
    """A model that has never seen a chat, and a chat log."""
    write_log(module_shell.folder / "chat_history.jsonl")
    module_shell.train(
        "+experiment=smoke", "run.name=base", "logger=none", "model.block_size=128", "trainer.sample_tokens=0"
    )
    return module_shell


@pytest.fixture(scope="module")
def full(base: Any) -> Any:
    return base.train(*FULL)


@pytest.fixture(scope="module")
def lora(base: Any) -> Any:
    return base.train(*LORA, "run.name=lora")


def trace(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in TRACE_KEYS) for row in rows]


@pytest.mark.parametrize("name", ["full", "lora"])
def test_held_out_answers_become_likelier_and_the_comparison_says_so(
    base: Any, full: Any, lora: Any, name: str
) -> None:
    summary, terminal = base.summary(name), {"full": full, "lora": lora}[name].stdout
    compared = summary["before_after"]
    losses = [compared["before"]["val_loss"], *(row["val_loss"] for row in base.rows(name) if row["val_loss"])]
    assert losses == sorted(losses, reverse=True) and losses[0] - losses[-1] > 0.5
    assert compared["after"]["val_loss"] == summary["whole_split"]["val_loss"] == losses[-1]
    assert 1 <= len(compared["answers"]) <= 5
    assert all(row["question"].startswith("What colour") for row in compared["answers"])
    assert [row["before"] for row in compared["answers"]] != [row["after"] for row in compared["answers"]]
    page = (base.folder / "runs" / name / "before_after.md").read_text()
    for text in (f"{losses[0]:.4f}", f"{losses[-1]:.4f}"):
        assert text in page and text in terminal
    assert "bits per byte" in page and "most probable answers to held-out questions" in terminal
    assert f"lcp chat {name}" in terminal
    assert (summary["stopped_early"], summary["best_step"], summary["final_weights"]["step"]) == (False, 30, 30)


def test_the_log_says_what_was_left_out(full: Any, base: Any) -> None:
    assert "30 conversations" in full.stderr and "1 broken row(s) skipped" in full.stderr
    assert "1 answer(s) rated down" in full.stderr and "chat_history.jsonl: line 33: it is not JSON" in full.stderr


def test_every_checkpoint_knows_its_prompt_style(base: Any, full: Any, lora: Any) -> None:
    for name in ("full", "lora"):
        for directory in (f"runs/{name}/final", f"runs/{name}/checkpoints/best", f"runs/{name}/checkpoints/last"):
            checkpoint.verify(base.folder / directory)
            style = load_style(base.folder / directory)
            assert style is not None and style.name == "human_assistant"


def test_adapters_lie_alone_and_merged_and_the_base_is_untouched(base: Any, lora: Any) -> None:
    before = checkpoint.load_weights(base.folder / "runs" / "base")
    after = checkpoint.load_weights(base.folder / "runs" / "lora")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.endswith(".weight") and ".h." in name for name in changed)
    assert {p.name for p in (base.folder / "runs" / "lora" / "lora").iterdir()} >= {ADAPTER, "hyperparameters.yaml"}
    assert not (base.folder / "runs" / "lora" / "lora" / "lit_model.pth").exists()
    size = (base.folder / "runs" / "lora" / "lora" / ADAPTER).stat().st_size
    assert size < 0.3 * (base.folder / "runs" / "lora" / "final" / "lit_model.pth").stat().st_size


@pytest.mark.nightly
@pytest.mark.serial
def test_killed_and_resumed_equals_undisturbed_although_the_log_has_grown(base: Any, lora: Any) -> None:
    run = base.folder / "runs" / "killed"
    base.start_and_signal(
        [*LORA, "run.name=killed"], when=lambda: (run / "checkpoints" / "step-00000010").exists(), number=signal.SIGKILL
    )
    log = base.folder / "chat_history.jsonl"
    before = log.read_text()
    log.write_text(before + json.dumps({"user": "Hello", "assistant": "Hi", "conversation_id": "meanwhile"}) + "\n")
    resumed = base.train(*LORA, "run.name=killed", "run.resume=true")
    log.write_text(before)
    assert "conversations that this run began with" in resumed.stderr
    assert trace(base.rows("killed")) == trace(base.rows("lora"))
    one, other = (
        checkpoint.load_weights(base.folder / "runs" / name / "final" / ADAPTER) for name in ("lora", "killed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert base.summary("killed")["before_after"] == base.summary("lora")["before_after"]


@pytest.mark.parity
def test_litgpt_merges_the_adapters_to_the_same_weights_and_so_do_we(base: Any, lora: Any) -> None:
    ours = checkpoint.load_weights(base.folder / "runs" / "lora" / "final")
    base.run(base.command("merge_lora.py", "runs/lora", "--out", "merged"))
    base.run([str(Path(sys.executable).with_name("litgpt")), "merge_lora", "runs/lora/lora"])
    for directory in ("merged", "runs/lora/lora"):
        merged = checkpoint.load_weights(base.folder / directory / "lit_model.pth")
        assert merged.keys() == ours.keys()
        assert max(float((merged[name] - ours[name]).abs().max()) for name in ours) <= 1e-7, directory
    done = base.run(base.command("merge_lora.py", "runs/lora", "--out", "merged"), expect=2)
    assert "exists" in done.stderr and "--force" in done.stderr


@pytest.mark.nightly
@pytest.mark.serial
@pytest.mark.parametrize("adapters", [[], ["lora=default"]], ids=["whole model", "adapters"])
def test_two_processes_learn_what_one_learns(base: Any, full: Any, adapters: list[str]) -> None:
    """Packed rows with different numbers of answers in every process: losses are of the tokens, not of the rows."""
    one, name = ("lora-calm", "lora-two") if adapters else ("full", "full-two")
    settings = [*LORA, "lora.dropout=0"] if adapters else [*TUNE, "optim.lr=3e-3"]
    if adapters:
        base.train(*settings, f"run.name={one}")  # without dropout, whose masks belong to a process
    base.train(*settings, "trainer.micro_batch_size=2", "trainer.devices=2", f"run.name={name}")
    rows, others = base.rows(name), base.rows(one)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows[:10], others[:10], strict=True):
        for key in ("train_loss", "val_loss", "grad_norm"):
            assert row[key] == (None if other[key] is None else pytest.approx(other[key], rel=1e-4)), row["step"]
    assert base.summary(name)["before_after"]["before"] == pytest.approx(
        base.summary(one)["before_after"]["before"], rel=1e-5
    )


@pytest.mark.parity
def test_litgpt_reads_the_result(base: Any, full: Any) -> None:
    arguments = ["generate", "runs/full/final", "--prompt", "Human: Hi\nAssistant:", "--max_new_tokens", "8"]
    done = base.run([str(Path(sys.executable).with_name("litgpt")), *arguments])
    assert "Assistant:" in done.stdout


def test_a_run_that_gets_no_better_ends_early_with_its_best_weights(base: Any, full: Any) -> None:
    worse = [*TUNE, "init_from=runs/full", "run.name=early", "optim.lr=0.05", "optim.schedule.lr_warmup_steps=0"]
    worse += ["optim.schedule.kind=constant", "trainer.patience=1", "trainer.min_delta=0", "trainer.eval_interval=1"]
    worse += ["trainer.sample_tokens=0"]
    base.train(*worse)
    summary, rows = base.summary("early"), base.rows("early")
    validated = {row["step"]: row["val_loss"] for row in rows}
    best = min(validated, key=lambda step: validated[step])
    assert summary["stopped_early"] and list(validated)[-1] == best + 1 < 30
    assert summary["best_step"] == best and summary["final_weights"] == {"step": best, "are": "best"}
    assert summary["whole_split"]["val_loss"] == pytest.approx(validated[best], rel=1e-6)
    final, kept = (checkpoint.load_weights(base.folder / "runs" / "early" / n) for n in ("final", "checkpoints/best"))
    assert all(torch.equal(final[name], kept[name]) for name in final)
    assert "finished already" in base.train(*worse, "run.resume=true").stderr


def test_fewer_than_ten_conversations_are_refused_with_the_count(base: Any) -> None:
    write_log(base.folder / "few.jsonl", colours=1)
    done = base.train(*TUNE, "data.path=few.jsonl", "run.name=few", expect=2)
    assert "few.jsonl holds 6 usable conversations" in done.stderr and "at least 10" in done.stderr
    assert not (base.folder / "runs" / "few" / "config.yaml").exists()
