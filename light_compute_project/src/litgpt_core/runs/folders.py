"""Run folders as records: `config.yaml`, `summary.json`, `environment.json` and `metrics.jsonl`, read when asked for.

Runs are found in a folder and one level below its sweeps and studies. A file that is missing or incomplete, as in a run
that is still going on, leaves its values out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from litgpt_core.config.diff import flatten
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.parsing import read_json
from litgpt_core.core.text import nearest
from litgpt_core.training.rows import Row, read_rows
from litgpt_core.training.run_folder import RunFolder, has_reached_end

State = Literal["finished", "unfinished"]
"""unfinished: still training, stopped, or failed; the files of a run do not tell these apart."""

X_AXES = {"steps": "step", "tokens": "tokens", "time": "elapsed_s", "flops": "tokens"}
"""Name of an x axis -> key of `metrics.jsonl`; `flops` are those of the tokens, forward and backward."""

_SHORT = {
    "val_loss": "whole_split.val_loss",
    "val_bpb": "whole_split.val_bpb",
    "best_val_loss": "best.val_loss",
    "train_loss": "final.train_loss",
    "step": "final.step",
    "tokens": "final.tokens",
    "lr": "optim.lr",
    "commit": "git.commit",
    "started": "recorded_at",
    "device": "device_name",
    "best_val_bpb": "best.val_bpb",
}
"""Short names of values; any other is a dotted key of the summary, the config or the environment."""


@dataclass(frozen=True)
class RunRecord:
    """One run, as its folder tells it.

    Args:
        path: The run folder.
        read: Reads the rows of a `metrics.jsonl`.
    """

    path: Path
    read: Callable[[Path], list[Row]] = field(default=read_rows, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The folder's name, which is `run.name`."""
        return self.path.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed config, nested; empty if it cannot be read."""
        return RunFolder(self.path).read_config()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`summary.json`; empty before the end of the run."""
        return RunFolder(self.path).read_summary()

    @cached_property
    def environment(self) -> dict[str, Any]:
        """`environment.json`: machine, versions, git state at the start."""
        return RunFolder(self.path).read_environment()

    @cached_property
    def metrics(self) -> list[Row]:
        """Rows of `metrics.jsonl`, in order of steps."""
        return self.read(RunFolder(self.path).metrics)

    @property
    def state(self) -> State:
        """Whether the run reached its end: `trainer.max_steps`, or early stopping."""
        trainer = self.config.get("trainer")
        trainer = trainer if isinstance(trainer, dict) else {}
        ended = self.config and has_reached_end(
            RunFolder(self.path),
            max_steps=int(number_of(trainer.get("max_steps")) or 0),
            early_stop={key: trainer.get(key) for key in ("patience", "min_delta")},
        )
        return "finished" if ended else "unfinished"

    def get(self, key: str) -> Any:
        """One value by its short name (`val_loss`, `step`, `lr` ...) or dotted key; None where it is not known.

        Losses are those over the whole validation split, nats per token (`val_bpb`: bits per byte). `step`, `tokens`
        and `train_loss` of an unfinished run are those of its last row.
        """
        if key in ("name", "state", "path"):
            return str(getattr(self, key))
        if key == "flops":
            tokens, each = self.get("tokens"), self.flops_per_token
            return None if tokens is None or each is None else tokens * each
        found = self._values.get(_SHORT.get(key, key))
        if found is None and key in _SHORT:
            found = self._values.get(key)
        return self._so_far.get(key) if found is None else found

    @cached_property
    def _so_far(self) -> dict[str, Any]:
        """What the rows tell of a run without a summary."""
        if not self.metrics:
            return {}
        last = self.metrics[-1]
        validated = [row for row in self.metrics if number_of(row.get("val_loss")) is not None]
        best = min(validated, key=lambda row: row["val_loss"], default={})
        return {
            **{key: last.get(key) for key in ("step", "tokens", "train_loss", "tokens_per_s")},
            "train_s": last.get("elapsed_s"),
            "best_val_loss": best.get("val_loss"),
            "best_val_bpb": best.get("val_bpb"),
        }

    @cached_property
    def flops_per_token(self) -> float | None:
        """Forward and backward, by `model/cost.py`: as recorded, else from a checkpoint's config; None: not known."""
        if isinstance(found := self.summary.get("flops_per_token"), (int, float)):
            return float(found)
        from litgpt_core.checkpoint import resolve as checkpoint_in
        from litgpt_core.model.config import GPTConfig
        from litgpt_core.model.cost import flops_per_token

        try:
            config = GPTConfig.from_checkpoint(checkpoint_in(self.path))
        except LightComputeError:
            return None
        return flops_per_token(config, seq_length=config.block_size)

    def curve(self, key: str = "val_loss", *, x: str = "steps") -> list[tuple[float, float]]:
        """`(x, value)` of the rows that have both.

        Args:
            key: Of `metrics.jsonl`, such as `train_loss`, `val_loss`, `val_bpb`, `lr`, `grad_norm`, `tokens_per_s`.
            x: `steps`, `tokens`, `time` (seconds of training) or `flops`.

        Raises:
            ConfigError: There is no such axis or key.
        """
        if x not in X_AXES:
            raise ConfigError(f"there is no x axis {x!r}{nearest(x, X_AXES)}")
        known = {name for row in self.metrics for name in row}
        if known and key not in known:
            raise ConfigError(f"the rows of {self.name} have no {key!r}{nearest(key, known)}")
        factor = 1.0 if x != "flops" else self.flops_per_token
        if factor is None:
            raise ConfigError(f"{self.name} has no checkpoint that says its FLOPs per token", fix="--x tokens")
        pairs = ((row.get(X_AXES[x]), row.get(key)) for row in self.metrics)
        return [(float(a) * factor, float(b)) for a, b in pairs if a is not None and b is not None]

    @cached_property
    def _values(self) -> dict[str, Any]:
        return {**flatten(self.environment), **flatten(self.config), **flatten(self.summary), **self._plain_summary}

    @property
    def _plain_summary(self) -> dict[str, Any]:
        return {key: value for key, value in self.summary.items() if not isinstance(value, (dict, list))}

    @property
    def known(self) -> list[str]:
        """Every name that `get` answers for this run, sorted."""
        short = [name for name, key in _SHORT.items() if key in self._values]
        return sorted({"name", "state", "path", "flops", *short, *self._values, *self._so_far})


def find(folder: str | Path = "runs", *, matching: str = "*") -> list[RunRecord]:
    """Runs in a folder, those of its sweeps and studies included, sorted by path.

    Args:
        folder: As `run.dir`.
        matching: Pattern of names, such as `lr-*`.

    Raises:
        ConfigError: There is no such folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}", needed="a folder with runs", fix="--dir FOLDER")
    files = [*root.glob("*/config.yaml"), *root.glob("*/*/config.yaml")]
    found = {path.parent for path in files if path.parent.match(matching) and path.parent.name != "final"}
    return [RunRecord(path) for path in sorted(found)]


def resolve(names: Sequence[str], *, folder: str | Path = "runs") -> list[RunRecord]:
    """Runs by name, pattern or path; without names, all of the folder.

    Raises:
        ConfigError: A name matches nothing.
    """
    if not names:
        return find(folder)
    found: dict[Path, RunRecord] = {}
    for name in names:
        path = Path(name).expanduser()
        here = [RunRecord(path)] if (path / "config.yaml").is_file() else find(folder, matching=path.name)
        here = here or _of_searches(folder, matching=path.name)
        if not here:
            raise ConfigError(
                f"{name} is neither a run folder nor the name of a run in {folder}"
                f"{nearest(path.name, [run.name for run in find(folder)])}"
            )
        found |= {run.path: run for run in here}
    return list(found.values())


def _of_searches(folder: str | Path, *, matching: str) -> list[RunRecord]:
    """Runs of the sweeps and studies whose folders have such a name."""
    found: list[Path] = []
    for search in sorted(Path(folder).expanduser().glob(matching)):
        try:
            listed = read_json(search / "sweep.json")["runs"]
            found += [search.parent / str(run["name"]) for run in listed]
        except (OSError, ValueError, KeyError, TypeError):
            found += sorted(path.parent for path in search.glob("*/config.yaml") if path.parent.name != "final")
    return [RunRecord(path) for path in found if (path / "config.yaml").is_file()]


def share_tokenizer(runs: Iterable[RunRecord]) -> bool:
    """Whether losses of runs are in the same units: nats per token of one tokenizer on one corpus."""
    kinds = set()
    for run in runs:
        known = run.environment.get("data_fingerprint") or run.get("data.fingerprint")
        kinds.add(str(known or json.dumps(run.config.get("tokenizer"), sort_keys=True, default=str)))
    return len(kinds) < 2


def comparable_loss(runs: Sequence[RunRecord]) -> str:
    """`val_loss` of runs that share a tokenizer, else `val_bpb`."""
    return "val_loss" if share_tokenizer(runs) else "val_bpb"


def folder_of(name: str | Path, *, folder: str | Path = "runs") -> Path:
    """A run's folder by its path or its name; a path that holds no run as it is, for whoever reads it to say so."""
    path = Path(name).expanduser()
    below = Path(folder).expanduser() / path
    return below if not path.exists() and below.is_dir() else path


def best(runs: Iterable[RunRecord], *, by: str = "val_loss", largest: bool = False) -> RunRecord:
    """The run with the smallest (or largest) value; unfinished runs take part where they have one.

    Raises:
        ConfigError: No run has such a value.
    """
    candidates = list(runs)
    values = [(number_of(run.get(by)), run) for run in candidates]
    having = [(value, run) for value, run in values if value is not None]
    if not having:
        known = sorted({name for run in candidates for name in run.known})
        raise ConfigError(f"none of {len(candidates)} runs has a number {by!r}{nearest(by, known)}")
    return sorted(having, key=lambda pair: pair[0], reverse=largest)[0][1]


def number_of(value: Any) -> float | None:
    """A finite number, or None."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
