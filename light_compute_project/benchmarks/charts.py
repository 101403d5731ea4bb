"""The charts of the benchmark command, made from its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litgpt_core.core.files import replacing
from litgpt_core.core.text import count

OURS, PEER, INK, MUTED = "#c2410c", "#9db2cc", "#1f2937", "#6b7280"
Record = dict[str, Any]


def draw(record: Record, path: Path) -> None:
    """Draw the record to a PNG file; nothing for kinds that have no chart.

    Args:
        record: What the benchmark command wrote, this version or an earlier one.
        path: The PNG.
    """
    from matplotlib.figure import Figure

    if record["kind"] not in _CHARTS:
        return
    figure = Figure(dpi=140, layout="constrained")
    _CHARTS[record["kind"]](record, figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.15)


def _bars(record: Record, figure: Any) -> None:
    """One bar a program, the fastest on top: the median, a whisker from slowest to fastest round, our ratio to it."""
    from matplotlib.ticker import EngFormatter

    rows = sorted(record["contestants"], key=lambda one: float(one["tokens_per_s"]["median"]))
    rates = [row["tokens_per_s"] for row in rows]
    figure.set_size_inches(9, 1.9 + 0.48 * len(rows))
    axes = figure.subplots()
    medians, places = [rate["median"] for rate in rates], range(len(rows))
    axes.barh(places, medians, height=0.66, color=[OURS if row["ours"] else PEER for row in rows])
    if len(rows[0]["laps"]) > 1:
        whiskers = [[r["median"] - r["min"] for r in rates], [r["max"] - r["median"] for r in rates]]
        axes.errorbar(medians, places, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1.1, capsize=3)
    best = next(iter(record["ratios"]), None)
    for place, row, rate in zip(places, rows, rates, strict=True):
        ratio = record["ratios"][best].get(row["label"]) if best and not _batched(row) else None
        axes.annotate(
            f"{rate['median']:,.0f}" + (f"   ({best} is {ratio['median']:.2f}×)" if ratio else ""),
            (rate["max"], place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
            fontweight="bold" if row["ours"] else "normal",
        )
    axes.set_yticks(places, [_label(row) for row in rows], fontsize=9.5)
    axes.set_xlim(0, max(rate["max"] for rate in rates) * 1.3)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("tokens per second, median of the rounds; whisker: slowest to fastest")
    axes.set_title(_title(record), fontsize=11.5, loc="left", color=INK, fontweight="bold")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    figure.text(0.0, -0.02, _footer(record), fontsize=8, color=MUTED, ha="left", va="top")


def _label(row: Record) -> str:
    label, precision = str(row["label"]), row["precision"]
    return label if precision in label else f"{label}  ·  {precision}"


def _batched(row: Record) -> bool:
    """Several sequences at once: different work, so there is no ratio."""
    return bool(row["ours"]) and "-x" in row["label"]


def _title(record: Record) -> str:
    work = record["work"]
    shape = f"{work['n_layer']} layers, {work['n_head']} heads, {work['n_embd']} wide"
    if record["kind"] == "generate":
        batch = "batch 1 (xN: batch N)" if any(map(_batched, record["contestants"])) else "batch 1"
        return f"Generating, {batch}: {shape}, {work['n_params'] / 1e6:.1f}M parameters"
    return f"Training: {shape}, context {work['block_size']}, batch {work['batch_size']}"


def _footer(record: Record) -> str:
    machine, git = record["environment"] or {}, record["git"]
    rounds = count(max(index for index, _ in record["order"]), "alternating round")
    state = f"{git.get('commit', 'unknown')[:10]}{' with changes' if git.get('dirty') else ''}"
    return (
        f"{machine.get('device_name', 'unknown machine')}; {rounds}; torch "
        f"{machine.get('versions', {}).get('torch', '?')}; commit {state}; {record['date']}"
    )


def _curves(record: Record, figure: Any) -> None:
    """Validation loss over the training clock: a line a trial, a star where the whole split was evaluated."""
    from matplotlib.ticker import FuncFormatter

    figure.set_size_inches(9, 5)
    axes = figure.subplots()
    for one in record["contestants"]:
        color = OURS if one["ours"] else PEER
        loss = record["losses"][one["label"]]["median"]
        label: str | None = f"{one['label']}: {loss:.3f} over the whole split"
        for trial in one["laps"]:
            numbers = trial["numbers"]
            if curve := trial.get("curve"):
                axes.plot(*zip(*curve, strict=True), color=color, linewidth=1.4, marker="o", markersize=3)
            star = {"color": color, "markersize": 13, "linestyle": "", "label": label}
            axes.plot(numbers["clock_s"], numbers["val_loss"], "*", **star)
            label = None  # the legend names a program once
    axes.set_xscale("log")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else ""))
    axes.set_xlabel("seconds of training steps (compiling, validating and saving left out)")
    axes.set_ylabel("validation loss (nats per character)")
    parts = [
        f"{times['clock']['median']:.1f} times less training than {label}, {times['wall']['median']:.1f} times in all"
        for label, times in record["to_loss"].items()
    ]
    title = f"{record['work']['name']}: {'; '.join(parts) or 'ours alone'}"
    axes.set_title(title, fontsize=11.5, loc="left", fontweight="bold", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False)


def _growth(record: Record, figure: Any) -> None:
    """A plot for each x: points, and the straight line through them."""
    plots: dict[str, list[Record]] = {}
    for plot in record["plots"]:
        plots.setdefault(plot["x"], []).append(plot)
    figure.set_size_inches(9, 6.4)
    for axes, (x, curves) in zip(figure.subplots(2, 2).flat, plots.items(), strict=True):
        for curve, color in zip(curves, (OURS, PEER), strict=False):
            line, xs = curve["straight"], curve["xs"]
            label = f"{curve['shape']}: x^{line['exponent']:.2f}" if len(curves) > 1 else None
            axes.plot(xs, curve["ys"], "o", color=color, markersize=5, label=label)
            ends = [0, max(xs)]
            axes.plot(ends, [line["intercept"] + line["slope"] * end for end in ends], color=color, linewidth=1.2)
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.set_xlabel(x)
        axes.set_ylabel(curves[0]["y"])
        axes.locator_params(axis="x", nbins=5)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)
        else:
            line = curves[0]["straight"]
            title = f"{curves[0]['shape']}\nat most {line['largest_error']:.0%} from the line, x^{line['exponent']:.2f}"
            axes.set_title(title, fontsize=8.5, loc="left", color=MUTED)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    machine = (record["environment"] or {}).get("device_name", "unknown machine")
    figure.text(0.0, -0.02, f"{machine}; {record['date']}", fontsize=8, color=MUTED, ha="left", va="top")


_CHARTS = {"train": _bars, "generate": _bars, "to-loss": _curves, "growth": _growth}
