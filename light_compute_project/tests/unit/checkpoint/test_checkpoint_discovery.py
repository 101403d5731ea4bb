"""Discovery of models below the current folder, and finding them by name or path."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litgpt_core.checkpoint import discover, find_model, link, step_name
from litgpt_core.checkpoint.discovery import MAX_DEPTH
from litgpt_core.core.errors import CheckpointError

Save = Callable[..., Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def aged(directory: Path, seconds: float) -> Path:
    """The checkpoint, as if it had been written so long ago."""
    moment = time.time() - seconds
    os.utime(directory / "lit_model.pth", (moment, moment))
    return directory


def test_models_of_every_root_are_listed_most_recent_first(here: Path, save: Save) -> None:
    aged(save(here / "runs" / "old" / "final"), 300)
    aged(save(here / "checkpoints" / "EleutherAI" / "pythia-14m"), 200)
    aged(save(here / "trained_models" / "mine"), 100)
    aged(save(here / "elsewhere" / "deeper"), 50)
    new = aged(save(here / "runs" / "new" / "final"), 10)
    found = discover()
    assert [model.name for model in found.models] == ["new", "elsewhere/deeper", "mine", "EleutherAI/pythia-14m", "old"]
    assert found.models[0].directory == Path("runs/new/final")
    assert found.models[0].n_bytes == (new / "lit_model.pth").stat().st_size
    assert abs(time.time() - 10 - found.models[0].modified) < 5
    assert found.searched == [
        "runs: 2 models",
        "checkpoints: 1 model",
        "trained_models: 1 model",
        "models: does not exist",
        ".: 1 model",
    ]
    assert found.skipped == []


def test_a_run_is_one_model_with_any_number_of_checkpoints(here: Path, save: Save) -> None:
    checkpoints = here / "runs" / "one" / "checkpoints"
    first, second = save(checkpoints / step_name(1)), save(checkpoints / step_name(2))
    link(first, "best")
    link(second, "last")
    [model] = discover().models
    assert (model.name, model.directory) == ("one", Path("runs/one/checkpoints/last"))
    save(here / "runs" / "one" / "final")
    [model] = discover().models
    assert (model.name, model.directory) == ("one", Path("runs/one/final"))


def test_links_do_not_list_a_model_twice_or_lead_in_circles(here: Path, save: Save) -> None:
    save(here / "models" / "a" / step_name(1))
    link(here / "models" / "a" / step_name(1), "last")
    (here / "models" / "again").symlink_to(here / "models", target_is_directory=True)
    (here / "models" / "up").symlink_to(here, target_is_directory=True)
    assert [model.name for model in discover().models] == [f"a/{step_name(1)}"]


def test_corrupted_and_incomplete_checkpoints_are_skipped_and_reported(here: Path, save: Save) -> None:
    complete = save(here / "models" / "complete")
    corrupted = save(here / "models" / "corrupted")
    (corrupted / "lit_model.pth").write_bytes(b"PK")
    partial = save(here / "checkpoints" / "org" / "partial")
    (partial / "lit_model.pth").unlink()
    no_tokenizer = save(here / "checkpoints" / "org" / "mute")
    (no_tokenizer / "tokenizer.json").unlink()
    found = discover()
    assert [model.directory.name for model in found.models] == [complete.name]
    reasons = "\n".join(found.skipped)
    assert "models/corrupted: " in reasons and "has 2 bytes" in reasons
    assert "checkpoints/org/partial: lit_model.pth is missing" in reasons
    assert "checkpoints/org/mute: tokenizer.json or tokenizer.model is missing" in reasons


def test_a_run_with_a_corrupted_final_checkpoint_is_its_last_one(here: Path, save: Save) -> None:
    run = here / "runs" / "one"
    link(save(run / "checkpoints" / step_name(1)), "last")
    (save(run / "final") / "lit_model.pth").write_bytes(b"")
    found = discover()
    assert [model.directory for model in found.models] == [Path("runs/one/checkpoints/last")]
    assert "final/lit_model.pth has 0 bytes" in found.skipped[0]
    (run / "checkpoints" / step_name(1) / "lit_model.pth").write_bytes(b"")
    found = discover()
    assert found.models == [] and "holds no checkpoint" in found.skipped[-1]


def test_hidden_and_unfinished_folders_are_not_entered(here: Path, save: Save) -> None:
    save(here / "runs" / ".one.tmp-123-0123456789ab" / "final")
    save(here / ".cache" / "model")
    save(here / "node_modules" / "model")
    assert discover().models == []


def test_the_depth_is_bounded(here: Path, save: Save) -> None:
    folders = [str(level) for level in range(MAX_DEPTH + 1)]
    save(here / "models" / Path(*folders[:MAX_DEPTH]))
    assert len(discover().models) == 1
    save(here / "trained_models" / Path(*folders))
    assert len(discover().models) == 1


def test_names_are_unique(here: Path, save: Save) -> None:
    aged(save(here / "runs" / "twin" / "final"), 10)
    aged(save(here / "models" / "twin"), 20)
    assert [model.name for model in discover().models] == ["twin", "models/twin"]
    assert find_model("models/twin").directory == Path("models/twin")


def test_inside_a_run_folder_that_run_is_found(here: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = here / "runs" / "one" / "checkpoints"
    link(save(checkpoints / step_name(1)), "last")
    monkeypatch.chdir(here / "runs" / "one")
    found = discover()
    assert [model.name for model in found.models] == ["one"]
    assert "checkpoints: part of the run in ." in found.searched


def test_folders_with_thousands_of_files_are_searched_quickly(here: Path, save: Save) -> None:
    save(here / "runs" / "one" / "final")
    for number in range(40):
        folder = here / "corpus" / str(number)
        folder.mkdir(parents=True)
        for file in range(100):
            (folder / f"{file}.txt").touch()
    began = time.perf_counter()
    assert len(discover().models) == 1
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    "text",
    [
        "pythia",
        "Pythia",
        "EleutherAI/pythia",
        "eleutherai/pythia",
        "checkpoints/EleutherAI/pythia",
        "./checkpoints/EleutherAI/pythia/",
        "checkpoints/EleutherAI/pythia/lit_model.pth",
    ],
)
def test_a_downloaded_model_by_name_folder_and_file(text: str, here: Path, save: Save) -> None:
    save(here / "runs" / "other" / "final")
    directory = save(here / "checkpoints" / "EleutherAI" / "pythia")
    assert find_model(text).directory.resolve() == directory


@pytest.mark.parametrize(
    "text", ["base", "runs/base", "runs/base/final", "base/final", "runs/base/final/lit_model.pth"]
)
def test_a_run_by_name_folder_and_file(text: str, here: Path, save: Save) -> None:
    directory = save(here / "runs" / "base" / "final")
    found = find_model(text)
    assert found.directory.resolve() == directory and found.name == "base"


def test_one_checkpoint_of_a_run_can_be_selected(here: Path, save: Save) -> None:
    save(here / "runs" / "base" / "final")
    step = save(here / "runs" / "base" / "checkpoints" / step_name(7))
    assert find_model(f"base/checkpoints/{step.name}").directory.resolve() == step


def test_a_full_path_outside_the_roots(here: Path, tmp_path: Path, save: Save) -> None:
    directory = save(tmp_path / "far" / "away" / "final")
    found = find_model(str(tmp_path / "far" / "away"))
    assert (found.directory, found.name) == (directory, "away")


def test_for_a_wrong_name_similar_names_are_suggested(here: Path, save: Save) -> None:
    save(here / "runs" / "baseline" / "final")
    save(here / "checkpoints" / "EleutherAI" / "pythia-14m")
    with pytest.raises(CheckpointError, match=r"did you mean baseline\?"):
        find_model("basline")
    with pytest.raises(CheckpointError, match=r"did you mean EleutherAI/pythia-14m\?"):
        find_model("pythia-41m")
    with pytest.raises(CheckpointError, match="use the most recent: "):
        find_model("zzz")


def test_an_ambiguous_name_is_an_error(here: Path, save: Save) -> None:
    save(here / "checkpoints" / "a" / "same")
    save(here / "checkpoints" / "b" / "same")
    with pytest.raises(CheckpointError, match="could be") as caught:
        find_model("same")
    assert "a/same" in caught.value.given and "b/same" in caught.value.given


def test_a_corrupted_model_is_an_error_that_names_the_file(here: Path, save: Save) -> None:
    (save(here / "models" / "corrupted") / "lit_model.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="has 2 bytes"):
        find_model("corrupted")


def test_without_models_the_searched_folders_and_a_command_are_named(here: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_model("baseline")
    assert "runs: does not exist" in caught.value.given and ".: no models" in caught.value.given
    assert "lcp train" in caught.value.fix


def test_discovery_does_not_import_torch(here: Path, save: Save) -> None:
    save(here / "runs" / "one" / "final")
    code = (
        "import sys; from litgpt_core.checkpoint import discover; print(len(discover().models), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    assert done.stdout.split() == ["1", "False"]
