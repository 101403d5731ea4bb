"""What goes wrong at a keyboard: each gives one clear message with what to type, an exit code, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

QUICK = ["trainer.max_steps=2", "trainer.sample_tokens=0", "logger=none", "run.name=bad"]
TEXT = ["data=text", "tokenizer=byte", "model=tiny", *QUICK]


def refused(shell: Any, *overrides: str, says: tuple[str, ...], code: int = 2) -> str:
    done = shell.train(*overrides, expect=code)
    assert "Traceback" not in done.stderr
    for part in says:
        assert part in done.stderr, f"{part!r} not in:\n{done.stderr}"
    return str(done.stderr)


def test_unknown_group_and_misspelt_key(shell: Any) -> None:
    refused(shell, "model=tinny", says=("did you mean tiny",))
    refused(shell, "+experiment=smoke", "trainer.max_step=3", says=("did you mean max_steps", "command line"))


def test_missing_corpus_lists_what_is_there(shell: Any) -> None:
    (shell.folder / "my_text.txt").write_text("hello")
    refused(shell, *TEXT, "data.path=my_texts.txt", says=("my_texts.txt", "my_text.txt"))


def test_empty_binary_and_short_files(shell: Any) -> None:
    for name, content, says in (
        ("empty.txt", b"", "empty"),
        ("binary.txt", bytes(range(256)) * 20, "not text"),
        ("short.txt", b"just a few words\n\nand a few more\n", "model.block_size="),
    ):
        (shell.folder / name).write_bytes(content)
        refused(shell, *TEXT, f"data.path={name}", "data.split=tail", says=(says,))
    assert not (shell.folder / "runs" / "bad" / "config.yaml").exists(), "a failed start must not occupy the run's name"


def test_a_vocabulary_larger_than_the_text_supports(shell: Any) -> None:
    (shell.folder / "small.txt").write_text("\n\n".join(f"line {i * i} of a small text" for i in range(300)))
    refused(
        shell, *TEXT, "data.path=small.txt", "tokenizer=sentencepiece", "tokenizer.vocab_size=5000",
        says=("5000", "tokenizer.vocab_size="),
    )  # fmt: skip


def test_heads_that_do_not_divide(shell: Any) -> None:
    refused(shell, "+experiment=smoke", *QUICK, "model.n_head=3", says=("n_head", "64"))


def test_a_device_that_is_not_here(shell: Any) -> None:
    refused(shell, "+experiment=smoke", *QUICK, "trainer.accelerator=mps", says=("mps", "trainer.accelerator=auto"))


def test_a_folder_that_cannot_be_written(shell: Any) -> None:
    (shell.folder / "file").write_text("a file, not a folder")
    refused(shell, "+experiment=smoke", *QUICK, "run.dir=file", says=("cannot be written", "run.dir="))


def test_a_truncated_weight_file_is_named(shell: Any) -> None:
    shell.train("+experiment=smoke", *QUICK)
    weights = shell.folder / "runs" / "bad" / "final" / "lit_model.pth"
    os.truncate(weights, weights.stat().st_size // 2)
    done = shell.run(shell.command("generate.py", "runs/bad/final", "--prompt", "x"), expect=2)
    assert "lit_model.pth" in done.stderr and "Traceback" not in done.stderr


def test_a_checkpoint_that_is_not_there_suggests_near_names(shell: Any) -> None:
    (shell.folder / "runs" / "baseline").mkdir(parents=True)
    done = shell.run(shell.command("generate.py", "runs/basline", "--prompt", "x"), expect=2)
    assert "baseline" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A 2.5 MB file system, where root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root on Linux")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "together",
    [
        pytest.param([], id="one process"),
        pytest.param(
            ["trainer.devices=2", "trainer.strategy=fsdp", "trainer.sharded_checkpoints=true"],
            id="two that write parts",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_a_full_disk_keeps_the_last_good_checkpoint(shell: Any, tiny_disk: Path, together: list[str]) -> None:
    # One checkpoint of the tiny model with its optimizer is about 1.6 MB: the first fits, the second does not.
    arguments = ["+experiment=smoke", "run.name=full", f"run.dir={tiny_disk}", "logger=none", "trainer.max_steps=8"]
    arguments += ["trainer.save_interval=2", "trainer.sample_tokens=0", "trainer.eval_interval=100", *together]
    done = shell.train(*arguments, expect=2)
    assert "Traceback" not in done.stderr and done.stderr.count("CheckpointError") == 1
    assert "No space left" in done.stderr or "free" in done.stderr
    assert "run.dir=" in done.stderr or "run.resume=auto" in done.stderr
    kept = sorted(p.name for p in (tiny_disk / "full" / "checkpoints").iterdir())
    assert kept == ["last", "step-00000002"]
    # with room again the run goes on from there
    subprocess.run(["mount", "-o", "remount,size=40m", str(tiny_disk)], check=True)
    shell.train(*arguments, "run.resume=true")
    assert (tiny_disk / "full" / "final" / "lit_model.pth").exists()
