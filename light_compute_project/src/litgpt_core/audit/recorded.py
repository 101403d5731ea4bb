"""What a run folder records: settings, environment, measurements, and the sessions in which it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from litgpt_core.config.compose import TrainConfig, check
from litgpt_core.config.diff import differences
from litgpt_core.config.source import Source
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.parsing import ParsingError, parse_json, read_json, read_yaml, table_in

Plain = dict[str, Any]


@dataclass(frozen=True)
class RecordedRun:
    """The files of one run."""

    path: Path
    plain: Plain
    """Its `config.yaml`."""
    environment: Plain
    """Its `environment.json`."""
    summary: Plain
    """Its `summary.json`; empty if the run did not finish."""
    rows: list[Plain]
    """Its `metrics.jsonl`."""
    corrupt_lines: list[int]
    """Numbers of lines of `metrics.jsonl` that hold no row. A kill may leave the last one incomplete, and no other."""

    @classmethod
    def read(cls, path: Path) -> RecordedRun:
        """Read a run folder.

        Raises:
            ConfigError: It holds no run, or one whose files cannot be read.
        """
        path = path.expanduser()
        if not (path / "config.yaml").is_file():
            raise ConfigError(
                f"{path} holds no run: there is no config.yaml",
                needed=f"a run folder{_runs_near(path)}",
                fix="lcp audit runs/NAME",
            )
        try:
            plain = read_yaml(path / "config.yaml")
            environment = read_json(path / "environment.json")
        except (OSError, ValueError, ParsingError) as error:
            raise ConfigError(
                f"{path} cannot be audited: {error}", needed="config.yaml and environment.json, as lcp train wrote them"
            ) from error
        if not isinstance(plain, dict) or not isinstance(environment, dict):
            raise ConfigError(f"{path} cannot be audited: config.yaml or environment.json is not a table of settings")
        summary = path / "summary.json"
        rows, corrupt = read_rows_strictly(path / "metrics.jsonl")
        return cls(path, plain, environment, table_in(summary), rows, corrupt)

    @property
    def name(self) -> str:
        """`run.name`."""
        return str((self.plain.get("run") or {}).get("name", self.path.name))

    @property
    def last_step(self) -> int:
        """Of the last row; 0 without rows."""
        return max((row["step"] for row in self.rows), default=0)

    @cached_property
    def config(self) -> TrainConfig:
        """The settings, checked by the code as it is now.

        Raises:
            ConfigError: A setting no longer exists, or means something else.
        """
        try:
            return check(dict(self.plain), source=Source(()))
        except LightComputeError as error:
            raise ConfigError(
                f"the code as it is now does not take {self.path / 'config.yaml'}:\n{error}",
                needed="the code that the run was trained with",
                fix=f"git checkout {self.commit or 'COMMIT'}",
            ) from error

    @property
    def commit(self) -> str | None:
        """Of the code, if there was a git checkout."""
        return (self.environment.get("git") or {}).get("commit")

    @property
    def sessions(self) -> list[Plain]:
        """One entry per start of the run; empty for runs of older code. Until format 1 the key was `sittings`."""
        return list(self.environment.get("sessions") or self.environment.get("sittings") or [])

    @property
    def undisturbed_steps(self) -> int:
        """Steps up to which the first session's settings hold: all of them, unless a later session changed some."""
        resumed = [session["from_step"] for session in self.sessions[1:]]
        return min([*resumed, self.last_step]) if self.changed_settings else self.last_step

    @property
    def first_trainer_settings(self) -> Plain:
        """The trainer section that the first steps were trained with."""
        return dict(self.sessions[0]["trainer"] if self.changed_settings else self.plain["trainer"])

    @property
    def changed_settings(self) -> list[str]:
        """Trainer settings that shape rows and that a later session changed, as `trainer.key: first -> last`."""
        if len(self.sessions) < 2:
            return []
        first, last = ({"trainer": session["trainer"]} for session in (self.sessions[0], self.sessions[-1]))
        return [line for key, line in differences(first, last) if key.removeprefix("trainer.") in _SHAPES_ROWS]


_SHAPES_ROWS = (
    *("max_steps", "log_interval", "eval_interval", "eval_tokens", "eval_batch_size", "micro_batch_size", "precision"),
    *("compile", "deterministic", "threads", "accelerator", "patience"),
)
"""Trainer settings that a resumed run may change, and that change its rows."""


def read_rows_strictly(path: Path) -> tuple[list[Plain], list[int]]:
    """Rows of a `metrics.jsonl`, and the numbers of lines that hold none."""
    rows, corrupt = [], []
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            try:
                row = parse_json(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
            else:
                corrupt.append(number)
    return rows, corrupt


def _runs_near(path: Path) -> str:
    names = [folder for folder in (path, path.parent, path / "runs", Path("runs")) if folder.is_dir()]
    found = sorted({run.parent.as_posix() for folder in names for run in folder.glob("*/config.yaml")})[:10]
    return f"; there are: {', '.join(found)}" if found else ""
