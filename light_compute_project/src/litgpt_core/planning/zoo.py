"""The shipped models side by side: parameters, memory, work for a token, what was measured, and what trains them.

Everything follows from `configs/model/`, `configs/experiment/` and the records in `metrics/`; nothing is built and
torch is not imported. An installed package holds no records: there `measured` is empty.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from litgpt_core.config.source import Source, find_config, option_names, placeholders
from litgpt_core.core.checkout import PROJECT_DIR, in_checkout
from litgpt_core.core.command_line import shown_command
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.text import byte_size, nearest
from litgpt_core.model.config import GPTConfig, ModelSettings
from litgpt_core.model.cost import count_parameters, flops_per_token, forward_flops_per_token
from litgpt_core.planning.memory import memory
from litgpt_core.planning.recipe import DeviceLayout, Recipe

if TYPE_CHECKING:
    from rich.table import Table

METRICS = PROJECT_DIR / "metrics"
"""Records of measured runs."""
USUAL_VOCABULARY = 4096
"""Of a model file whose header names none."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One record of a run in `metrics/`."""

    file: str
    """Its name in `metrics/`."""
    experiment: str
    record: dict[str, Any]
    """The run's `summary.json`."""

    @property
    def val_bpb(self) -> float:
        """Bits per byte over the whole validation split."""
        return float(self.record["whole_split"]["val_bpb"])


@dataclass(frozen=True)
class ZooModel:
    """One file of `configs/model/`.

    Args:
        name: Of the file.
        vocab_size: Ids of the tokenizer; None: as many as the file's header counts with.
    """

    name: str
    vocab_size: int | None = None

    @cached_property
    def text(self) -> str:
        """The file."""
        path = find_config(f"model/{self.name}")
        assert path is not None, "zoo() and find() list what is there"
        return path.read_text(encoding="utf-8")

    @property
    def description(self) -> str:
        """The first sentence of its header."""
        lines = [line.removeprefix("#").strip() for line in self.text.splitlines() if line.startswith("#")]
        return re.split(r"(?<=\.) ", " ".join(lines))[0].rstrip(".")

    @cached_property
    def config(self) -> GPTConfig:
        """With a vocabulary of `vocab_size`."""
        fields = dict(yaml.safe_load(self.text))
        source = str(fields.pop("source"))
        counted = re.search(r"with an? ([\d,]+)-token vocabulary", self.text)
        size = self.vocab_size or (int(counted[1].replace(",", "")) if counted else USUAL_VOCABULARY)
        return ModelSettings(source=source, fields=fields).build(vocab_size=size)

    @property
    def parameters(self) -> int:
        """All of them."""
        return count_parameters(self.config)

    @property
    def flops(self) -> float:
        """Forward and backward, for one token of a full sequence."""
        return flops_per_token(self.config, seq_length=self.config.block_size)

    @property
    def decode_flops(self) -> float:
        """Forward alone, for the last token of a full sequence."""
        return forward_flops_per_token(self.config, seq_length=self.config.block_size)

    @property
    def weight_bytes(self) -> int:
        """Of the weights in bfloat16."""
        return 2 * self.parameters

    @property
    def training_bytes(self) -> float:
        """Of a training step of one sequence with AdamW in mixed precision, by `planning/memory.py`."""
        recipe = Recipe(model=self.config, precision="bf16-mixed", device="cuda")
        return memory(recipe, DeviceLayout()).peak

    @cached_property
    def experiments(self) -> list[str]:
        """Experiments that train it, those of benchmarks last."""
        found = [
            name
            for name in option_names("experiment")
            if not placeholders(name) and Source([f"+experiment={name}"]).chosen("model")[:1] == [self.name]
        ]
        return sorted(found, key=lambda name: (name.startswith("bench"), name.endswith("_short"), name))

    @cached_property
    def measured(self) -> list[Measured]:
        """Records of runs of its experiments, best first."""
        return sorted((one for one in records() if one.experiment in self.experiments), key=lambda one: one.val_bpb)

    @property
    def command(self) -> str:
        """What trains it."""
        known = [one.experiment for one in self.measured] + self.experiments
        chosen = f"+experiment={known[0]}" if known else f"model={self.name}"
        return shown_command("train", chosen)


def zoo(vocab_size: int | None = None) -> list[ZooModel]:
    """The shipped models and the user's own, smallest first."""
    found = [ZooModel(name, vocab_size) for name in option_names("model") if name not in ("pretrained", "registry")]
    return sorted(found, key=lambda model: model.parameters)


def find(name: str, vocab_size: int | None = None) -> ZooModel:
    """One model by the name of its file. Raises ConfigError for an unknown one."""
    names = [model.name for model in zoo()]
    if name not in names:
        raise ConfigError(f"there is no model {name!r}{nearest(name, names)}", fix="lcp models list")
    return ZooModel(name, vocab_size)


def records(folder: Path = METRICS) -> list[Measured]:
    """The records of runs in `metrics/`, by file name; none outside a checkout."""
    found = []
    for path in sorted(folder.glob("*.json")) if in_checkout() else ():
        record = json.loads(path.read_text(encoding="utf-8"))
        experiment = re.search(r"experiment=(\w+)", str(record.get("command", "")))
        if experiment and "whole_split" in record:
            found.append(Measured(file=path.name, experiment=experiment[1], record=record))
    return found


def table(models: list[ZooModel]) -> Table:
    """For the terminal: a row for each model."""
    from rich.table import Table as RichTable

    drawn = RichTable()
    for column in (
        "model",
        "parameters",
        "layers x width",
        "context",
        "weights",
        "training",
        "FLOP/token",
        "bits/byte",
    ):
        drawn.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    drawn.add_column("what trains it", overflow="fold")
    for model in models:
        c, best = model.config, model.measured[:1]
        drawn.add_row(
            model.name,
            f"{model.parameters / 1e6:,.1f}M" if model.parameters < 1e9 else f"{model.parameters / 1e9:.2f}B",
            f"{c.n_layer} x {c.n_embd}",
            f"{c.block_size:,}",
            byte_size(model.weight_bytes),
            byte_size(model.training_bytes),
            f"{model.flops:.1e}",
            f"{best[0].val_bpb:.3f}" if best else "",
            model.command,
        )
    return drawn


def page(model: ZooModel) -> list[str]:
    """`lcp models show NAME`, line by line."""
    c = model.config
    lines = [
        f"{model.name}: {model.description}",
        f"  parameters       {model.parameters:,}; {count_parameters(c, embedding=False):,} without the embeddings",
        f"  shape            {c.n_layer} layers, {c.n_embd} wide, {c.n_head} heads, context {c.block_size:,}, "
        f"{c.vocab_size:,} tokens in {c.padded_vocab_size:,} rows",
        f"  weights          {byte_size(model.weight_bytes)} in bfloat16",
        f"  training         {byte_size(model.training_bytes)} for one sequence at a time, AdamW, bf16-mixed",
        f"  FLOP per token   {model.flops:.2e} in training, {model.decode_flops:.2e} in decoding, at full context",
    ]
    for one in model.measured:
        seconds, device = one.record["train_s"], one.record["device"]
        lines.append(
            f"  measured         {one.val_bpb:.4f} bits per byte, {one.record['whole_split']['val_loss']:.4f} nats per "
            f"token, {one.record['final']['tokens']:,} tokens in {seconds:.0f} s on {device} (metrics/{one.file})"
        )
    return [*lines, f"  train it         {model.command}"]
