"""Curves of several runs in one plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.files import replacing
from litgpt_core.core.replaceable import refuse_foreign_file
from litgpt_core.runs.folders import RunRecord

COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d", "#525252")
LINES = ("-", "--", ":", "-.")
LABELS = {
    "val_loss": "validation loss (nats/token)",
    "train_loss": "training loss (nats/token)",
    "val_bpb": "validation, bits per byte",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_s": "tokens per second",
    "steps": "optimizer step",
    "tokens": "tokens",
    "time": "minutes of training",
    "flops": "training FLOPs",
}


def plot(
    runs: Sequence[RunRecord],
    *,
    metric: str | Sequence[str] = "val_loss",
    x: str = "steps",
    path: str | Path = "runs.png",
    log: bool = False,
) -> Path:
    """Draw curves of several runs into a PNG or SVG file; a colour for each run, axes of its own for each metric.

    Args:
        runs: As `find` and `resolve` return them.
        metric: Keys of `metrics.jsonl`.
        x: `steps`, `tokens`, `time` or `flops`.
        path: The file, replaced if it exists.
        log: Logarithmic y axes.

    Returns:
        `path`.

    Raises:
        ConfigError: No run has such a curve, or there is no such axis.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    metrics = [metric] if isinstance(metric, str) else list(metric)
    if Path(path).suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"{path} is no file for a plot", needed="a name that ends in .png, .svg or .pdf")
    curves = {(key, run.path): run.curve(key, x=x) for key in metrics for run in runs}
    if not any(curves.values()):
        raise ConfigError(f"none of {len(runs)} runs has rows with {', '.join(metrics)}")
    figure = Figure(figsize=(7 * len(metrics), 4.6), dpi=130, layout="constrained")
    for axes, key in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for number, run in enumerate(runs):
            if points := curves[key, run.path]:
                xs, ys = zip(*points, strict=True)
                axes.plot(
                    [value / 60 for value in xs] if x == "time" else xs,
                    ys,
                    LINES[number // len(COLOURS) % len(LINES)],
                    color=COLOURS[number % len(COLOURS)],
                    linewidth=1.4,
                    marker="." if len(points) < 40 else "",
                    label=run.name,
                )
        axes.set_xlabel(LABELS[x])
        if x in ("tokens", "flops"):
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylabel(LABELS.get(key, key))
        axes.set_yscale("log" if log else "linear")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    refuse_foreign_file(Path(path), contains=b"atplotlib", what="a plot of matplotlib")
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary)
    return Path(path)
