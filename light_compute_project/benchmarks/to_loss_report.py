"""The table and the picture of `benchmark.py to-loss`, made from its JSON."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.chart import INK, OURS, PEER

Record = dict[str, Any]


def to_loss_tables(record: Record) -> list[Table]:
    """One row each: the loss, what it took, and how many times less ours took."""
    table = Table(title=f"to a loss: {record['work']['name']}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("contestant", no_wrap=True)
    for column in ("nats/char, whole split", "clock s", "times", "command s", "times", "compile s"):
        table.add_column(column, justify="right")
    for one in record["contestants"]:
        loss, numbers = record["losses"][one["label"]], one["numbers"]
        times = record["to_loss"].get(one["label"])
        table.add_row(
            f"[bold]{one['label']}[/]" if one["ours"] else one["label"],
            f"{loss['median']:.4f} ({loss['min']:.4f}–{loss['max']:.4f})",
            f"{numbers['clock_s']['median']:.1f}",
            f"{times['clock']['median']:.1f}" if times else "",
            f"{statistics.median(lap['wall_s'] for lap in one['laps']):.1f}",
            f"{times['wall']['median']:.1f}" if times else "",
            f"{numbers['compile_s']['median']:.1f}",
        )
    machine = (record["environment"] or {}).get("device_name", "machine unknown")
    laps = len(record["contestants"][0]["laps"])
    table.caption = f"{machine}; medians of {laps} alternating rounds, each with an empty compiler cache"
    table.caption_justify = "left"
    return [table]


def draw_to_loss(record: Record, path: Path) -> None:
    """Draw validation loss against the training clock: a line a lap, a star where the whole split was measured.

    Args:
        record: What `to_loss.run_to_loss` made.
        path: PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(9, 5), dpi=140, layout="constrained")
    axes = figure.subplots()
    for one in record["contestants"]:
        color = OURS if one["ours"] else PEER
        loss = record["losses"][one["label"]]
        for lap in one["laps"]:
            first = lap is one["laps"][0]
            clock = lap["numbers"]["clock_s"]
            if curve := lap.get("curve"):
                axes.plot(*zip(*curve, strict=True), color=color, linewidth=1.4, marker="o", markersize=3)
            label = f"{one['label']}: {loss['median']:.3f} over the whole split" if first else None
            axes.plot(clock, lap["numbers"]["val_loss"], "*", color=color, markersize=13, linestyle="", label=label)
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else ""))
    axes.set_xlabel("seconds of training steps (compiling, validating and saving left out)")
    axes.set_ylabel("validation loss (nats per character)")
    axes.set_title(
        f"{record['work']['name']}: {_ratio(record)}", fontsize=11.5, loc="left", fontweight="bold", color=INK
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False)
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def _ratio(record: Record) -> str:
    parts = [
        f"{times['clock']['median']:.1f} times less training than {label}, {times['wall']['median']:.1f} times in all"
        for label, times in record["to_loss"].items()
    ]
    return "; ".join(parts) or "ours alone"
