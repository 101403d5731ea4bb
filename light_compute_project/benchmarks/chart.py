"""The bar chart of a race, made from its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS, PEER, INK, MUTED = "#c2410c", "#9db2cc", "#1f2937", "#6b7280"


def draw_race(record: dict[str, Any], path: Path) -> None:
    """Draw one bar a contestant, longest on top: the median, a whisker from slowest to fastest round, our ratio to it.

    Args:
        record: What `record.race_record` made.
        path: PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    rows = sorted(record["contestants"], key=lambda c: float(c["tokens_per_s"]["median"]))
    medians = [row["tokens_per_s"]["median"] for row in rows]
    figure = Figure(figsize=(9, 1.9 + 0.48 * len(rows)), dpi=140, layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(rows)), medians, height=0.66, color=[OURS if row["ours"] else PEER for row in rows])
    errors = [
        [m - row["tokens_per_s"]["min"] for m, row in zip(medians, rows, strict=True)],
        [row["tokens_per_s"]["max"] - m for m, row in zip(medians, rows, strict=True)],
    ]
    if len(rows[0]["laps"]) > 1:
        axes.errorbar(medians, range(len(rows)), xerr=errors, fmt="none", ecolor=INK, elinewidth=1.1, capsize=3)
    best = next(iter(record["ratios"]), None)
    for place, row in enumerate(rows):
        ratio = record["ratios"][best].get(row["label"]) if best else None
        text = f"{row['tokens_per_s']['median']:,.0f}"
        text += f"   ({best} is {ratio['median']:.2f}×)" if ratio and not _is_many(row) else ""
        axes.annotate(
            text,
            (row["tokens_per_s"]["max"], place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
            fontweight="bold" if row["ours"] else "normal",
        )
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=9.5)
    axes.set_xlim(0, max(row["tokens_per_s"]["max"] for row in rows) * 1.3)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(record["work"].get("axis", "tokens per second, median of the rounds; whisker: slowest to fastest"))
    axes.set_title(_title(record), fontsize=11.5, loc="left", color=INK, fontweight="bold")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    figure.text(0.0, -0.02, _footer(record), fontsize=8, color=MUTED, ha="left", va="top")
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.15)
    temporary.replace(path)


def _label(row: dict[str, Any]) -> str:
    label, precision = str(row["label"]), row["precision"]
    return label if precision in label else f"{label}  ·  {precision}"


def _is_many(row: dict[str, Any]) -> bool:
    """Several texts side by side: other work, so there is no ratio."""
    return bool(row["ours"]) and "-x" in row["label"]


def _title(record: dict[str, Any]) -> str:
    work = record["work"]
    shape = f"{work['n_layer']} layers, {work['n_head']} heads, {work['n_embd']} wide"
    if record["kind"] == "generate":
        many = any(map(_is_many, record["contestants"]))
        batch = "one text (xN: N at once)" if many else "batch 1"
        return f"Generating, {batch}: {shape}, {work['n_params'] / 1e6:.1f}M parameters"
    return f"Training: {shape}, context {work['block_size']}, batch {work['batch_size']}"


def _footer(record: dict[str, Any]) -> str:
    machine, git = record["environment"] or {}, record["git"]
    count = max(index for index, _ in record["order"])
    rounds = f"{count} alternating rounds" if count > 1 else "one round"
    state = f"{git.get('commit', 'unknown')[:10]}{' with changes' if git.get('dirty') else ''}"
    return (
        f"{machine.get('device_name', 'machine unknown')}; {rounds}; torch "
        f"{machine.get('versions', {}).get('torch', '?')}; commit {state}; {record['date']}"
    )
