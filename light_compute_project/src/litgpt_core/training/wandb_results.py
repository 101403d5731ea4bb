"""What is put into runs on Weights & Biases after they are over: analyses and evaluations."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from litgpt_core.config.loggers import WandbSettings
from litgpt_core.core.redaction import redact_values
from litgpt_core.training.run_folder import RunFolder
from litgpt_core.training.wandb_runs import close_run, first_line, labels, log_table, open_run

logger = logging.getLogger(__name__)


def log_report(folder: RunFolder, *, page: Path, pictures: Sequence[Path], numbers: Mapping[str, float]) -> bool:
    """Put an analysis into the run on W&B, or into a new one if it had none; whether W&B took it.

    Args:
        folder: The run folder; its config says where the dashboard is.
        page: A web page, shown under `analysis/report`.
        pictures: Shown under `analysis/NAME`.
        numbers: For the run's summary.
    """
    settings, config = _recorded(folder)
    run_id = folder.read_environment().get("wandb_run_id")
    built = open_run(
        settings, folder=folder.path, name=folder.path.name, config={}, labels=labels(settings, config), run_id=run_id
    )
    if built is None:
        return False
    try:
        import wandb

        media: dict[str, Any] = {"analysis/report": wandb.Html(str(page), inject=False)}
        built.experiment.log(media | {f"analysis/{each.stem}": wandb.Image(str(each)) for each in pictures})
        built.experiment.summary.update(dict(numbers))
    except Exception as error:  # whatever its client raises
        logger.warning("W&B did not take the analysis: %s", first_line(error))
        return False
    finally:
        close_run(built, folder=folder.path)
    return True


def log_evaluation(
    folder: RunFolder,
    *,
    name: str,
    scores: Mapping[str, float],
    table: Sequence[Sequence[str]],
    facts: Mapping[str, Any],
) -> bool:
    """An evaluation as a W&B run of its own, in the group of the run that was measured; whether W&B took it.

    Args:
        folder: Of the run that was measured; its config says where the dashboard is.
        name: Of the new run.
        scores: Into the summary, under `evaluate/`.
        table: Rows of text, the headings first; shown under `evaluate/scores`.
        facts: Shown as its config.
    """
    settings, config = _recorded(folder)
    if settings.group is None:
        settings = dataclasses.replace(settings, group=folder.path.resolve().name)
    own = labels(settings, config, job_type="evaluate")
    built = open_run(settings, folder=folder.path, name=name, config=facts, labels=own, run_id=None)
    if built is None:
        return False
    try:
        run = built.experiment
        log_table(run, "evaluate/scores", table)
        run.summary.update({f"evaluate/{key}": value for key, value in scores.items()})
    except Exception as error:  # whatever its client raises
        logger.warning("W&B did not take the evaluation: %s", first_line(error))
        return False
    finally:
        close_run(built, folder=folder.path)
    return True


def _recorded(folder: RunFolder) -> tuple[WandbSettings, dict[str, Any]]:
    """The dashboard that a run's config names, and the config without secrets."""
    config = redact_values(folder.read_config())
    section = config.get("logger")
    known = {field.name for field in dataclasses.fields(WandbSettings)} - {"kind"}
    values = section if isinstance(section, dict) else {}
    return WandbSettings(**{key: value for key, value in values.items() if key in known}), config
