"""What the `run` section of a training config may say. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litgpt_core.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run lives and whether it continues."""

    name: str
    """The run's folder below `dir`, and its name on the dashboard. Where nothing says it: the experiment's name, else
    that of the data file, else `run-1`, `run-2` and so on.
    """
    dir: str = "runs"
    """Folder that holds the runs; relative to the current folder."""
    resume: bool | Literal["auto"] = False
    """false: refuse a used folder; true: continue it; auto: continue it if there is something to continue, else
    start.
    """

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(
                f"run.name={self.name!r}",
                needed="letters, digits, '.', '_' and '-', starting with a letter or digit",
                fix=f"run.name={re.sub('[^A-Za-z0-9._-]+', '-', self.name).strip('-._') or 'my-first-run'}",
            )
        if not self.dir:
            raise ConfigError("run.dir is empty", needed="a folder that holds runs", fix="run.dir=runs")

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.dir).expanduser() / self.name
