"""Dashboards beside `metrics.jsonl`: Weights & Biases, CSV, TensorBoard, any other by its class path, or none.

W&B is online if a key is at hand and offline otherwise; it never asks, and no trouble with it ends a run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import netrc
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from litgpt_core.config.loggers import CustomLoggerSettings, LoggerSettings, WandbSettings
from litgpt_core.core.errors import ConfigError, EnvironmentProblem, Interrupted
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.core.redaction import redact_values
from litgpt_core.training.run_folder import RunFolder

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan

logger = logging.getLogger(__name__)

WANDB_HOST = "api.wandb.ai"


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
        return _wandb(settings, folder=folder, name=name, config=config, run_id=wandb_run_id)
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


def wandb_mode(settings: WandbSettings) -> str:
    """`online` or `offline` (or what WANDB_MODE forces): online only where a key is found, so that nobody is asked
    for one.
    """
    forced = os.environ.get("WANDB_MODE")
    if forced in ("offline", "disabled"):
        return forced
    if settings.mode == "offline":
        return "offline"
    if _has_wandb_key():
        return "online"
    if settings.mode == "online":
        logger.warning("logger.mode=online, but no key was found (WANDB_API_KEY or `wandb login`): logging offline")
    return "offline"


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    for name in (".netrc", "_netrc"):
        try:
            if netrc.netrc(str(Path.home() / name)).authenticators(WANDB_HOST):
                return True
        except (OSError, netrc.NetrcParseError, RuntimeError):
            continue
    return False


def _wandb(
    settings: WandbSettings, *, folder: RunFolder, name: str, config: dict[str, Any], run_id: str | None
) -> Logger | None:
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    mode = wandb_mode(settings)
    arguments: dict[str, Any] = {
        "project": settings.project,
        "entity": settings.entity,
        "name": name,
        "id": run_id,
        "resume": "allow" if run_id else None,
        "dir": str(folder.path),
        **labels(settings, config),
        "config": config,
    }
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            run = wandb.init(
                **arguments,
                mode=attempt,  # type: ignore[arg-type]
                settings=wandb.Settings(init_timeout=settings.init_timeout, console="off", silent=True),
            )
            return WandbLogger(experiment=run, save_dir=str(folder.path))
        except Interrupted:
            raise
        except Exception as error:  # a dashboard must never end a run, whatever its client raises
            logger.warning("W&B could not start %s: %s", attempt, str(error).strip().splitlines()[:1])
    logger.warning("going on without W&B; metrics.jsonl has every number")
    return None


def labels(settings: WandbSettings, config: dict[str, Any]) -> dict[str, Any]:
    """What the dashboard sorts and filters runs by: group, job type and tags.

    Args:
        settings: `tags` come first; `group` is the user's, or that of the sweep or study.
        config: The run's composed config.

    Returns:
        `job_type` is `finetune` for a run that starts from a checkpoint, else `train`; tags name the data, the model,
        the seed, and adapters.
    """
    data, model = config.get("data") or {}, config.get("model") or {}
    own = [data.get("name"), model.get("name"), f"seed-{config['seed']}" if "seed" in config else None]
    own += ["lora"] if config.get("lora") else []
    tags = dict.fromkeys(str(tag)[:64] for tag in [*settings.tags, *own] if tag)
    return {
        "tags": list(tags) or None,
        "group": settings.group,
        "job_type": "finetune" if config.get("init_from") else "train",
    }


def wandb_id(built: Logger | None) -> str | None:
    """The W&B run id behind a logger, for `environment.json`."""
    return str(built.experiment.id) if isinstance(built, WandbLogger) else None


def log_results(built: Logger | None, *, summary: dict[str, Any], picture: Path, samples: str) -> None:
    """Put the closing numbers, the loss picture and the samples into the W&B run, and close it."""
    if not isinstance(built, WandbLogger):
        return
    try:
        import wandb

        run = built.experiment
        flat = {f"{a}/{b}": v for a in ("final", "best", "whole_split") for b, v in summary[a].items()}
        run.summary.update({**flat, **{k: v for k, v in summary.items() if isinstance(v, (int, float, str))}})
        media: dict[str, Any] = {"loss_curve": wandb.Image(str(picture))} if picture.is_file() else {}
        if samples:
            media["samples"] = wandb.Html(f"<pre>{_escape(samples)}</pre>")
        if media:
            run.log(media)
        run.finish()
    except Exception as error:
        logger.warning("W&B did not take the results: %s", error)


def log_report(folder: RunFolder, *, page: Path, pictures: Sequence[Path], numbers: Mapping[str, float]) -> bool:
    """Put an analysis into the run on W&B, or into a new one if it had none; whether W&B took it.

    Args:
        folder: The run folder; its config says where the dashboard is.
        page: A web page, shown under `analysis/report`.
        pictures: Shown under `analysis/NAME`.
        numbers: For the run's summary.
    """
    try:
        section = (read_yaml(folder.config) or {}).get("logger") or {}
    except (OSError, ParsingError):
        section = {}
    known = {field.name for field in dataclasses.fields(WandbSettings)}
    settings = WandbSettings(**{key: value for key, value in section.items() if key in known and key != "kind"})
    run_id = folder.read_environment().get("wandb_run_id")
    built = _wandb(settings, folder=folder, name=folder.path.name, config={}, run_id=run_id)
    if not isinstance(built, WandbLogger):
        return False
    try:
        import wandb

        run = built.experiment
        run.log(
            {"analysis/report": wandb.Html(str(page), inject=False)}
            | {f"analysis/{picture.stem}": wandb.Image(str(picture)) for picture in pictures}
        )
        run.summary.update(dict(numbers))
        run.finish()
    except Exception as error:  # whatever its client raises
        logger.warning("W&B did not take the analysis: %s", error)
        return False
    return True


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
