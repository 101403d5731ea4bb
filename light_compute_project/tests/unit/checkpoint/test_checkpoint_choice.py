"""One resolver of models: a run's name, a folder, a file, or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from litgpt_core.checkpoint import best_first, choose, discover, link, locate, step_name
from litgpt_core.checkpoint.layout import SHARDS, WEIGHTS
from litgpt_core.checkpoint.merge_lora import find_adapters
from litgpt_core.core.errors import CheckpointError
from litgpt_core.prompts import save_style, style_named
from litgpt_core.runs.folders import folder_of
from litgpt_core.training.pretrained import with_base

Save = Callable[..., Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save) -> Path:
    """A folder with a chat model, a newer base model, and a run of which only checkpoints are there."""
    folder = tmp_path / "here"
    chat = save(folder / "runs" / "chatty" / "final")
    save_style(chat, style_named("chatml"))
    save(folder / "runs" / "base" / "final")
    link(save(folder / "runs" / "half" / "checkpoints" / step_name(3)), "last")
    for age, run in ((300, "chatty/final"), (10, "base/final"), (100, "half/checkpoints/last")):
        moment = time.time() - age
        os.utime(folder / "runs" / run / WEIGHTS, (moment, moment))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "text", ["base", "runs/base", "runs/base/final", f"runs/base/final/{WEIGHTS}", "base/final", "./runs/base/"]
)
def test_a_name_a_folder_and_a_file_are_the_same_model(text: str, here: Path) -> None:
    assert locate(text).resolve() == locate(Path(text)).resolve() == here / "runs" / "base" / "final"
    assert choose(text).found.directory.resolve() == here / "runs" / "base" / "final"


def test_nothing_is_the_chat_model_before_a_newer_base_model(here: Path) -> None:
    assert locate() == locate("") == Path("runs/chatty/final")
    chosen = choose()
    assert chosen.found.name == "chatty" and "the only chat model found" in chosen.reasons[0]
    assert [model.name for model in best_first(discover().models)] == ["chatty", "base", "half"]
    (here / "runs" / "chatty" / "final" / "chat_style.json").write_text("{")
    assert choose().found.name == "base", "a style that cannot be read makes no chat model"


def test_a_run_without_its_last_step_is_its_checkpoint(here: Path) -> None:
    assert locate("half").resolve().name == step_name(3)


def test_a_runs_name_goes_before_a_folder_of_the_same_name(here: Path, save: Save) -> None:
    save(here / "base")
    assert locate("base") == Path("runs/base/final")
    assert locate("./base").resolve() == locate(here / "base") == here / "base"
    (here / "half").mkdir()
    assert "checkpoints" in str(locate("half"))


def test_near_names_are_models_and_never_hidden_or_lock_files(here: Path) -> None:
    for name in (".bse", "base.lock"):
        (here / "runs" / name).write_text("")
    for text in ("bse", "runs/bse", "runs/bass"):
        with pytest.raises(CheckpointError) as caught:
            locate(text)
        assert "base" in caught.value.fix
        assert ".bse" not in str(caught.value) and "lock" not in caught.value.fix


def test_a_sharded_checkpoint_is_located_but_is_no_model(here: Path, save: Save) -> None:
    directory = save(here / "runs" / "wide" / "checkpoints" / step_name(1))
    (directory / WEIGHTS).rename(directory / SHARDS)
    (directory / "checksums.json").unlink()
    assert locate("wide").resolve() == directory
    with pytest.raises(CheckpointError, match="consolidate"):
        choose("runs/wide")


def test_fine_tuning_without_a_base_takes_the_best_candidate(here: Path) -> None:
    typed = ["+experiment=finetune_chat"]
    assert with_base(typed) == [*typed, "init_from=runs/chatty/final"]
    assert with_base([*typed, "init_from=base"]) == [*typed, "init_from=base"]
    assert with_base(["+experiment=smoke"]) == ["+experiment=smoke"]
    run = here / "runs" / "finetune_chat"
    run.mkdir()
    (run / "config.yaml").write_text("init_from: runs/base/final\n")
    assert with_base([*typed, "run.resume=auto"])[-1] == "init_from=runs/base/final", "the base it began with"


def test_runs_are_found_by_name_for_audits_and_adapters(here: Path) -> None:
    assert folder_of("base") == Path("runs/base") and folder_of("runs/base") == Path("runs/base")
    assert folder_of("no-run") == Path("no-run")
    (here / "runs" / "base" / "lora").mkdir()
    (here / "runs" / "base" / "lora" / "lit_model.pth.lora").write_text("")
    assert find_adapters(Path("base")) == find_adapters(Path("runs/base")) == Path("runs/base/lora")
