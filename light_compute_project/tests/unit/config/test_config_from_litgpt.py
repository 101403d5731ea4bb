"""`from_litgpt=FILE`: every key of a `litgpt pretrain` config becomes what it means here, or is named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from litgpt_core.config.compose import load
from litgpt_core.config.litgpt_keys import EVAL_DEFAULTS, LOG_DEFAULTS, TOP_DEFAULTS, TRAIN_DEFAULTS, literal
from litgpt_core.config.trainer import TrainerSettings
from litgpt_core.core.errors import ConfigError

FILE: dict[str, Any] = {
    "model_name": "pythia-14m",
    "tokenizer_dir": "some/tokenizer",
    "data": {"class_path": "litgpt.data.TextFiles", "init_args": {"train_data_path": "texts"}},
    "train": {"max_tokens": 1_000_000, "global_batch_size": 8, "micro_batch_size": 2},
}
MODEL = {"block_size": 256, "n_layer": 2, "n_head": 4, "n_embd": 64}


def write(folder: Path, changes: dict[str, Any]) -> Path:
    """FILE with `a.b: value` changes; None as a value is null."""
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(FILE))
    for path, value in changes.items():
        keys, place = path.split("."), content
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
    file = folder / "litgpt.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def loaded(folder: Path, changes: dict[str, Any], *typed: str) -> Any:
    return load([f"from_litgpt={write(folder, changes)}", *typed])


def refusal(folder: Path, changes: dict[str, Any], *typed: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, changes, *typed)
    return str(caught.value)


def at(config: Any, path: str) -> Any:
    """`a.b.c` of settings; below `model`, of its fields; below `trainer`, of whichever group has it."""
    for key in path.split("."):
        if isinstance(config, TrainerSettings):
            config = next(group for group in vars(config).values() if hasattr(group, key))
        config = config[key] if isinstance(config, dict) else getattr(config, key)
    return config


@pytest.mark.parametrize(
    ("key", "value", "path", "meant"),
    [
        ("seed", 7, "seed", 7),
        ("out_dir", "out/a/b", "run.dir", "out/a"),
        ("out_dir", "out/a/b", "run.name", "b"),
        ("resume", "auto", "run.resume", "auto"),
        ("resume", True, "run.resume", True),
        ("model_name", "EleutherAI/pythia-31m", "model.fields.name", "EleutherAI/pythia-31m"),
        ("initial_checkpoint_dir", "some/dir", "init_from", "some/dir"),
        ("initial_checkpoint_dir", "some/dir", "model.source", "pretrained"),
        ("tokenizer_dir", "it's/ü [1]", "tokenizer.path", "it's/ü [1]"),
        ("precision", "bf16-mixed", "trainer.precision", "bf16-mixed"),
        ("precision", None, "trainer.precision", "auto"),
        ("logger_name", "csv", "logger.kind", "csv"),
        ("logger_name", "wandb", "logger.kind", "wandb"),
        ("data.init_args.train_data_path", "other", "data.path", "other"),
        ("data.init_args.num_workers", 2, "trainer.num_workers", 2),
        ("train.save_interval", 50, "trainer.save_interval", 50),
        ("train.log_interval", 3, "trainer.log_interval", 3),
        ("train.global_batch_size", 16, "trainer.global_batch_size", 16),
        ("train.micro_batch_size", 4, "trainer.micro_batch_size", 4),
        ("train.lr_warmup_steps", 9, "optim.schedule.lr_warmup_steps", 9),
        ("train.lr_warmup_steps", None, "optim.schedule.lr_warmup_steps", 0),
        ("train.max_seq_length", 128, "model.fields.block_size", 128),
        ("train.tie_embeddings", True, "model.fields.tie_embeddings", True),
        ("train.max_norm", 0.5, "trainer.max_norm", 0.5),
        ("train.min_lr", "2.5e-4", "optim.schedule.min_lr_fraction", 0.25),
        ("eval.interval", 77, "trainer.eval_interval", 77),
        ("eval.max_iters", 3, "trainer.eval_tokens", 3 * 2 * 512),
        ("optimizer", {"class_path": "torch.optim.AdamW", "init_args": {"lr": "6e-4"}}, "optim.lr", 6e-4),
        ("optimizer", {"class_path": "AdamW", "init_args": {"betas": [0.8, 0.9]}}, "optim.betas", [0.8, 0.9]),
        ("optimizer", {"class_path": "AdamW", "init_args": {"weight_decay": 0.3}}, "optim.weight_decay", 0.3),
        ("optimizer", {"class_path": "AdamW", "init_args": {"eps": "1e-7"}}, "optim.eps", 1e-7),
    ],
)
def test_a_key_becomes_our_setting(tmp_path: Path, key: str, value: Any, path: str, meant: Any) -> None:
    typed = ["trainer.max_steps=3"] if key == "initial_checkpoint_dir" else []  # a directory that is not there
    config = loaded(tmp_path, {key: value}, *typed)
    assert at(config, path) == pytest.approx(meant) if isinstance(meant, float) else at(config, path) == meant


def test_wandb_gets_project_and_group(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"logger_name": "wandb", "log.project": "p", "log.group": "g"})
    assert (config.logger.project, config.logger.group) == ("p", "g")


def test_what_the_file_leaves_out_has_litgpts_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"train": {"max_tokens": 10**10}})
    assert (config.seed, config.run.name, config.run.dir) == (42, "pretrain", "out")
    batch, evaluation = config.trainer.batch, config.trainer.evaluation
    assert (batch.global_batch_size, batch.micro_batch_size, batch.max_norm) == (512, 4, 1.0)
    saved = config.trainer.checkpointing.save_interval
    assert (evaluation.log_interval, saved, evaluation.eval_interval) == (1, 1000, 1000)
    assert (config.optim.lr, config.optim.betas, config.optim.weight_decay) == (1e-3, [0.9, 0.999], 0.01)
    assert config.optim.schedule.lr_warmup_steps == 2000
    assert config.optim.schedule.min_lr_fraction * config.optim.lr == pytest.approx(4e-5)


@pytest.mark.parametrize(
    ("changes", "typed", "steps"),
    [
        ({"train.max_tokens": 8 * 512 * 10}, [], 10),
        ({"train.max_tokens": 8 * 512 * 11 - 1}, [], 10),
        ({"train.max_tokens": "1e6", "train.max_seq_length": 100}, [], 1250),
        ({"train.max_tokens": 7 * 512 * 10, "train.global_batch_size": 7}, [], 11),
        ({"train.max_tokens": 8 * 256 * 10, "model_config": MODEL}, [], 10),
        ({"train.max_tokens": 8 * 512 * 10}, ["model.block_size=64"], 80),
        ({"train.max_tokens": 8 * 512 * 10}, ["trainer.global_batch_size=4"], 20),
        ({"train.max_tokens": 8 * 512 * 10}, ["trainer.max_steps=3"], 3),
    ],
)
def test_tokens_become_whole_steps(tmp_path: Path, changes: dict[str, Any], typed: list[str], steps: int) -> None:
    """7 sequences in micro-batches of 2 are 6 a step there: 35840 // (6 * 512) = 11."""
    assert loaded(tmp_path, changes, *typed).trainer.stop.max_steps == steps


def test_devices_are_litgpts(tmp_path: Path) -> None:
    trainer = loaded(tmp_path, {"devices": 4, "num_nodes": 2, "train.global_batch_size": 16}).trainer.hardware
    assert (trainer.devices, trainer.num_nodes, trainer.strategy) == (4, 2, "fsdp_hybrid")
    assert loaded(tmp_path, {"devices": 4}, "trainer.devices=1").trainer.hardware.devices == 1


def test_a_model_config_is_taken_field_by_field(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"model_config": {**MODEL, "padded_vocab_size": 300, "norm_eps": "1e-6"}})
    built = config.model.build(vocab_size=256)
    assert (built.name, built.n_layer, built.n_embd, built.block_size) == ("pythia-14m", 2, 64, 256)
    assert (built.padded_vocab_size, built.norm_eps, built.rotary_percentage) == (300, 1e-6, 0.25)


def test_the_context_of_a_given_checkpoint_counts(tmp_path: Path) -> None:
    (tmp_path / "model_config.yaml").write_text("block_size: 128\n", encoding="utf-8")
    changes = {"initial_checkpoint_dir": str(tmp_path), "train.max_tokens": 8 * 128 * 5, "tokenizer_dir": None}
    config = loaded(tmp_path, changes)
    assert config.trainer.stop.max_steps == 5
    assert config.tokenizer.path == str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"train.max_step": 1}, "max_steps"),
        ({"eval.surprise": 1}, "eval.surprise"),
        ({"log.surprise": 1}, "log.surprise"),
        ({"train": 3}, "train=3"),
        ({"train.epochs": 1}, "train.max_tokens"),
        ({"train.max_tokens": None}, "trainer.max_steps=N"),
        ({"train.max_tokens": 100}, "8 x 512 tokens"),
        ({"train.max_norm": None}, "trainer.max_norm=null"),
        ({"train.lr_warmup_fraction": 0.1}, "train.lr_warmup_steps"),
        ({"train.min_lr": 1.0}, "train.min_lr"),
        ({"train.max_seq_length": 1024}, "512"),
        ({"train.micro_batch_size": 9}, "train.global_batch_size=8"),
        ({"train.log_interval": 0.5}, "train.log_interval"),
        ({"eval.max_new_tokens": 5}, "trainer.sample_tokens"),
        ({"data": "TinyStories"}, "data=text data.path=FOLDER"),
        ({"data.init_args.val_data_path": "x"}, "data.val_fraction"),
        ({"data.init_args": {}}, "train_data_path"),
        ({"data.init_args.surprise": 1}, "data.init_args.surprise"),
        ({"optimizer": "SGD"}, "torch.optim.AdamW"),
        ({"optimizer": {"class_path": "AdamW", "init_args": {"amsgrad": True}}}, "amsgrad"),
        ({"optimizer": {"class_path": "AdamW", "init_args": {"surprise": True}}}, "surprise"),
        ({"precision": "64-true"}, "bf16-mixed"),
        ({"logger_name": "mlflow"}, "tensorboard"),
        ({"resume": "some/checkpoint"}, "out_dir"),
        ({"model_name": None}, "model_name is missing"),
        ({"model_name": "pythia-15m"}, "pythia-14m"),
        ({"model_config": {**MODEL, "n_heads": 4}}, "n_head"),
        ({"model_config": "file.yaml"}, "n_layer: 6"),
        ({"tokenizer_dir": None}, "tokenizer=byte"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_is_needed(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    message = refusal(tmp_path, changes)
    assert words in message and "\n  - " in message


def test_all_problems_come_together(tmp_path: Path) -> None:
    message = refusal(tmp_path, {"surprise": 1, "data": "OpenWebText", "train.epochs": 2, "tokenizer_dir": None})
    assert message.count("\n  - ") == 4


@pytest.mark.parametrize(
    ("changes", "typed", "words"),
    [
        ({"train.max_steps": 5}, [], "train.max_steps"),
        ({"train.max_time": 5}, [], "train.max_time"),
        ({"train.save_interval": None}, [], "train.save_interval"),
        ({"train.global_batch_size": 9}, [], "becomes 8"),
        ({"eval.initial_validation": True}, [], "initial_validation"),
        ({"eval.final_validation": False}, [], "final_validation"),
        ({"eval.evaluate_example": "random"}, [], "evaluate_example"),
        ({"log.run": "x"}, [], "log.run"),
        ({"data.init_args.seed": 3}, [], "data.init_args.seed"),
        ({"model_config": {**MODEL, "vocab_size": 9}}, [], "vocab_size"),
        ({"model_config": {**MODEL, "hf_config": {"org": "x"}}}, [], "hf_config"),
        ({"optimizer": {"class_path": "AdamW", "init_args": {"fused": True}}}, [], "fused"),
        ({"initial_checkpoint_dir": "x", "train.max_seq_length": 8}, [], "model_name"),
        ({}, ["data=small_source"], "data=small_source"),
        ({}, ["tokenizer=byte"], "tokenizer_dir"),
        ({}, ["optim=muon"], "optim=muon"),
        ({}, ["model=tiny", "trainer.max_steps=3"], "model=tiny"),
    ],
)
def test_what_is_otherwise_here_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], typed: list[str], words: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="litgpt_core.config.litgpt"):
        logging.getLogger("litgpt_core").propagate = True
        loaded(tmp_path, changes, *typed)
    assert any(words in record.getMessage() for record in caplog.records)


def test_what_is_typed_wins(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"data": "TinyStories"}, "data=small_source", "seed=3", "optim.lr=2e-3", "optim.eps=1e-9")
    assert (config.seed, config.optim.lr, config.optim.eps) == (3, 2e-3, 1e-9)
    assert config.optim.schedule.min_lr_fraction * 2e-3 == pytest.approx(4e-5)
    assert config.data.kind == "python_source"


@pytest.mark.parametrize("content", ["a: [", "just words", None])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "bad.yaml"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load([f"from_litgpt={file}"])


def test_two_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 times"):
        load([f"from_litgpt={write(tmp_path, {})}", "from_litgpt=other.yaml"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a'b", "'a\\'b'"),
        ("a\\", "'a\\\\'"),
        (None, "null"),
        (True, "true"),
        ([1, "x"], "[1,'x']"),
        ({"a": 2.5}, "{a:2.5}"),
    ],
)
def test_values_in_hydras_grammar(value: Any, text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert literal(value) == text
    assert OverridesParser.create().parse_override(f"key={text}").value() == value


@pytest.mark.parity
def test_keys_and_defaults_are_litgpts() -> None:
    """Read from the signature of its `setup`, so that a new release that adds a key is noticed."""
    import dataclasses
    import inspect

    from litgpt.args import EvalArgs, LogArgs, TrainArgs
    from litgpt.pretrain import setup

    there = {name: item.default for name, item in inspect.signature(setup).parameters.items()}
    assert there.keys() == TOP_DEFAULTS.keys()
    assert dataclasses.asdict(there["train"]) == TRAIN_DEFAULTS
    assert dataclasses.asdict(there["eval"]) == EVAL_DEFAULTS
    assert dataclasses.asdict(there["log"]) == LOG_DEFAULTS
    for kind, mine in ((TrainArgs, TRAIN_DEFAULTS), (EvalArgs, EVAL_DEFAULTS), (LogArgs, LOG_DEFAULTS)):
        assert {item.name for item in dataclasses.fields(kind)} == mine.keys()
    for name in ("precision", "devices", "num_nodes", "resume", "logger_name", "seed", "optimizer"):
        assert there[name] == TOP_DEFAULTS[name], name
    assert str(there["out_dir"]) == TOP_DEFAULTS["out_dir"]
