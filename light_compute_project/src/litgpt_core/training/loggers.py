"""Dashboards beside `metrics.jsonl`: W&B (`wandb_runs.py`), CSV, TensorBoard, any other by its class path, or none."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from litgpt_core.config.loggers import CustomLoggerSettings, LoggerSettings, WandbSettings
from litgpt_core.core.errors import ConfigError, EnvironmentProblem, Interrupted
from litgpt_core.core.redaction import redact_values
from litgpt_core.training.run_folder import RunFolder
from litgpt_core.training.wandb_runs import labels, open_run

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan


def build_logger(
    settings: LoggerSettings, *, folder: RunFolder, name: str, config: dict[str, Any], wandb_run_id: str | None
) -> Logger | None:
    """The Trainer's logger.

    Args:
        settings: The logger section.
        folder: Logs go below it.
        name: Run name on the dashboard.
        config: Plain values shown with the run.
        wandb_run_id: Id of the run to continue; None starts a new one.

    Raises:
        EnvironmentProblem: TensorBoard is requested and not installed.
        ConfigError: A custom logger's constructor fails.
    """
    if isinstance(settings, WandbSettings):
        own = labels(settings, config)
        return open_run(settings, folder=folder.path, name=name, config=config, labels=own, run_id=wandb_run_id)
    if isinstance(settings, CustomLoggerSettings):
        return _custom(settings, folder=folder, config=config)
    return _PLAIN[settings.kind](folder)


def _csv(folder: RunFolder) -> Logger:
    return CSVLogger(save_dir=folder.path, name="csv")  # a folder for each session: nothing is overwritten


def _tensorboard(folder: RunFolder) -> Logger:
    if importlib.util.find_spec("tensorboard") is None:
        raise EnvironmentProblem(
            "logger=tensorboard, but the tensorboard package is not installed",
            needed="the extra that brings it",
            fix="uv run --extra tensorboard lcp train ...",
        )
    return TensorBoardLogger(save_dir=folder.path, name="tensorboard", version="")


_PLAIN: dict[str, Callable[[RunFolder], Logger | None]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "none": lambda folder: None,
}
"""`logger.kind` -> its builder, for loggers without settings of their own."""


def _custom(settings: CustomLoggerSettings, *, folder: RunFolder, config: dict[str, Any]) -> Logger:
    arguments = {"save_dir": str(folder.path), **settings.kwargs} if settings.takes_save_dir else settings.kwargs
    try:
        built = settings.logger_class(**arguments)
        assert isinstance(built, Logger)
        built.log_hyperparams(config)
    except Interrupted:
        raise
    except Exception as error:  # whatever somebody else's constructor raises
        raise ConfigError(
            f"logger.class_path={settings.class_path} could not be started: {type(error).__name__}: {error}",
            needed="arguments and packages with which it starts",
            fix="logger.kwargs..., or logger=none: metrics.jsonl has every number",
        ) from error
    return built


def dashboard_of(plan: Plan) -> Logger | None:
    """The logger; a resumed run finds its dashboard again by the id in `environment.json`; of rank 0."""
    if not plan.group.is_rank_zero:
        return None
    config, folder = plan.resolved.config, plan.folder
    known = folder.read_environment().get("wandb_run_id") if folder.resume_from else None
    run_id = known or uuid.uuid4().hex[:8]
    return build_logger(
        config.logger, folder=folder, name=config.run.name, config=redact_values(config.plain), wandb_run_id=run_id
    )
