"""Compute the views of a model and write the report: analysis.json, report.html and a picture of each view.

A view that fails does not cost the others: its error is reported in its place. Errors in what was given on the command
line end the analysis before anything is computed.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from litgpt_core.checkpoint.choice import locate
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.core.files import replacing
from litgpt_core.core.source_code import git_state
from litgpt_core.evaluate.run_data import run_folder_of
from litgpt_core.interpret.drawing import Drawing
from litgpt_core.interpret.findings import findings
from litgpt_core.interpret.loading import load_subject, report_folder
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.views import choose, missing
from litgpt_core.model.cost import forward_flops_per_token

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of analysis.json; raised when a reader of the old one would fail."""
DRAW_APART_FLOPS = 5e6
"""Forward FLOPs per token from which on pictures are drawn by a second process."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The result: plain values, and the folder they were written to."""

    values: dict[str, Any]
    """What analysis.json holds: `views`, `findings`, `left_out`, `seconds` and where all of it comes from."""
    folder: Path | None

    @property
    def findings(self) -> list[str]:
        """The sentences."""
        return [finding["text"] for finding in self.values["findings"]]


def analyze(
    model: str | Path | None = None,
    *,
    prompt: str | None = None,
    against: str | None = None,
    only: Sequence[str] = (),
    checkpoints: bool = False,
    text: str | Path | None = None,
    layer: int | None = None,
    seed: int = 0,
    effort: float = 1.0,
    out: str | Path | None = None,
    write: bool = True,
) -> Analysis:
    """Analyse one model.

    Args:
        model: A run's name, a run folder or a checkpoint directory; None: the best candidate.
        prompt: The text of the views that look at one; None: the beginning of a window of held-out text.
        against: A second text, for patching; needs `prompt`.
        only: Names of views; all without.
        checkpoints: Also read the run's other checkpoints.
        text: A file of held-out text; None: the run's validation split.
        layer: Of the sparse autoencoder; None: the middle one.
        seed: Of random tokens and of training autoencoder and lens.
        effort: Multiplies how much text is read.
        out: Folder for the files; None: see `report_folder`.
        write: False computes only.

    Raises:
        ConfigError: A view, a layer or a prompt is not possible for this model.
        CheckpointError: There is no usable checkpoint, or its tokenizer is another model's.
        DataError: The held-out text cannot be read or is of another tokenizer.
    """
    chosen = choose(only)
    if against is not None and prompt is None:
        raise ConfigError("--against without --prompt", needed="both texts", fix="--prompt TEXT --against TEXT2")
    subject = load_subject(model, text=text, prompt=prompt, against=against, seed=seed, layer=layer, effort=effort)
    if against is not None and any(view.name == "patching" for view in chosen):
        from litgpt_core.interpret.patching import Pair

        Pair(subject.model, subject.prompt_ids(), subject.against_ids())  # before minutes are spent on the others
    if only:
        for view in chosen:
            if reason := missing(view, subject, checkpoints=checkpoints):
                raise ConfigError(f"{view.name} cannot be computed: {reason}")
    names = [view.name for view in chosen]
    if not write:
        return Analysis(values=_values(subject, names, checkpoints=checkpoints), folder=None)
    folder = Path(out) if out is not None else report_folder(subject)
    with _folder_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    drawing = Drawing(folder) if _takes_long(subject) else None
    try:
        values = _values(subject, names, checkpoints=checkpoints, drawing=drawing)
        write_report(values, folder, drawing=drawing)
    finally:
        if drawing is not None:
            drawing.end()
    return Analysis(values=values, folder=folder)


def _values(
    subject: Subject, names: Sequence[str], *, checkpoints: bool, drawing: Drawing | None = None
) -> dict[str, Any]:
    """What analysis.json holds."""
    values = _provenance(subject) | compute(subject, names, checkpoints=checkpoints, drawing=drawing)
    values["findings"] = findings(values["views"])
    plain: dict[str, Any] = rounded(values)
    return plain


def _takes_long(subject: Subject) -> bool:
    """Whether a second process would have started before the views of a report are there."""
    return forward_flops_per_token(subject.model.config, seq_length=1) >= DRAW_APART_FLOPS


def compute(
    subject: Subject, names: Sequence[str], *, checkpoints: bool, drawing: Drawing | None = None
) -> dict[str, Any]:
    """`views`, `titles`, `left_out` (name -> why) and `seconds` of each view, which `drawing` draws meanwhile."""
    result: dict[str, Any] = {"views": {}, "titles": {}, "left_out": {}, "seconds": {}}
    for view in choose(names):
        result["titles"][view.name] = view.title
        if reason := missing(view, subject, checkpoints=checkpoints):
            result["left_out"][view.name] = reason
            continue
        start = time.perf_counter()
        try:
            result["views"][view.name] = view.compute(subject)
            if drawing is not None:
                drawing.draw(view.name, rounded(result["views"][view.name]))
        except (ArithmeticError, RuntimeError, ValueError, IndexError) as problem:
            logger.warning("%s failed: %s", view.name, problem)
            result["left_out"][view.name] = f"failed: {type(problem).__name__}: {problem}"
        result["seconds"][view.name] = time.perf_counter() - start
        logger.info("%s: %.1f s", view.title, result["seconds"][view.name])
    return result


def write_report(values: dict[str, Any], folder: Path, *, drawing: Drawing | None = None) -> None:
    """analysis.json, report.html and PNGs; each file replaced at once.

    Args:
        values: What analysis.json holds.
        folder: Created where it is missing.
        drawing: What draws the views already; None: they are drawn here.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    from litgpt_core.interpret.page import page
    from litgpt_core.interpret.pictures import draw_all, remove_others

    with _folder_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("analysis.json", json.dumps(values, ensure_ascii=False)), ("report.html", page(values))):
            with replacing(folder / name) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        if drawing is not None and drawing.finish():
            remove_others(values["views"], folder)
        else:
            draw_all(values["views"], folder)


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise CheckpointError(
            f"{folder} cannot be written: {problem.strerror or problem}",
            needed="a folder on a disk with room",
            fix="--out ANOTHER_FOLDER",
        ) from problem


def log_to_wandb(analysis: Analysis, model: str | Path | None) -> bool:
    """Put a written analysis into its run on W&B; whether W&B took it.

    Raises:
        ConfigError: The model is no run's.
    """
    from litgpt_core.training.wandb_results import log_report

    run = run_folder_of(locate(model))
    if run is None or analysis.folder is None:
        raise ConfigError("--wandb for a checkpoint that is no run's", needed="a run folder", fix="leave out --wandb")
    pictures = [analysis.folder / f"{name}.png" for name in analysis.values["views"]]
    return log_report(
        run, page=analysis.folder / "report.html", pictures=pictures, numbers=plain_numbers(analysis.values["views"])
    )


def plain_numbers(views: dict[str, dict[str, Any]]) -> dict[str, float]:
    """`analysis/VIEW/NAME` -> value, of every number that a view has at its top level."""
    return {
        f"analysis/{view}/{name}": value
        for view, values in views.items()
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _provenance(subject: Subject) -> dict[str, Any]:
    code, where = git_state(), subject.directory or Path(subject.name)
    return {
        "format": FORMAT,
        "model": subject.name,
        "checkpoint": where.name if where.is_absolute() else where.as_posix(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": code.get("commit"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "seed": subject.seed,
        "share_of_text": subject.share,
        "held_out_tokens": None if subject.windows is None else subject.windows[:, 1:].numel(),
    }


def rounded(value: Any, *, digits: int = 5) -> Any:
    """Nested plain values with `digits` significant digits; what is not finite becomes None."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item, digits=digits) for key, item in value.items()}
    return [rounded(item, digits=digits) for item in value] if isinstance(value, list | tuple) else value
