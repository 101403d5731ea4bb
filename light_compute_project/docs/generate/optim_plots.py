"""The pictures of docs/optim.md, drawn from the functions that training calls, and nothing else.

    python light_compute_project/docs/generate        draws them all again

Each PNG carries a digest of the numbers that it shows. A test takes the numbers again, so a picture cannot outlive a
change of the function behind it. Not here: curves of a run (`training/results.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.optim.muon import NEWTON_SCHULZ_COEFFICIENTS
from litgpt_core.optim.schedule import learning_rate_factor
from litgpt_core.optim.settings import ScheduleSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = PROJECT_DIR / "docs" / "images"
"""Where the committed pictures are."""

DIGEST_KEY = "Description"
"""The PNG text field that holds the digest."""

Curves = dict[str, list[tuple[float, float]]]
"""Name of a curve -> its points (x, y)."""

Kind = Literal["cosine", "linear", "wsd", "constant"]

MAX_STEPS = 1000
INK, ACCENT, PALE = "#3f3f46", "#c2410c", "#d4d4d8"


def schedule_curves() -> Curves:
    """Every kind of schedule over a run of 1,000 steps with 100 of warm-up: step -> factor on the peak rate."""
    curves: Curves = {}
    for kind in get_args(Kind):
        settings = ScheduleSettings(kind=kind, lr_warmup_steps=100, min_lr_fraction=0.1, decay_fraction=0.2)
        steps = [*range(0, MAX_STEPS, 5), MAX_STEPS - 1]
        curves[kind] = [(step, learning_rate_factor(step, settings, max_steps=MAX_STEPS)) for step in steps]
    return curves


def newton_schulz_curves() -> Curves:
    """What 1 to 5 steps of Muon's polynomial make of a singular value from 0.0001 to 1."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    curves: Curves = {}
    points = [(value, value) for value in (10 ** (-i / 200) for i in reversed(range(801)))]
    for n in range(1, 6):
        points = [(x, a * y + b * y**3 + c * y**5) for x, y in points]
        curves[f"{n} step" if n == 1 else f"{n} steps"] = points
    return curves


def digest(curves: Curves) -> str:
    """A hash of the numbers to six decimals, the same on every machine."""
    text = ";".join(f"{name}:" + ",".join(f"{x:.6f} {y:.6f}" for x, y in points) for name, points in curves.items())
    return hashlib.sha256(text.encode()).hexdigest()


def draw_schedules(path: Path) -> None:
    """One panel per kind: that curve in front, the others pale behind it."""
    figure, curves = _figure(11, 2.7), schedule_curves()
    panels = figure.subplots(1, len(curves), sharex=True, sharey=True)
    for axes, kind in zip(panels, curves, strict=True):
        for other in curves:
            if other != kind:
                axes.plot(*zip(*curves[other], strict=True), color=PALE, linewidth=1)
        axes.plot(*zip(*curves[kind], strict=True), color=ACCENT, linewidth=2.2)
        axes.set_title(kind, fontsize=11, color=ACCENT, loc="left")
        axes.set_xlabel("optimizer step")
        axes.set_xticks([0, 500, 1000])
        _tidy(axes)
    panels[0].set_ylabel("factor on the peak rate")
    panels[0].set_ylim(0, 1.05)
    panels[0].set_yticks([0, 0.1, 0.5, 1])
    _save(figure, path, curves=curves)


def draw_newton_schulz(path: Path) -> None:
    """The curves from pale to dark over a logarithmic axis, and the band in which five steps end."""
    figure, curves = _figure(9, 3.4), newton_schulz_curves()
    axes = figure.subplots()
    axes.axhspan(0.7, 1.2, color="#fff1e6")
    axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    shades = ["#d4d4d8", "#b4b4bb", "#8b8b94", "#52525b", ACCENT]
    for shade, (name, points) in zip(shades, curves.items(), strict=True):
        last = shade == ACCENT
        axes.plot(*zip(*points, strict=True), color=shade, linewidth=2.2 if last else 1.4, label=name)
    axes.set_xlabel("singular value of the normalised matrix, logarithmic")
    axes.set_ylabel("singular value afterwards")
    axes.set_xscale("log")
    axes.set_xlim(1e-4, 1)
    axes.set_ylim(0, 1.3)
    axes.set_yticks([0, 0.5, 0.7, 1, 1.2])
    axes.legend(frameon=False, loc="upper left", fontsize=9, bbox_to_anchor=(1, 1))
    _tidy(axes)
    _save(figure, path, curves=curves)


PICTURES: dict[str, tuple[Callable[[Path], None], Callable[[], Curves]]] = {
    "schedules.png": (draw_schedules, schedule_curves),
    "newton-schulz.png": (draw_newton_schulz, newton_schulz_curves),
}
"""File name -> what draws it, and the numbers it shows."""


def draw_all(folder: Path = IMAGES) -> None:
    """Draw every picture of the page into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (draw, _) in PICTURES.items():
        draw(folder / name)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def _tidy(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.tick_params(colors=INK, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Figure, path: Path, *, curves: Curves) -> None:
    figure.savefig(path, format="png", metadata={DIGEST_KEY: digest(curves)})
