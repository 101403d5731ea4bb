"""What the `logger` section of a training config may say. Only `logger=custom` imports more than the standard library:
the class that it names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from litgpt_core.core.class_path import arguments_of, check_arguments, import_class


@dataclass(frozen=True, kw_only=True)
class WandbSettings:
    """Weights & Biases: online with a key, offline without, never a prompt."""

    kind: Literal["wandb"] = "wandb"
    """Which logger these settings belong to."""
    project: str = "light-compute-project"
    """Project on the dashboard."""
    entity: str | None = None
    """Team or user on the dashboard; null: the key's own."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: online if a key is found (WANDB_API_KEY or a netrc entry), else offline."""
    tags: list[str] = field(default_factory=list)
    """Labels of the run on the dashboard."""
    group: str | None = None
    """Name under which the dashboard puts runs together."""
    init_timeout: float = 20.0
    """Seconds to wait for the server before the run goes on offline."""
    finish_timeout: float = 60.0
    """Seconds to wait at the end for what has not been uploaded; then the command that uploads it is named."""


@dataclass(frozen=True, kw_only=True)
class PlainLoggerSettings:
    """Loggers that need no settings; `metrics.jsonl` is written with every one of them."""

    kind: Literal["csv", "tensorboard", "none"]
    """Where curves go besides `metrics.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class CustomLoggerSettings:
    """Any of Lightning's loggers, or one of your own, by its import path."""

    kind: Literal["custom"] = "custom"
    """Which logger these settings belong to."""
    class_path: str
    """Import path of a subclass of `lightning.pytorch.loggers.Logger`."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of its constructor. `save_dir` is the run folder, unless another is given."""

    def __post_init__(self) -> None:
        given = {"save_dir": "", **self.kwargs} if self.takes_save_dir else self.kwargs
        check_arguments(self.logger_class, given, supplied=(), setting="logger.kwargs")

    @property
    def logger_class(self) -> type:
        """The class at `class_path`.

        Raises:
            ConfigError: It cannot be imported, or is no logger.
        """
        return import_class(self.class_path, base="lightning.pytorch.loggers.Logger", setting="logger.class_path")

    @property
    def takes_save_dir(self) -> bool:
        """Whether the class wants to know a folder to write to."""
        return "save_dir" in arguments_of(self.logger_class, supplied=())


LoggerSettings = WandbSettings | PlainLoggerSettings | CustomLoggerSettings
