"""`from_litgpt=FILE.yaml`: a config of `litgpt pretrain`, as LitGPT's config_hub has them, in overrides of our own.

What has no counterpart here is never dropped in silence: what would change the run is a problem, all of them reported
together with what is needed; what means nothing here is a warning. A key that the file lacks has LitGPT's default.
Reads YAML, looks at no model and starts nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.config.litgpt_keys import (
    ADAMW_DEFAULTS,
    ADAMW_SWITCHES,
    EVAL_DEFAULTS,
    LOG_DEFAULTS,
    TEXT_FILES_DEFAULTS,
    TOP_DEFAULTS,
    TRAIN_DEFAULTS,
    Findings,
    read,
    typed_values,
)
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.core.text import nearest

KEY = "from_litgpt"
"""On the command line: `from_litgpt=FILE.yaml`."""

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")
LOGGERS = ("csv", "tensorboard", "wandb")
DEFAULT_BLOCK_SIZE = 4096
"""LitGPT's `Config.block_size`, where a `model_config` does not say it."""


logger = logging.getLogger(__name__)


def expand(
    overrides: Sequence[str], *, model_fields: Collection[str], block_size_of: Callable[[str], int]
) -> list[str]:
    """`overrides` with `from_litgpt=FILE.yaml` replaced by what the file says; other arguments of `translate`.

    The file's settings come first, so that other settings of the command line override them. Both are logged.
    """
    files = [text.partition("=")[2] for text in overrides if text.lstrip("+").startswith(f"{KEY}=")]
    typed = [text for text in overrides if not text.lstrip("+").startswith(f"{KEY}=")]
    if not files:
        return typed
    if len(files) > 1:
        raise ConfigError(f"{KEY} is given {len(files)} times", needed="one file")
    path = Path(files[0].strip("'\"")).expanduser()
    found = translate(path, typed=typed, model_fields=model_fields, block_size_of=block_size_of)
    logger.info("%s says here: %s", path, " ".join(found.overrides))
    for warning in found.warnings:
        logger.warning("%s: %s", path, warning)
    return [*found.overrides, *typed]


@dataclass(frozen=True, kw_only=True)
class Translation:
    """One of LitGPT's files in our words."""

    overrides: list[str]
    """The same settings as overrides, to precede those given on the command line."""
    warnings: list[str]
    """What the file says and this project does otherwise or not at all."""


def translate(
    path: Path, *, typed: Sequence[str], model_fields: Collection[str], block_size_of: Callable[[str], int]
) -> Translation:
    """LitGPT's pretrain config at `path` as overrides.

    Args:
        path: The YAML file; paths in it are taken from the current folder, as LitGPT does.
        typed: The other overrides of the command line. A group typed there, such as `data=text`, replaces what the file
            says about it; block size, batch sizes and rate typed there enter the arithmetic of steps.
        model_fields: Settings that a `model_config` may hold.
        block_size_of: Tokens of context of a model in LitGPT's registry; raises ConfigError for an unknown name.

    Raises:
        ConfigError: The file cannot be read, or holds what cannot be done here; every problem is listed.
    """
    work = _Work(given=read(path), typed=typed_values(typed), model_fields=model_fields, block_size_of=block_size_of)
    work.top()
    if work.problems:
        lines = "\n".join(f"  - {problem}" for problem in work.problems)
        raise ConfigError(f"{path} cannot be run here as it stands:\n{lines}")
    return Translation(overrides=work.overrides, warnings=work.warnings)


@dataclass(kw_only=True)
class _Work(Findings):
    """Section by section; every method reads one part of the file."""

    given: dict[str, Any]
    model_fields: Collection[str]
    block_size_of: Callable[[str], int]

    def top(self) -> None:
        """The whole file."""
        file = self.section(self.given, "", TOP_DEFAULTS)
        train = self.section(file["train"], "train", TRAIN_DEFAULTS)
        evaluation = self.section(file["eval"], "eval", EVAL_DEFAULTS)
        self.put("seed", self.whole("seed", file["seed"], least=0))
        self.run(file)
        context = self.model(file, train)
        self.tokenizer(file)
        self.data(file["data"])
        self.optimizer(file["optimizer"], train)
        self.steps(file, train, evaluation, context)
        self.hardware(file)
        self.logging(file)

    def run(self, file: dict[str, Any]) -> None:
        """`out_dir` and `resume`."""
        out = Path(str(file["out_dir"]))
        self.put("run.dir", str(out.parent))
        self.put("run.name", out.name)
        if file["resume"] in (True, False, "auto"):
            self.put("run.resume", file["resume"])
        else:
            self.refuse(f"resume={file['resume']!r}: needed true, false or auto; a run continues in its out_dir")

    def model(self, file: dict[str, Any], train: dict[str, Any]) -> int | None:
        """`model_name`, `model_config`, `initial_checkpoint_dir`; returns the context in tokens, None if unknown."""
        fields, start, longest = file["model_config"], file["initial_checkpoint_dir"], train["max_seq_length"]
        if start is not None:
            self.put("init_from", str(start))
        if "model" in self.typed:
            self.warn(f"model={self.typed['model']} is given: the file's model is not used")
            return self.typed_whole("model.block_size")
        context: int | None = None
        if start is not None:
            self.choose("model", "pretrained")
            self.warn(f"the model's shape is read from {start}, not from model_name or model_config")
            context = _block_size_in(Path(str(start)))
        elif isinstance(fields, dict):
            self.choose("model", "registry")
            self.put("model.source", "fields")
            context = self.fields({"name": file["model_name"] or "light", **fields})
        elif fields is not None:
            self.refuse(f"model_config={fields!r}: needed the fields themselves, such as n_layer: 6")
        elif not isinstance(file["model_name"], str):
            self.refuse("model_name is missing: needed a name of LitGPT's registry, or model_config")
        else:
            try:
                context = self.block_size_of(file["model_name"])
            except LightComputeError as error:
                self.refuse(f"model_name={file['model_name']!r}: {' '.join(str(error).split())}")
            self.choose("model", "registry")
            self.put("model.name", file["model_name"])
        if longest is not None:
            longest = self.whole("train.max_seq_length", longest)
            if context is not None and longest > context:
                self.refuse(f"train.max_seq_length={longest}: needed at most the model's block_size, {context}")
            self.put("model.block_size", longest)
            context = longest
        if train["tie_embeddings"] is not None and (start is None or train["tie_embeddings"]):
            self.put("model.tie_embeddings", train["tie_embeddings"])
        return self.typed_whole("model.block_size") or context

    def fields(self, fields: dict[str, Any]) -> int:
        """A `model_config` field by field; returns its block size."""
        for key, value in fields.items():
            if key == "padded_vocab_size" and value is not None:
                self.put("model.padding_multiple", value)  # rounds up to just it, if the tokenizer's ids fit
            elif key == "padding_multiple" and fields.get("padded_vocab_size") is not None:
                self.warn("model_config.padding_multiple has no effect beside padded_vocab_size")
            elif key == "vocab_size":
                self.warn("model_config.vocab_size is not used: it follows from the tokenizer")
            elif key == "hf_config" and value:
                self.warn("model_config.hf_config is not used: it names a download")
            elif key not in (*self.model_fields, "padded_vocab_size", "hf_config"):
                hint = nearest(key, self.model_fields)
                self.refuse(f"model_config.{key}: needed a field of the model{hint}")
            elif key in self.model_fields:
                self.put(f"model.{key}", value)
        return self.whole("model_config.block_size", fields.get("block_size", DEFAULT_BLOCK_SIZE))

    def tokenizer(self, file: dict[str, Any]) -> None:
        """`tokenizer_dir`; without it, the tokenizer of `initial_checkpoint_dir`."""
        folder = file["tokenizer_dir"]
        if "tokenizer" in self.typed:
            if folder is not None:
                self.warn(f"tokenizer={self.typed['tokenizer']} is given: tokenizer_dir is not used")
        elif folder is None and file["initial_checkpoint_dir"] is None:
            self.refuse("tokenizer_dir is missing: needed a folder, or tokenizer=byte typed besides the file")
        else:
            self.choose("tokenizer", "pretrained")
            if folder is not None:
                self.put("tokenizer.path", str(folder))

    def data(self, given: Any) -> None:
        """LitGPT's data class: plain text can be read here."""
        if "data" in self.typed:
            self.warn(f"data={self.typed['data']} is given: the file's data is not used")
            return
        name = given.get("class_path") if isinstance(given, dict) else given
        if str(name).rsplit(".", 1)[-1] != "TextFiles":
            self.refuse(f"data={name}: needed TextFiles, or data=text data.path=FOLDER typed besides the file")
            return
        options = given.get("init_args") if isinstance(given, dict) else None
        files = self.section(options, "data.init_args", TEXT_FILES_DEFAULTS)
        if files["train_data_path"] is None:
            self.refuse("data.init_args.train_data_path is missing: needed a folder of .txt files")
        if files["val_data_path"] is not None:
            self.refuse(
                "data.init_args.val_data_path: needed one folder, of which data.val_fraction is held out: "
                "data=text data.path=FOLDER data.val_fraction=..."
            )
        self.choose("data", "text")
        self.put("data.path", str(files["train_data_path"]))
        self.put("data.glob", "*.txt")
        if "num_workers" in (options or {}):
            self.put("trainer.num_workers", self.whole("data.init_args.num_workers", files["num_workers"], least=0))
        if "seed" in (options or {}):
            self.warn("data.init_args.seed is not used: the order of samples follows from seed")
        self.warn("validation is a tenth of the text (data.val_fraction); LitGPT takes the first file")

    def optimizer(self, given: Any, train: dict[str, Any]) -> None:
        """AdamW and its rate over the run."""
        if "optim" in self.typed:
            self.warn(f"optim={self.typed['optim']} is given: optimizer, warm-up and min_lr are not used")
            return
        name = given.get("class_path") if isinstance(given, dict) else given
        if str(name).rsplit(".", 1)[-1] != "AdamW":
            self.refuse(f"optimizer={name}: needed torch.optim.AdamW, or optim=muon typed besides the file")
            return
        options = given.get("init_args") if isinstance(given, dict) else None
        values = self.section(options, "optimizer.init_args", ADAMW_DEFAULTS | dict.fromkeys(ADAMW_SWITCHES))
        for switch in ADAMW_SWITCHES:
            if values[switch] and switch in ("amsgrad", "maximize"):
                self.refuse(f"optimizer.init_args.{switch}={values[switch]}: needed false")
            elif values[switch] is not None:
                self.warn(f"optimizer.init_args.{switch} is not used: it is decided by the device")
        self.choose("optim", "adamw")
        for key in ADAMW_DEFAULTS:
            self.put(f"optim.{key}", values[key])
        rate = self.typed_number("optim.lr") or self.real("optimizer lr", values["lr"])
        least = self.real("train.min_lr", train["min_lr"])
        if not 0 <= least <= rate:
            self.refuse(f"train.min_lr={least}: needed a number from 0 to the peak, optimizer lr={rate}")
        else:
            self.put("optim.schedule.kind", "cosine")
            self.put("optim.schedule.min_lr_fraction", least / rate if rate else 0.0)
        if train["lr_warmup_fraction"] is not None:
            self.refuse("train.lr_warmup_fraction: needed train.lr_warmup_steps, in optimizer steps")
        warmup = self.whole("train.lr_warmup_steps", train["lr_warmup_steps"] or 0, least=0)
        self.put("optim.schedule.lr_warmup_steps", warmup)
        if values["weight_decay"]:
            self.warn("weight_decay is for matrices only here; LitGPT decays biases and norms too")

    def steps(
        self, file: dict[str, Any], train: dict[str, Any], evaluation: dict[str, Any], context: int | None
    ) -> None:
        """Batches, `max_tokens`, and what happens every so many steps."""
        world = 1 if file["devices"] == "auto" else self.whole("devices", file["devices"])
        world *= self.whole("num_nodes", file["num_nodes"])
        micro = self.whole("train.micro_batch_size", train["micro_batch_size"])
        asked = self.whole("train.global_batch_size", train["global_batch_size"])
        batch = asked // world // micro * micro * world
        if not batch:
            self.refuse(
                f"train.global_batch_size={asked}: needed at least micro_batch_size x devices = {micro * world}"
            )
        elif batch != asked:
            self.warn(f"train.global_batch_size={asked} becomes {batch}, as LitGPT rounds it to micro-batches")
        self.put("trainer.global_batch_size", batch)
        self.put("trainer.micro_batch_size", micro)
        batch = self.typed_whole("trainer.global_batch_size") or batch
        if train["epochs"] is not None:
            self.refuse(f"train.epochs={train['epochs']}: needed train.max_tokens; LitGPT's pretrain refuses it too")
        for name in ("max_steps", "max_time"):
            if train[name] is not None:
                self.warn(f"train.{name} is not used, nor does LitGPT's pretrain stop by it: trainer.max_steps=N does")
        self.length(train["max_tokens"], batch, context)
        if train["max_norm"] is None:
            self.refuse("train.max_norm is missing: needed a number; trainer.max_norm=null clips nothing")
        else:
            self.put("trainer.max_norm", self.real("train.max_norm", train["max_norm"]))
        self.put("trainer.log_interval", self.whole("train.log_interval", train["log_interval"]))
        if train["save_interval"] is None:
            self.warn("train.save_interval is null: here checkpoints are written all the same (trainer.save_interval)")
        else:
            self.put("trainer.save_interval", self.whole("train.save_interval", train["save_interval"]))
        self.put("trainer.eval_interval", self.whole("eval.interval", evaluation["interval"]))
        rounds = self.whole("eval.max_iters", evaluation["max_iters"])
        if context is not None:
            self.put("trainer.eval_tokens", rounds * micro * world * context)
        if evaluation["max_new_tokens"] is not None:
            self.refuse("eval.max_new_tokens: needed null; LitGPT's pretrain refuses it too (trainer.sample_tokens=N)")
        if evaluation["initial_validation"]:
            self.warn("eval.initial_validation is not used: the first validation is at eval.interval")
        if not evaluation["final_validation"]:
            self.warn("eval.final_validation is not used: a run always ends with a validation of the whole split")
        if evaluation["evaluate_example"] != "first":
            self.warn("eval.evaluate_example is not used: it belongs to finetuning")

    def length(self, max_tokens: Any, batch: int, context: int | None) -> None:
        """`max_tokens` as whole optimizer steps."""
        if "trainer.max_steps" in self.typed:
            return
        if max_tokens is None:
            self.refuse("train.max_tokens is missing: needed a number of tokens, or trainer.max_steps=N typed")
        elif context is None:
            self.refuse("train.max_tokens: the model's block_size is unknown: needed trainer.max_steps=N typed")
        elif batch:
            steps = self.whole("train.max_tokens", max_tokens) // (batch * context)
            if not steps:
                self.refuse(f"train.max_tokens={max_tokens}: needed at least one step's, {batch} x {context} tokens")
            self.put("trainer.max_steps", steps)

    def hardware(self, file: dict[str, Any]) -> None:
        """`precision`, `devices`, `num_nodes`."""
        precision = file["precision"] or "auto"
        if precision not in (*PRECISIONS, "auto"):
            self.refuse(f"precision={precision!r}: needed one of {', '.join(PRECISIONS)}, or null")
        self.put("trainer.precision", precision)
        self.put("trainer.devices", "auto" if file["devices"] == "auto" else self.whole("devices", file["devices"]))
        self.put("trainer.num_nodes", self.whole("num_nodes", file["num_nodes"]))
        self.put("trainer.strategy", "fsdp_hybrid")  # on one device it says nothing

    def logging(self, file: dict[str, Any]) -> None:
        """`logger_name` and `log`."""
        name, log = file["logger_name"], self.section(file["log"], "log", LOG_DEFAULTS)
        if "logger" not in self.typed and name not in LOGGERS:
            self.refuse(f"logger_name={name!r}: needed one of {', '.join(LOGGERS)}, or logger=none typed")
        taken = ("project", "group") if self.choose("logger", str(name)) and name == "wandb" else ()
        for key, usual in LOG_DEFAULTS.items():
            if log[key] != usual and key in taken:
                self.put(f"logger.{key}", log[key])
            elif log[key] != usual:
                self.warn(f"log.{key} is not used: the dashboard's run is called run.name")


def _block_size_in(directory: Path) -> int | None:
    """The context that a checkpoint directory's model was made for; None where it cannot be read."""
    try:
        values = read_yaml(directory / "model_config.yaml")
        return int(values.get("block_size", DEFAULT_BLOCK_SIZE))
    except (OSError, ValueError, AttributeError, TypeError, ParsingError):
        return None
