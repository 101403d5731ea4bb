"""`study.png`: how the search went, every trial's curve, what mattered, and the loss along each parameter."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core.search.sweep_pictures import save, short_names, style
from litgpt_core.search.sweep_results import METRIC_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

    from litgpt_core.search.study_space import Parameter
    from litgpt_core.search.study_store import StudyStore

DONE, PRUNED, BEST, FAILED = "#2563eb", "#9ca3af", "#c2410c", "#b91c1c"
COLUMNS = 3
MAX_SLICES = 9
"""Parameters that get a panel."""


def draw_study(store: StudyStore, path: Path, *, title: str, shares: dict[str, float]) -> bool:
    """Draw `study.png`; whether there was anything to draw.

    Args:
        store: The trials.
        path: PNG to write.
        title: One line above the picture.
        shares: Parameter -> its share in the spread; may be empty.
    """
    from matplotlib.figure import Figure

    if not any(trial.intermediate_values or trial.value is not None for trial in store.trials):
        return False
    slices = list(store.space.parameters.values())[:MAX_SLICES]
    panels = 2 + bool(shares) + len(slices)
    rows = math.ceil(panels / COLUMNS)
    figure = Figure(figsize=(4.6 * COLUMNS, 3.7 * rows), dpi=120, layout="constrained")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    _draw_history(axes[0], store)
    _draw_curves(axes[1], store)
    if shares:
        _draw_shares(axes[2], shares)
    for place, parameter in zip(axes[2 + bool(shares) :], slices, strict=False):
        _draw_slice(place, store, parameter)
    for unused in axes[panels:]:
        unused.set_visible(False)
    counts = [f"{sum(t.state.name == name for t in store.trials)} {word}" for name, word in _WORDS.items()]
    figure.suptitle(f"{title}: {', '.join(counts)}", fontsize=11, x=0.01, ha="left")
    save(figure, path)
    return True


_WORDS = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}


def _values(store: StudyStore, state: str) -> list[tuple[FrozenTrial, float]]:
    """Trials that ended so and have a value, with it."""
    return [(t, t.value) for t in store.trials if t.state.name == state and t.value is not None]


def _draw_history(axes: Axes, store: StudyStore) -> None:
    from matplotlib.ticker import MaxNLocator

    done, pruned = (_values(store, state) for state in ("COMPLETE", "PRUNED"))
    failed = [trial for trial in store.trials if trial.state.name == "FAIL"]
    if pruned:
        label = "pruned, at its last validation"
        axes.plot([t.number for t, _ in pruned], [v for _, v in pruned], "x", color=PRUNED, label=label)
    if done:
        axes.plot([t.number for t, _ in done], [v for _, v in done], "o", color=DONE, label="done")
        lowest = list(itertools.accumulate((v for _, v in done), min))
        numbers = [*(t.number for t, _ in done), store.trials[-1].number]
        steps = [*lowest, lowest[-1]]
        axes.plot(numbers, steps, color=BEST, linewidth=1.4, drawstyle="steps-post", label="best so far")
    for number, trial in enumerate(failed):
        axes.axvline(trial.number, color=FAILED, linewidth=0.8, linestyle=":", label="failed" if number == 0 else None)
    axes.set_xlabel("trial")
    axes.set_ylabel(METRIC_NAMES[store.settings.metric])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if done or pruned or failed:
        axes.legend(frameon=False, fontsize=7)
    style(axes, title="the search")


def _draw_curves(axes: Axes, store: StudyStore) -> None:
    best = store.best
    for trial in store.trials:
        points = sorted(trial.intermediate_values.items())
        if not points:
            continue
        is_best = best is not None and trial.number == best.number
        done = trial.state.name == "COMPLETE"
        colour = BEST if is_best else DONE if done else PRUNED
        label = f"best: trial {trial.number}" if is_best else None
        width, front = (2.0, 3) if is_best else (0.9, 2 if done else 1)
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, marker=".", zorder=front, label=label)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(METRIC_NAMES[store.settings.metric])
    if best is not None:
        axes.legend(frameon=False, fontsize=7)
    style(axes, title="validation of every trial (grey: not finished)")


def _draw_shares(axes: Axes, shares: dict[str, float]) -> None:
    keys = list(reversed(shares))
    axes.barh(range(len(keys)), [shares[key] for key in keys], color=DONE)
    axes.set_yticks(range(len(keys)), short_names(keys))
    axes.set_xlim(0, 1)
    axes.set_xlabel("share in the spread (PED-ANOVA)")
    style(axes, title="what mattered among the completed trials")


def _draw_slice(axes: Axes, store: StudyStore, parameter: Parameter) -> None:
    """Value of every trial along one parameter; choices stand side by side."""
    from matplotlib.ticker import MaxNLocator

    places = {choice: number for number, choice in enumerate(parameter.choices)}
    best = store.best
    looks = {"PRUNED": ("x", PRUNED, 6), "COMPLETE": ("o", DONE, 5)}
    for state, (marker, colour, size) in looks.items():
        found = [(t.params[parameter.key], value) for t, value in _values(store, state) if parameter.key in t.params]
        xs = [float(places[given]) if places else float(given) for given, _ in found]
        axes.plot(xs, [value for _, value in found], marker, color=colour, markersize=size)
    if best is not None and best.value is not None and parameter.key in best.params:
        given = best.params[parameter.key]
        axes.plot([places[given] if places else given], [best.value], "*", color=BEST, markersize=13)
    if places:
        axes.set_xticks(list(places.values()), list(places))
        axes.set_xlim(-0.5, len(places) - 0.5)
    elif parameter.log:
        axes.set_xscale("log")
    elif parameter.kind == "int":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(parameter.key)
    axes.set_ylabel(METRIC_NAMES[store.settings.metric])
    style(axes, title=parameter.text)
