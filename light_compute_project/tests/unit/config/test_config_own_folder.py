"""A user's own config folder is searched before the shipped one, and `lcp init` writes one that works."""

from __future__ import annotations

from pathlib import Path

import pytest

from litgpt_core import cli
from litgpt_core.config.compose import load
from litgpt_core.config.source import CONFIG_DIR, config_dirs, needs_checkpoint, option_names
from litgpt_core.config.starter import in_words, sums
from litgpt_core.core.command_line import CONFIG_DIR_VARIABLE, child_command, recorded_arguments, take_config_dir
from litgpt_core.core.errors import ConfigError

MINE = """\
# @package _global_
defaults:
  - smoke
  - _self_
  - override /model: small
run:
  name: mine
trainer:
  max_steps: 7
"""
SMALL = "source: fields\nname: small\nblock_size: 16\nn_layer: 1\nn_head: 2\nn_embd: 16\n"


def write_configs(folder: Path) -> Path:
    for name, text in (("experiment/mine.yaml", MINE), ("model/small.yaml", SMALL)):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CONFIG_DIR_VARIABLE, "")  # so that what a test sets is taken back
    return tmp_path


def test_configs_of_the_current_folder_inherit_from_the_shipped_ones(here: Path) -> None:
    assert config_dirs() == [CONFIG_DIR]
    write_configs(here / "configs")
    assert config_dirs() == [here / "configs", CONFIG_DIR]
    assert {"mine", "smoke"} <= set(option_names("experiment")) and {"small", "tiny"} <= set(option_names("model"))
    config = load(["+experiment=mine"])
    assert (config.run.name, config.trainer.stop.max_steps, config.trainer.evaluation.eval_interval) == ("mine", 7, 20)
    assert (config.model.fields["n_embd"], config.data.name) == (16, "small_source")


def test_a_file_of_the_same_name_replaces_the_shipped_one(here: Path) -> None:
    before = load(["+experiment=smoke"]).model.fields
    write_configs(here / "configs")
    (here / "configs" / "model" / "tiny.yaml").write_text(SMALL, encoding="utf-8")
    assert load(["+experiment=smoke"]).model.fields != before


def test_mistakes_are_found_where_they_were_written(here: Path) -> None:
    folder = write_configs(here / "configs")
    (folder / "experiment" / "mine.yaml").write_text(MINE.replace("max_steps", "max_step"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"did you mean max_steps.*in configs/experiment/mine\.yaml, line 9"):
        load(["+experiment=mine"])
    with pytest.raises(ConfigError, match="did you mean mine"):
        load(["+experiment=mein"])


def test_an_experiment_that_inherits_one_from_a_checkpoint_needs_it_too(here: Path) -> None:
    write_configs(here / "configs")
    assert needs_checkpoint("finetune_chat") and not needs_checkpoint("mine")
    text = MINE.replace("- smoke", "- finetune_chat").replace("  - override /model: small\n", "")
    (here / "configs" / "experiment" / "chatty.yaml").write_text(text, encoding="utf-8")
    assert needs_checkpoint("chatty")


def test_config_dir_takes_the_place_of_configs_for_this_process_and_its_children(here: Path) -> None:
    write_configs(here / "else where")
    assert take_config_dir(["--config-dir=else where", "+experiment=mine"]) == ["+experiment=mine"]
    assert load(["+experiment=mine"]).run.name == "mine"
    command = child_command("train", "seed=1")
    assert command[-4:] == ["train", "--config_dir", str(here / "else where"), "seed=1"]
    line = f"lcp train --config_dir '{here / 'else where'}' seed=1"
    assert recorded_arguments(line, verb="train", script="train.py") == ["seed=1"]
    take_config_dir(["--config_dir", "absent"])
    with pytest.raises(ConfigError, match="no such folder"):
        load(["+experiment=smoke"])
    with pytest.raises(ConfigError, match="without a folder"):
        take_config_dir(["--config_dir"])


def test_init_writes_a_starting_point_that_composes(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["init", "new"]) == 0
    assert "new/configs/experiment/first.yaml" in capsys.readouterr().out
    monkeypatch.chdir(here / "new")
    config = load(["+experiment=first"])
    assert (config.run.name, config.data.kind, config.model.fields["name"]) == ("first", "text", "light-tiny")
    assert (Path(config.data.path) / "sums.txt").read_text(encoding="utf-8") == sums()


def test_init_takes_the_users_text_and_refuses_a_folder_in_use(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / 'my "text".txt').write_text("abc", encoding="utf-8")
    cli.main(["init", "new", "--text", 'my "text".txt'])
    with pytest.raises(ConfigError, match="not empty"):
        cli.main(["init", "new"])
    with pytest.raises(ConfigError, match="does not exist"):
        cli.main(["init", "other", "--text", "absent.txt"])
    assert not (here / "other").exists()
    monkeypatch.chdir(here / "new")
    assert load(["+experiment=first"]).data.path == str(here / 'my "text".txt')


def test_the_made_up_text_holds_every_sum_once() -> None:
    lines = sums(5).splitlines()
    assert len(set(lines)) == 25 and "two plus four is six" in lines
    assert [in_words(n) for n in (0, 13, 20, 98)] == ["zero", "thirteen", "twenty", "ninety-eight"]
