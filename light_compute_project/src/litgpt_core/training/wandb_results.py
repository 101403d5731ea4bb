"""What is put into runs on Weights & Biases besides curves: closing numbers, samples, analyses, evaluations."""

from __future__ import annotations

import dataclasses
import html
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from litgpt_core.config.loggers import WandbSettings
from litgpt_core.core.errors import Interrupted
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.core.redaction import redact_values
from litgpt_core.training.run_folder import RunFolder
from litgpt_core.training.wandb_runs import SectionedLogger, close_run, first_line, labels, open_run

logger = logging.getLogger(__name__)

REACHABLE_S = 5.0
"""Seconds in which a server answers, if it is there."""


def log_results(
    built: Logger | None, *, folder: Path, summary: dict[str, Any], picture: Path, samples: Sequence[tuple[str, str]]
) -> None:
    """Put the closing numbers, the loss picture and the samples into the W&B run, and close it.

    Args:
        built: The logger; any but W&B's is left alone.
        folder: The run folder.
        summary: Of `summary.json`.
        picture: `loss.png`.
        samples: Prompts and what the model wrote after them; a table.
    """
    if not isinstance(built, SectionedLogger):
        return
    try:
        import wandb

        run = built.experiment
        flat = {f"{a}/{b}": v for a in ("final", "best", "whole_split") for b, v in summary[a].items()}
        run.summary.update({**flat, **{k: v for k, v in summary.items() if isinstance(v, (int, float, str))}})
        if picture.is_file():
            run.log({"loss/curve": wandb.Image(str(picture))})
        if samples:
            rows = [[prompt, text, summary["final_weights"]["step"]] for prompt, text in samples]
            _log_table(run, "samples/final", [["prompt", "continuation", "step"], *rows])
    except Interrupted:
        raise
    except Exception as error:
        logger.warning("W&B did not take the results: %s", first_line(error))
    close_run(built, folder=folder)


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
        _log_table(run, "evaluate/scores", table)
        run.summary.update({f"evaluate/{key}": value for key, value in scores.items()})
    except Exception as error:  # whatever its client raises
        logger.warning("W&B did not take the evaluation: %s", first_line(error))
        return False
    finally:
        close_run(built, folder=folder.path)
    return True


def _log_table(run: Any, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Rows, the headings first, as a table. Online, the client asks the server before it takes one; else it is text."""
    import wandb

    if run.offline or _reachable(str(run.settings.base_url)):
        run.log({name: wandb.Table(columns=list(rows[0]), data=[list(row) for row in rows[1:]])})
        return
    cells = ["".join(f"<td><pre>{html.escape(str(cell))}</pre></td>" for cell in row) for row in rows]
    run.log({name: wandb.Html(f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>")})


def _reachable(url: str) -> bool:
    """Whether a server answers there, with whatever status."""
    try:
        with urllib.request.urlopen(url, timeout=REACHABLE_S):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def _recorded(folder: RunFolder) -> tuple[WandbSettings, dict[str, Any]]:
    """The dashboard that a run's config names, and the config without secrets."""
    try:
        config = read_yaml(folder.config)
    except (OSError, ParsingError):
        config = None
    config = redact_values(config) if isinstance(config, dict) else {}
    section = config.get("logger")
    known = {field.name for field in dataclasses.fields(WandbSettings)} - {"kind"}
    values = section if isinstance(section, dict) else {}
    return WandbSettings(**{key: value for key, value in values.items() if key in known}), config
