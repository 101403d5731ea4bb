"""The checked config of one training run, as `compose.py` makes it and every part of the run reads it; and its sections
that belong to no other package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from litgpt_core.config.trainer import Count
from litgpt_core.core.errors import ConfigError

if TYPE_CHECKING:
    from litgpt_core.config.loggers import LoggerSettings
    from litgpt_core.config.trainer import TrainerSettings
    from litgpt_core.data.settings import DataSettings
    from litgpt_core.model.config import ModelSettings
    from litgpt_core.model.optional_settings import DistillSettings, LoRASettings, QatSettings
    from litgpt_core.optim.settings import OptimSettings
    from litgpt_core.tokenizers.settings import TokenizerSettings

SuiteName = Literal["python_pairs", "english_pairs", "induction", "cloze"]


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


@dataclass(frozen=True, kw_only=True)
class SuiteCurveSettings:
    """Curves of suites of items during training; docs/evaluation.md says what each suite asks."""

    suites: list[SuiteName] = field(default_factory=list)
    """Suites to score during the run, such as `[python_pairs]`; accuracy and choice bits go to
    `evaluation/curve.jsonl` and the dashboard. Text data only, and not with a sharded model.
    """
    interval: Count = 100
    """Optimizer steps between two scorings; the last step is always scored."""
    of_a_kind: Count = 50
    """Most items of each kind of a suite."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything one training run needs to know."""

    seed: int
    """Seeds initialisation, sample order and dropout."""
    init_from: str | None
    """Checkpoint directory whose weights the run starts from; null: fresh weights."""
    run: RunSettings
    model: ModelSettings
    tokenizer: TokenizerSettings
    data: DataSettings
    optim: OptimSettings
    trainer: TrainerSettings
    logger: LoggerSettings
    lora: LoRASettings | None
    qat: QatSettings | None
    distill: DistillSettings | None
    evaluation: SuiteCurveSettings
    plain: dict[str, Any] = field(repr=False)
    """The composed config as plain values, which `config.yaml` and the dashboard record."""


def dump(plain: dict[str, Any]) -> str:
    """A composed config as YAML, in the order of the groups."""
    import yaml

    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
