"""A run on Weights & Biases: opened, fed, closed. No trouble with it ever ends a training.

Online if a key is at hand, offline otherwise; nobody is asked. A server that cannot be reached at the start makes the
run an offline one. One that is lost on the way is waited for at the end, for `logger.finish_timeout` seconds; then the
command is named that uploads the rest.

Charts are in sections by the first part of their names, and along optimizer steps.
"""

from __future__ import annotations

import hashlib
import html
import json
import logging
import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

from litgpt_core.config.loggers import WandbSettings
from litgpt_core.core.errors import Interrupted
from litgpt_core.training.run_folder import write_text
from litgpt_core.training.wandb_folder import NOT_UPLOADED, gave_up, upload_command

logger = logging.getLogger(__name__)

WANDB_HOST = "api.wandb.ai"
STEP = "trainer/global_step"
"""Optimizer steps, under Lightning's name for them: the x axis of every chart."""

CHARTS = {
    "val_loss": "loss/val",
    "train_loss": "loss/train",
    "val_bpb": "loss/val_bits_per_byte",
    "lr": "optim/lr",
    "grad_norm": "optim/grad_norm",
    "tokens_per_s": "speed/tokens_per_s",
    "mfu": "speed/mfu",
    "elapsed_s": "speed/elapsed_s",
    "tokens": "speed/tokens",
}
"""Key of `metrics.jsonl` -> name of a chart; any other keeps its name. The dashboard orders sections by their names:
what has been learnt comes first.
"""
SMALLEST = ("loss/val", "loss/val_bits_per_byte")
"""Charts whose smallest value counts in tables of runs; of the others the last one does."""


REACHABLE_S = 5.0
"""Seconds in which a server answers, if it is there."""


class SectionedLogger(WandbLogger):
    """Lightning's logger of W&B over a run that is open, with charts in sections."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of one step."""
        super().log_metrics({CHARTS.get(key, key): value for key, value in metrics.items()}, step=step)


def open_run(
    settings: WandbSettings,
    *,
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    labels: Mapping[str, Any],
    run_id: str | None,
) -> SectionedLogger | None:
    """A run on W&B, new or continued; None if W&B takes none, which is logged.

    Args:
        settings: The logger section.
        folder: W&B writes to `wandb/` in it.
        name: On the dashboard.
        config: Plain values shown with the run.
        labels: As the function `labels` gives them.
        run_id: Of the run to continue, if the server has it, or of the new one; None: any.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    mode = wandb_mode(settings)
    if mode == "disabled":
        return None
    client = wandb.Settings(console="off", silent=True, init_timeout=settings.init_timeout)
    if "finish_timeout_raises" in wandb.Settings.model_fields:  # older clients wait for days
        client.finish_timeout, client.finish_timeout_raises = settings.finish_timeout, True
    about: dict[str, Any] = {"project": settings.project, "entity": settings.entity, "name": name, "dir": str(folder)}
    about |= {"id": run_id, "resume": "allow" if run_id else None, "config": dict(config), **labels}
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            run = wandb.init(**about, mode=attempt, settings=client)  # type: ignore[arg-type]
            _arrange(run)
        except Interrupted:
            raise
        except Exception as error:  # a dashboard must never end a run, whatever its client raises
            logger.warning("W&B could not start %s: %s", attempt, first_line(error))
            if wandb.run is None:
                wandb.teardown()  # else its process still holds the id, and refuses it to an offline run
            continue
        if attempt == "online":
            logger.info("on W&B: %s", run.url)
        return SectionedLogger(experiment=run, save_dir=str(folder))
    logger.warning("going on without W&B; metrics.jsonl has every number")
    return None


def _arrange(run: Any) -> None:
    """Charts along optimizer steps; the smallest validation loss in tables of runs."""
    run.define_metric(STEP, hidden=True)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for chart in SMALLEST:
        run.define_metric(chart, step_metric=STEP, summary="min")


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
            log_table(run, "samples/final", [["prompt", "continuation", "step"], *rows])
    except Interrupted:
        raise
    except Exception as error:
        logger.warning("W&B did not take the results: %s", first_line(error))
    close_run(built, folder=folder)


def log_table(run: Any, name: str, rows: Sequence[Sequence[Any]]) -> None:
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


def close_run(built: SectionedLogger, *, folder: Path) -> None:
    """Wait until everything is uploaded, not longer than `logger.finish_timeout`; name the command for the rest."""
    run = built.experiment
    record = Path(run.dir).parent
    try:
        run.finish()
        complete = not gave_up(record)
    except Interrupted:
        raise
    except Exception as error:  # TimeoutError, or whatever its client raises
        logger.warning("W&B was not closed: %s", first_line(error))
        complete = False
    if complete or record.name.startswith("offline-") or not record.is_dir():
        return
    write_text(record / NOT_UPLOADED, "The upload ended before everything was sent.\n")
    logger.warning(
        "W&B does not hold all of this run; metrics.jsonl does. Upload the rest with:\n  %s", upload_command(folder)
    )


# ---- what a run is called and sorted by


def labels(settings: WandbSettings, config: Mapping[str, Any], *, job_type: str | None = None) -> dict[str, Any]:
    """What the dashboard sorts and filters runs by: group, job type and tags.

    Args:
        settings: `tags` come first; `group` is the user's, or that of the sweep or study.
        config: The run's composed config.
        job_type: None: `finetune` for a run that starts from a checkpoint, else `train`.

    Returns:
        Tags name the data, the model, the seed, adapters, and the settings: `settings-1a2b3c` is the same for runs that
        differ in their seed alone.
    """
    sections = [config.get(key) for key in ("data", "model")]
    own = [section.get("name") for section in sections if isinstance(section, dict)]
    own += [f"seed-{config['seed']}"] if "seed" in config else []
    own += ["lora"] if config.get("lora") else []
    own += [f"settings-{_without_seed(config)}"] if config else []
    tags = dict.fromkeys(str(tag)[:64] for tag in [*settings.tags, *own] if tag)
    return {
        "tags": list(tags) or None,
        "group": settings.group,
        "job_type": job_type or ("finetune" if config.get("init_from") else "train"),
    }


def _without_seed(config: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in ("seed", "run", "logger")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:6]


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


def wandb_id(built: Logger | None) -> str | None:
    """The W&B run id behind a logger, for `environment.json`."""
    return str(built.experiment.id) if isinstance(built, WandbLogger) else None


def first_line(error: Exception) -> str:
    """What an error of W&B's client says, short."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
