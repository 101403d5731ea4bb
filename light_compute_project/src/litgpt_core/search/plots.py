"""`sweep.png` and `study.png`: every trial's validation curve, and the results along what was varied."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core.core.files import replacing
from litgpt_core.search.findings import METRIC_NAMES, SearchResults, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from litgpt_core.search.study_space import SearchParameter
    from litgpt_core.search.trial_store import TrialFacts

COLOURS = ("#2563eb", "#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d", "#525252")
DONE, PRUNED, BEST, FAILED = "#2563eb", "#9ca3af", "#c2410c", "#b91c1c"
Subplot = Callable[["Axes", SearchResults], None]
MAX_LABELS = 12
"""More runs than this are drawn without a legend."""
COLUMNS = 3
MAX_SLICES = 9
"""Parameters that get a subplot."""


def draw(findings: SearchResults, path: Path) -> bool:
    """Draw the plot of a sweep or a study; whether there was anything to draw."""
    from matplotlib.figure import Figure

    if not any(trial.validations or trial.value is not None for trial in findings.trials):
        return False
    subplots = _sweep_subplots(findings) if findings.kind == "sweep" else _study_subplots(findings)
    columns = min(COLUMNS, len(subplots))
    rows = math.ceil(len(subplots) / columns)
    figure = Figure(figsize=(5.2 * columns, 4.0 * rows), dpi=120, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place, draw_one in zip(axes, subplots, strict=False):
        draw_one(place, findings)
    for unused in axes[len(subplots) :]:
        unused.set_visible(False)
    states = [trial.state for trial in findings.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    figure.suptitle(f"{findings.name}: {counts}", fontsize=11, x=0.01, ha="left")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return True


def _sweep_subplots(findings: SearchResults) -> list[Subplot]:
    axis = main_axis(findings)
    return [_draw_groups, *([partial(_draw_axis, key=axis)] if axis else [])]


def _study_subplots(findings: SearchResults) -> list[Subplot]:
    slices = list(findings.parameters.values())[:MAX_SLICES]
    shares: list[Subplot] = [_draw_shares] if findings.shares else []
    return [_draw_history, _draw_curves, *shares, *(partial(_draw_slice, parameter=one) for one in slices)]


def main_axis(findings: SearchResults) -> str | None:
    """The swept key along which a plot says most: numbers before names, then the one with most values."""
    axes = {k: v for k, v in findings.axes.items() if len(v) > 1 and k not in ("seed", "run.name", "run.dir")}
    if not axes:
        return None
    return max(axes, key=lambda key: (numbers(axes[key]) is not None, len(axes[key])))


def numbers(texts: Sequence[str]) -> list[float] | None:
    """Values as numbers, or None if one of them is none."""
    try:
        found = [float(text) for text in texts]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether values are better drawn on a logarithmic axis: all above 0, and spread over a factor of 8, or each about
    the same multiple of the one before: 2, 4, 8.
    """
    found = sorted(set(values))
    if found[0] <= 0:
        return False
    ratios = [b / a for a, b in itertools.pairwise(found)]
    gaps = [b - a for a, b in itertools.pairwise(found)]
    geometric = len(found) > 2 and max(ratios) / min(ratios) < 1.5 <= max(gaps) / min(gaps)
    return geometric or found[-1] / found[0] >= 8


def _tick_at_validations(axes: Axes, findings: SearchResults) -> None:
    """Ticks where something was measured, if these are few."""
    steps = sorted({step for trial in findings.trials for step in trial.validations})
    if 0 < len(steps) <= MAX_LABELS:
        axes.set_xticks(steps)


def _style(axes: Axes, *, title: str, x: str, y: str, legend: bool = False) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=7)


# ---- subplots of a sweep ----


def _draw_groups(axes: Axes, findings: SearchResults) -> None:
    """Curves; runs that differ only in the seed share a colour."""
    colours: dict[tuple[str, ...], str] = {}
    for trial in findings.trials:
        group = tuple(value for key, value in trial.params.items() if key != "seed")
        colour = colours.setdefault(group, COLOURS[len(colours) % len(COLOURS)])
        if points := sorted(trial.validations.items()):
            label = ", ".join(f"{key.split('.')[-1]} {text}" for key, text in trial.params.items()) or trial.name
            line = "-" if trial.state == "done" else ":"
            axes.plot(*zip(*points, strict=True), line, color=colour, linewidth=1.4, marker=".", label=label)
    _tick_at_validations(axes, findings)
    title = "validation while training (dotted: not finished)"
    few = len(findings.trials) <= MAX_LABELS
    _style(axes, title=title, x="optimizer step", y=METRIC_NAMES[findings.metric], legend=few)


def _draw_axis(axes: Axes, findings: SearchResults, *, key: str) -> None:
    """Each run a dot; runs that differ only in the seed are joined at their mean; other swept keys are colours."""
    from matplotlib.ticker import NullLocator

    texts = findings.axes[key]
    is_numeric = numbers(texts) is not None
    places: dict[str, float] = dict(zip(texts, numbers(texts) or range(len(texts)), strict=True))
    series: dict[str, dict[float, list[float]]] = {}
    for trial, value in _valued(findings, "done"):
        others = [k for k in findings.varied if k not in (key, "seed", "run.name")]
        label = ", ".join(f"{k.split('.')[-1]} {trial.params[k]}" for k in others)
        series.setdefault(label, {}).setdefault(places[trial.params[key]], []).append(value)
    for number, (label, found) in enumerate(sorted(series.items())):
        colour, xs = COLOURS[number % len(COLOURS)], sorted(found)
        axes.plot(xs, [statistics.fmean(found[x]) for x in xs], color=colour, linewidth=1.2, label=label or None)
        axes.plot([x for x in xs for _ in found[x]], [v for x in xs for v in found[x]], "o", color=colour, markersize=5)
    found_at = sorted({x for found in series.values() for x in found})
    if is_numeric and found_at and is_logarithmic(found_at):
        axes.set_xscale("log")
    if not is_numeric or len(texts) <= MAX_LABELS:
        ticks = {places[text]: text for text in texts if places[text] in found_at}
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.xaxis.set_minor_locator(NullLocator())
    seeds = ", line: mean over seeds" if "seed" in findings.varied else ""
    title = f"finished runs, whole validation split{seeds}"
    _style(axes, title=title, x=key, y=METRIC_NAMES[findings.metric], legend=len(series) <= MAX_LABELS)


# ---- subplots of a study ----


def _valued(findings: SearchResults, state: str) -> list[tuple[TrialFacts, float]]:
    """Trials that ended so and have a value, with it."""
    return [(trial, trial.value) for trial in findings.trials if trial.state == state and trial.value is not None]


def _along(trials: Sequence[tuple[TrialFacts, float]]) -> tuple[list[int], list[float]]:
    """Numbers and values, for plotting."""
    return [trial.number or 0 for trial, _ in trials], [value for _, value in trials]


def _draw_history(axes: Axes, findings: SearchResults) -> None:
    from matplotlib.ticker import MaxNLocator

    done, pruned = _valued(findings, "done"), _valued(findings, "pruned")
    failed = [trial for trial in findings.trials if trial.state in ("failed", "diverged")]
    if pruned:
        label = "pruned, at its last validation"
        axes.plot(*_along(pruned), "x", color=PRUNED, label=label)
    if done:
        axes.plot(*_along(done), "o", color=DONE, label="done")
        numbers_done, values = _along(done)
        lowest = list(itertools.accumulate(values, min))
        at = [*numbers_done, findings.trials[-1].number or 0]
        axes.plot(at, [*lowest, lowest[-1]], color=BEST, linewidth=1.4, drawstyle="steps-post", label="best so far")
    for number, trial in enumerate(failed):
        label = "_nolegend_" if number else "failed"
        axes.axvline(trial.number or 0, color=FAILED, linewidth=0.8, linestyle=":", label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _style(axes, title="the search", x="trial", y=METRIC_NAMES[findings.metric], legend=True)


def _draw_curves(axes: Axes, findings: SearchResults) -> None:
    best = findings.best
    for trial in findings.trials:
        if points := sorted(trial.validations.items()):
            is_best, done = trial is best, trial.state == "done"
            colour = BEST if is_best else DONE if done else PRUNED
            label = f"best: trial {trial.number}" if is_best else None
            width, front = (2.0, 3) if is_best else (0.9, 2 if done else 1)
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, marker=".", zorder=front, label=label)
    _tick_at_validations(axes, findings)
    title = "validation of every trial (grey: not finished)"
    _style(axes, title=title, x="optimizer step", y=METRIC_NAMES[findings.metric], legend=True)


def _draw_shares(axes: Axes, findings: SearchResults) -> None:
    keys = list(reversed(findings.shares))
    axes.barh(range(len(keys)), [findings.shares[key] for key in keys], color=DONE)
    axes.set_yticks(range(len(keys)), short_names(keys))
    axes.set_xlim(0, 1)
    _style(axes, title="what mattered among the completed trials", x="share in the spread (PED-ANOVA)", y="")


def _draw_slice(axes: Axes, findings: SearchResults, *, parameter: SearchParameter) -> None:
    """Value of every trial along one parameter; choices stand side by side."""
    from matplotlib.ticker import MaxNLocator

    places = {choice: number for number, choice in enumerate(parameter.choices)}

    def place(trial: TrialFacts) -> float:
        given = trial.params[parameter.key]
        return float(places[given]) if places else float(given)

    best = findings.best
    for state, marker, colour, size in (("pruned", "x", PRUNED, 6), ("done", "o", DONE, 5)):
        found = [(place(trial), value) for trial, value in _valued(findings, state) if parameter.key in trial.params]
        axes.plot([x for x, _ in found], [y for _, y in found], marker, color=colour, markersize=size)
    if best is not None and best.value is not None and parameter.key in best.params:
        axes.plot([place(best)], [best.value], "*", color=BEST, markersize=13)
    if places:
        axes.set_xticks(list(places.values()), list(places))
        axes.set_xlim(-0.5, len(places) - 0.5)
    elif parameter.log:
        axes.set_xscale("log")
    elif parameter.kind == "int":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _style(axes, title=parameter.text, x=parameter.key, y=METRIC_NAMES[findings.metric])
