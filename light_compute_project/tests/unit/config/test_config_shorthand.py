"""What people type instead of KEY=VALUE is understood, or answered with what to type."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from litgpt_core import cli
from litgpt_core.config.aliases import ELSEWHERE, OTHER_NAMES, VALUES, resolve_key
from litgpt_core.config.compose import load
from litgpt_core.config.schema import settings
from litgpt_core.config.shorthand import as_overrides
from litgpt_core.core.errors import ConfigError
from litgpt_core.training.usage import composed, shows_config


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a text, a folder of texts, a log of chats and a finished run."""
    (tmp_path / "my.txt").write_text("some text\n" * 100, encoding="utf-8")
    (tmp_path / "texts").mkdir()
    (tmp_path / "chats.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "config.yaml").write_text("seed: 1\n", encoding="utf-8")
    (tmp_path / "hub.yaml").write_text("model_name: pythia-14m\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


UNDERSTOOD = {
    "my.txt --epochs 10 --batch_size 64": "data=text data.path=my.txt trainer.epochs=10 trainer.global_batch_size=64",
    "--experiment baseline": "+experiment=baseline",
    "--experiment=baseline --resume": "+experiment=baseline run.resume=true",
    "baseline": "+experiment=baseline",
    "exp=smoke": "+experiment=smoke",
    "max_steps=10": "trainer.max_steps=10",
    "steps=1e3": "trainer.max_steps=1000",
    "--max-steps 10k": "trainer.max_steps=10000",
    "learning_rate=1e-3 batch_size=8": "optim.lr=1e-3 trainer.global_batch_size=8",
    "epochs=2 warmup=3 dropout=0.1": "trainer.epochs=2 optim.schedule.lr_warmup_steps=3 model.dropout=0.1",
    "trainer.batch_size=8": "trainer.global_batch_size=8",
    "trainer.learning_rate=1e-3": "optim.lr=1e-3",
    "train.max_steps=4": "trainer.max_steps=4",
    "optimizer=adamw optimizer.lr=1e-3": "optim=adamw optim.lr=1e-3",
    "optim.lr = 1e-3": "optim.lr=1e-3",
    "lr= 1e-3": "optim.lr=1e-3",
    "data=my.txt": "data=text data.path=my.txt",
    "data=chats.jsonl": "data=chat data.path=chats.jsonl",
    "data.path=my.txt": "data=text data.path=my.txt",
    "+experiment=baseline data.path=texts": "data=text +experiment=baseline data.path=texts",
    "+experiment=finetune_chat data.path=chats.jsonl": "+experiment=finetune_chat data.path=chats.jsonl",
    "texts": "data=text data.path=texts",
    "tokenizer=texts": "tokenizer=pretrained tokenizer.path=texts",
    "model=pythia-14m": "model=registry model.name=pythia-14m",
    "layers=3 n_head=2 hidden_size=64": "model.n_layer=3 model.n_head=2 model.n_embd=64",
    "--compile my.txt": "trainer.compile=true data=text data.path=my.txt",
    "--no-compile --cpu": "trainer.compile=false trainer.accelerator=cpu",
    "device=gpu precision=bf16": "trainer.accelerator=cuda trainer.precision=bf16-mixed",
    "wandb=false": "logger=none",
    "--no_wandb --seed 3": "logger=none seed=3",
    "trainer.max_norm=None init_from=None": "trainer.max_norm=null init_from=null",
    "sample_prompts=hello": "trainer.sample_prompts=['hello']",
    "from_litgpt=hub.yaml": "from_litgpt=hub.yaml",
    "+experiment=smoke ~lora trainer.max_steps=3 run.name=1.50": "+experiment=smoke ~lora trainer.max_steps=3 "
    "run.name=1.50",
    "optim.lr=1e-3,3e-3 model.n_layer=choice(2,4)": "optim.lr=1e-3,3e-3 model.n_layer=choice(2,4)",
}
"""Typed -> as it is read."""


@pytest.mark.parametrize("typed", UNDERSTOOD)
def test_a_shorter_form_is_read_as_the_exact_one(typed: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="litgpt_core"):
        assert as_overrides(typed.split()) == UNDERSTOOD[typed].split()
    told = [record.message for record in caplog.records]
    assert len(told) == (UNDERSTOOD[typed] != typed and " = " not in typed)
    assert as_overrides(UNDERSTOOD[typed].split()) == UNDERSTOOD[typed].split(), "reading twice changes nothing"


ANSWERED = {
    "data=my_text.txt": "data.path=my.txt",
    "my_text.txt": "data.path=my.txt",
    "data my.txt": "data=text data.path=my.txt",
    "seed 3": "seed=3",
    "trainer.max_steps:10": "trainer.max_steps=10",
    "tiny": "model=tiny",
    "smok": "+experiment=smoke",
    "hub.yaml": "from_litgpt=hub.yaml",
    "runs/old": "init_from=runs/old",
    "--lr": "optim.lr=...",
    "--config foo.yaml": "+experiment=NAME",
    "--dry_run": "--cfg job",
    "--lerning_rate 3": "optim.lr=...",
    "grad_accum=4": "trainer.micro_batch_size=N",
    "max_step=10": "trainer.max_steps",
    "traner.max_steps=4": "trainer",
    "model.n_layr=3": "n_layer",
    "model=tinyy": "tiny",
    "trainer.max_steps=1,000": "trainer.max_steps=1000",
    "run.name=a'b": "run.name=a-b",
    "data=text": "data.path=FILE_OR_FOLDER",
    "precision=fp8": "'bf16-mixed'",
}
"""Typed -> what the answer must hold."""


@pytest.mark.parametrize("typed", ANSWERED)
def test_a_mistake_is_answered_once_with_what_to_type(typed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(typed.split())
    message = str(caught.value)
    assert ANSWERED[typed] in message
    assert message.count("try:") <= 1 and "problems in the configuration" not in message, "one message for one cause"


@pytest.mark.parametrize("typed", [typed for typed, answer in ANSWERED.items() if re.search(r"=\S", answer)])
def test_what_an_answer_says_to_type_can_be_typed(typed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(typed.split())
    advice = caught.value.fix.partition(";")[0].partition(" for ")[0].partition(" to ")[0].partition(":")[0]
    for words in advice.split(" or "):
        if re.search(r"=(\.\.\.|[A-Z_]+$)", words):
            continue  # with a value of the user's own
        if words.startswith("from_litgpt="):
            with pytest.raises(ConfigError, match=r"hub\.yaml cannot be run here"):  # read, and found incomplete
                load(words.split())
        else:
            load(words.split())


def test_every_other_name_means_a_setting_that_exists() -> None:
    assert {key for key in OTHER_NAMES.values() if key not in settings()} == set()
    assert {name for name in OTHER_NAMES if name in settings()} == set()
    assert [name for name in ELSEWHERE if resolve_key(name)] == []
    assert {key for key in VALUES if "." in key and key not in settings()} == set()
    for name in ("n_layr", "max_step", "modl"):
        assert resolve_key(name) is None, "a slip is not another name"


def test_runs_are_named_after_experiment_file_or_number(here: Path) -> None:
    assert load(["+experiment=smoke", "my.txt"]).run.name == "smoke"
    assert load(["my.txt"]).run.name == "my"
    assert load(["data=text", "data.path=/some/where/My Text (2).v1.txt.gz"]).run.name == "My-Text-2-.v1"
    assert load(["texts/"]).run.name == "texts"
    assert load(["model=tiny"]).run.name == "run"
    assert load(["model=tiny"], numbered=True).run.name == "run-1"
    (here / "runs" / "run-7").mkdir()
    assert load(["model=tiny"], numbered=True).run.name == "run-8"
    assert load(["model=tiny", "run.resume=auto"], numbered=True).run.name == "run-7"
    assert load(["model=tiny"]).plain["run"]["name"] == "run"


def test_an_experiment_that_inherits_has_its_own_name(here: Path) -> None:
    folder = here / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - smoke\n  - _self_\nseed: 3\n")
    assert load(["+experiment=mine"]).run.name == "mine"


def test_cfg_job_prints_the_composed_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "my.txt", "--epochs", "2", "--cfg", "job"]) == 0
    printed = capsys.readouterr().out
    assert "path: my.txt" in printed and "epochs: 2" in printed and "name: my\n" in printed
    assert composed(["--cfg=job", "seed=5"]).startswith("seed: 5\n")
    assert composed(["seed=5", "--cfg", "job", "--resolve"]).startswith("seed: 5\n")
    assert not shows_config(["seed=5"])
    with pytest.raises(ConfigError, match="--cfg job"):
        composed(["--cfg", "hydra"])
