"""Finding the newest valid checkpoint after kills at any point; `last`, `best`, and pruning."""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from litgpt_core.checkpoint import (
    link,
    load_extra,
    load_weights,
    newest_valid,
    prune,
    resolve,
    step_name,
    step_of,
    verify,
)
from litgpt_core.core.directories import clean_temporary, hidden_sibling
from litgpt_core.core.errors import CheckpointError

SAVING_LOOP = """
import itertools, os, sys, torch
from pathlib import Path
from litgpt_core.checkpoint import link, prune, save_directory, step_name
from litgpt_core.model.config import GPTConfig

torch.set_num_threads(1)
folder = Path(sys.argv[1])
config = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=20)


def save_for_ever(first):
    for step in itertools.count(first):
        for _ in range(2):  # the second time it replaces the first
            path = save_directory(
                folder / step_name(step),
                weights={"w": torch.full((100_000,), float(step))},
                config=config,
                tokenizer_dir=Path(sys.argv[2]),
                hyperparameters={"step": step},
                extra={"resume.pt": {"step": step}},
            )
        link(path, "last")
        prune(folder, keep=3)
        print(step, flush=True)


for line in sys.stdin:  # importing torch takes seconds, so every victim is a fork of this process
    if (child := os.fork()) == 0:
        save_for_ever(int(line))
    print("victim", child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def test_step_names_round_trip():
    assert step_name(20) == "step-00000020"
    assert step_of(Path("x/step-00000020")) == 20
    assert step_of(Path("last")) is None
    assert step_of(Path(step_name(123_456_789))) == 123_456_789


@pytest.mark.serial
@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_kill_9_at_any_time_leaves_a_checkpoint_that_loads(tmp_path, tokenizer_dir):
    folder, chance, first = tmp_path / "checkpoints", random.Random(0), 1
    command = [sys.executable, "-c", SAVING_LOOP, str(folder), str(tokenizer_dir)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert parent.stdin is not None and parent.stdout is not None
    for _ in range(20):
        parent.stdin.write(f"{first}\n")
        victim = next(int(line.split()[1]) for line in parent.stdout if line.startswith("victim"))
        time.sleep(0.15 * chance.random())
        os.kill(victim, signal.SIGKILL)
        done = [int(line) for line in iter(parent.stdout.readline, "dead\n")]

        newest = newest_valid(folder)
        if newest is None:
            assert first == 1 and not done
            continue
        reached = load_extra(newest, "resume.pt")["step"]
        assert reached >= (done[-1] if done else first - 1)
        assert load_weights(newest)["w"].eq(reached).all()
        clean_temporary(folder)
        assert step_of(newest_valid(folder)) == reached
        assert load_weights(resolve(tmp_path))["w"].numel() == 100_000
        assert all(not entry.name.startswith(".") for entry in folder.iterdir())
        first = reached + 1
    parent.communicate(timeout=20)
    assert first > 5, "the loop never got anywhere: the test shows nothing"


def test_corrupted_checkpoints_are_skipped_with_name_and_reason(tmp_path, save, caplog):
    whole = save(tmp_path / step_name(1))
    corrupted = save(tmp_path / step_name(2))
    changed = save(tmp_path / step_name(3))
    (corrupted / "lit_model.pth").write_bytes(b"PK")
    (changed / "model_config.yaml").write_text((changed / "model_config.yaml").read_text().replace("tiny", "TINY"))
    save(tmp_path / "step-abc")
    with caplog.at_level(logging.WARNING):
        assert newest_valid(tmp_path) == whole
    assert f"{changed}: " in caplog.text and "SHA-256" in caplog.text
    assert f"{corrupted}: " in caplog.text and "2 bytes" in caplog.text
    assert newest_valid(tmp_path / "nowhere") is None


def test_a_checkpoint_killed_between_two_renames_is_found(tmp_path, save):
    save(tmp_path / step_name(1))
    caught = save(tmp_path / step_name(2))
    aside = caught.rename(hidden_sibling(caught, "old"))
    assert newest_valid(tmp_path) == aside
    assert resolve(caught) == aside
    assert clean_temporary(tmp_path) == [aside]
    assert newest_valid(tmp_path) == caught


def test_last_moves_from_one_checkpoint_to_the_next(tmp_path, save):
    for step in (1, 2):
        path = link(save(tmp_path / step_name(step), value=step), "last")
        assert path == tmp_path / "last"
        assert load_weights(path)["w"][0, 0] == step
        verify(path)
    if os.name != "nt":
        assert (tmp_path / "last").readlink() == Path(step_name(2))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "last",
        "step-00000001",
        "step-00000002",
        "tokenizer",
    ]


def test_without_symbolic_links_last_is_a_folder(tmp_path, save, monkeypatch):
    def forbidden(*_: object, **__: object) -> None:
        raise OSError("a privilege is missing")

    first, second = save(tmp_path / step_name(1), value=1), save(tmp_path / step_name(2), value=2)
    link(first, "last")
    monkeypatch.setattr(Path, "symlink_to", forbidden)
    for checkpoint in (second, first):
        last = link(checkpoint, "last")
        assert not last.is_symlink()
        assert torch.equal(load_weights(last)["w"], load_weights(checkpoint)["w"])
        verify(last)
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_a_reader_always_finds_last_while_it_is_replaced(tmp_path, save):
    import threading

    checkpoints = [save(tmp_path / step_name(step)) for step in (1, 2)]
    link(checkpoints[0], "last")
    stop, missing, reads = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            reads.append(1)
            if not (tmp_path / "last" / "lit_model.pth").is_file():
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(100):
        link(checkpoints[turn % 2], "last")
    stop.set()
    reader.join()
    assert reads and not missing


def test_link_refuses_a_corrupted_checkpoint(tmp_path, save):
    path = save(tmp_path / step_name(1))
    (path / "lit_model.pth").unlink()
    with pytest.raises(CheckpointError, match=r"lit_model\.pth"):
        link(path, "best")
    assert not (tmp_path / "best").exists()


def test_prune_keeps_the_newest_complete_ones_and_those_linked(tmp_path, save, caplog):
    paths = {step: save(tmp_path / step_name(step)) for step in range(1, 8)}
    (paths[5] / "resume.pt").write_text("an unlisted file is no reason to doubt")
    (paths[3] / "lit_model.pth").unlink()
    (paths[6] / "lit_model.pth").write_bytes(b"")
    link(paths[2], "best")
    link(paths[7], "last")
    with caplog.at_level(logging.WARNING):
        gone = prune(tmp_path, keep=2)
    assert set(gone) == {paths[1], paths[4]}
    assert {step for step, path in paths.items() if path.exists()} == {2, 3, 5, 6, 7}
    assert str(paths[3]) in caplog.text and str(paths[6]) in caplog.text
    assert prune(tmp_path, keep=2) == []
    with pytest.raises(ValueError, match="at least 1"):
        prune(tmp_path, keep=0)


def test_prune_does_not_delete_what_somebody_has_put_into_a_checkpoint(tmp_path, save, caplog):
    paths = [save(tmp_path / step_name(step)) for step in range(1, 4)]
    (paths[0] / "notes.txt").write_text("mine")
    with caplog.at_level(logging.WARNING):
        assert prune(tmp_path, keep=1) == [paths[1]]
    assert (paths[0] / "notes.txt").read_text() == "mine"
    assert "notes.txt was not written by this project" in caplog.text
