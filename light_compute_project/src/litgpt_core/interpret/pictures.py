"""A picture (PNG) of each view, by matplotlib, from the same values as the page."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from litgpt_core.core.files import replacing
from litgpt_core.interpret.pictures_charts import COLOURS, SEQUENTIAL, bar, curve, finish, heat, spread, ticks, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = dict[str, Any]
DPI = 110


def draw_all(views: dict[str, Values], folder: Path) -> list[Path]:
    """Write `NAME.png` for each view that has a picture, and remove those of views that are not in this report; the
    files written.
    """
    remove_others(views, folder)
    return [draw(name, views[name], folder) for name in PICTURES if name in views]


def remove_others(views: Collection[str], folder: Path) -> None:
    """Remove the pictures of views that are not among these."""
    for name in PICTURES:
        if name not in views:
            (folder / f"{name}.png").unlink(missing_ok=True)


def draw(name: str, values: Values, folder: Path) -> Path:
    """Write the picture of one view; the file."""
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI, layout="constrained")
    PICTURES[name](figure, values)
    path = folder / f"{name}.png"
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a token in a script that the font lacks is a box
        figure.savefig(temporary, format="png")
    return path


def _budget(figure: Figure, v: Values) -> None:
    figure.set_size_inches(8, 3)
    both = figure.subplots(1, 2)
    for axes, key, title in zip(both, ("parameters", "flops"), ("parameters", "FLOPs per token"), strict=True):
        rows = sorted((row for row in v["rows"] if row[key]), key=lambda row: -row[key])
        bar(axes, [row["group"] for row in rows], [100 * row[key] / v[key] for row in rows], None, f"% of {title}")


def _surprisal(figure: Figure, v: Values) -> None:
    figure.set_size_inches(max(6.0, 0.24 * len(v["bits"])), 3)
    axes = figure.subplots()
    bits = [bit or 0.0 for bit in v["bits"]]
    axes.bar(range(len(bits)), bits, color=COLOURS[0])
    axes.set_xticks(range(len(bits)), [visible(text) for text in v["prompt"]], rotation=70, fontsize=7)
    finish(axes, y="bits", title="surprisal of each token", legend=False)


def _lens(figure: Figure, v: Values) -> None:
    tokens = len(v["prompt"])
    figure.set_size_inches(max(7.0, 0.5 * min(tokens, 28)), 0.42 * len(v["layers"]) + 1.6)
    axes = figure.subplots()
    shown = range(max(0, tokens - 28), tokens)
    values = [[row["probabilities"][i][0] for i in shown] for row in reversed(v["grid"])]
    columns = [v["prompt"][i] for i in shown]
    heat(
        axes,
        values,
        title="logit lens: most probable next token",
        rows=v["layers"][::-1],
        columns=columns,
        low=0,
        high=1,
    )
    for y, row in enumerate(reversed(v["grid"])):
        for x, i in enumerate(shown):
            text, p = visible(row["tokens"][i][0], longest=6), row["probabilities"][i][0]
            axes.text(x, y, text, ha="center", va="center", fontsize=6, color="w" if p > 0.6 else "k")


def _attribution(figure: Figure, v: Values) -> None:
    figure.set_size_inches(9, 4.2)
    both = figure.subplots(1, 2)
    for axes, key, title in (
        (both[0], "parts", f"to the centred logit of {visible(v['token'])}"),
        (both[1], "against_runner_up", f"to {visible(v['token'])} over {visible(v['runner_up'])}"),
    ):
        parts = sorted(v[key].items(), key=lambda item: -abs(item[1]))[:16]
        bar(axes, [name for name, _ in parts], [value for _, value in parts], None, title)


def _attention(figure: Figure, v: Values) -> None:
    layers, heads, length, _ = v["weights"]["shape"]
    raw = np.frombuffer(base64.b64decode(v["weights"]["base64"]), dtype=np.uint8).reshape(layers, heads, length, length)
    rows, columns = spread(layers, 8), spread(heads, 9)
    figure.set_size_inches(1.5 * len(columns) + 0.5, 1.5 * len(rows) + 0.6)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for y, layer in enumerate(rows):
        for x, head in enumerate(columns):
            axes = grid[y][x]
            axes.imshow(raw[layer, head], cmap=SEQUENTIAL, vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"L{layer}H{head}", fontsize=7)
    figure.suptitle("attention: queries down, keys across", fontsize=10, x=0.01, ha="left")


def _heads(figure: Figure, v: Values) -> None:
    kinds = ("previous", "duplicate", "induction", "sink")
    scores = v["previous"]["scores"]
    figure.set_size_inches(2.6 * 4, 0.45 * len(scores) + 1.6)
    for axes, kind in zip(figure.subplots(1, 4), kinds, strict=True):
        heat(
            axes, v[kind]["scores"], title=f"{kind} (chance {v[kind]['chance']:.2f})", low=0, high=1, numbers=True,
            rows=[f"L{n}" for n in range(len(scores))], columns=[f"H{n}" for n in range(len(scores[0]))],
        )  # fmt: skip


def _ablation(figure: Figure, v: Values) -> None:
    shown = v["components"][:20]
    figure.set_size_inches(7, 0.24 * len(shown) + 1.2)
    title = f"rise of the loss without a part, nats per token ({v['tokens']:,} tokens, {v['method']} ablation)"
    axes, errors = figure.subplots(), [c["error"] or 0 for c in shown]
    bar(axes, [c["name"] for c in shown], [c["delta"] for c in shown], errors, title)
    axes.set_xscale("symlog", linthresh=max(1e-4, 3 * float(np.median(errors))), linscale=2)


def _patching(figure: Figure, v: Values) -> None:
    layers = [f"L{n}" for n in range(len(v["heads"]))]
    figure.set_size_inches(12, 0.4 * len(layers) + 2.4)
    grid = figure.subplots(1, 3, width_ratios=[2, 2, 1])
    heat(
        grid[0],
        v["positions"]["resid_pre"],
        title="residual stream patched",
        rows=layers,
        columns=v["prompt"],
        diverging=True,
        high=1,
    )
    heat(
        grid[1],
        v["estimated"],
        title="estimated by gradients",
        rows=layers,
        columns=v["prompt"],
        diverging=True,
        high=1,
    )
    heads = [f"H{n}" for n in range(len(v["heads"][0]))]
    heat(grid[2], v["heads"], title="heads patched", rows=layers, columns=heads, diverging=True, numbers=True)


def _positions(figure: Figure, v: Values) -> None:
    figure.set_size_inches(6.4, 3.6)
    axes = figure.subplots()
    middle = [(row["begin"] + row["end"] + 1) / 2 for row in v["ranges"]]
    errors = [row["error"] or 0 for row in v["ranges"]]
    axes.errorbar(middle, [row["loss"] for row in v["ranges"]], yerr=errors, marker="o", color=COLOURS[0], capsize=3)
    axes.set_xscale("log", base=2)
    finish(axes, x="position", y="nats per token", title="loss by position, with standard errors", legend=False)


def _frequency(figure: Figure, v: Values) -> None:
    figure.set_size_inches(6.4, 3.6)
    axes = figure.subplots()
    x = list(range(1, len(v["groups"]) + 1))
    curve(axes, x, [group["loss"] for group in v["groups"]], "model", 0)
    curve(axes, x, [group["unigram"] for group in v["groups"]], "frequency alone", 1, linestyle="--")
    finish(axes, x="tenth of the targets, most frequent first", y="nats per token", title="loss by token frequency")


def _neurons(figure: Figure, v: Values) -> None:
    units = sorted((unit for layer in v["layers"] for unit in layer["shown"]), key=lambda unit: -unit["selectivity"])[
        :16
    ]
    figure.set_size_inches(8, 0.26 * len(units) + 1.2)
    names = [f"{unit['name']} at {visible(unit['examples'][0]['token'])}" for unit in units]
    bar(
        figure.subplots(), names, [unit["selectivity"] for unit in units], None, "largest activation / usual activation"
    )


def _probes(figure: Figure, v: Values) -> None:
    count = max(1, len(v["properties"]))
    figure.set_size_inches(3.4 * count, 3.2)
    x = list(range(len(v["layers"])))
    for axes, row in zip(figure.subplots(1, count, squeeze=False)[0], v["properties"], strict=False):
        curve(axes, x, row["accuracy"], "property", 0)
        curve(axes, x, row["control"], "random labels", 1, linestyle="--")
        axes.axhline(row["majority"], color=COLOURS[2], linestyle=":", label="majority")
        ticks(axes, ["emb", *(str(n) for n in x[:-1])], most=10)
        finish(axes, x="layer", y="accuracy, held out", title=row["property"])


def _tuned_lens(figure: Figure, v: Values) -> None:
    figure.set_size_inches(6.4, 3.6)
    axes = figure.subplots()
    x = list(range(len(v["layers"])))
    curve(axes, x, v["logit_lens"], "logit lens", 1)
    curve(axes, x, v["tuned_lens"], "tuned lens", 0)
    ticks(axes, [name.removeprefix("layer ") for name in v["layers"]])
    finish(axes, x="layer", y="nats", title="divergence from the final prediction")


def _autoencoder(figure: Figure, v: Values) -> None:
    figure.set_size_inches(6, 2.4)
    rows = [("unchanged", v["loss"]), ("reconstruction", v["spliced_loss"]), ("mean", v["mean_loss"])]
    title = f"loss with layer {v['layer']} replaced ({v['features']} features, {v['l0']:.0f} active)"
    bar(figure.subplots(), [name for name, _ in rows], [value for _, value in rows], None, title)


def _embeddings(figure: Figure, v: Values) -> None:
    figure.set_size_inches(9, 6)
    axes = figure.subplots()
    axes.scatter(v["x"], v["y"], s=2, color=COLOURS[0])
    for text, x, y in list(zip(v["tokens"], v["x"], v["y"], strict=True))[:250]:
        axes.annotate(visible(text), (x, y), fontsize=5.5)
    finish(
        axes,
        title=f"token embeddings, two principal components ({sum(v['variance']):.0%} of the variance)",
        legend=False,
    )


def _weights(figure: Figure, v: Values) -> None:
    inside = [m for m in v["matrices"] if m["layer"] is not None]
    kinds = list(dict.fromkeys(m["kind"] for m in inside))
    layers = 1 + max(m["layer"] for m in inside)
    table: list[list[float | None]] = [[None] * layers for _ in kinds]
    for m in inside:
        table[kinds.index(m["kind"])][m["layer"]] = m["effective_rank"] / min(m["shape"])
    figure.set_size_inches(11, 0.34 * len(kinds) + 2)
    grid = figure.subplots(1, 2)
    heat(
        grid[0],
        table,
        title="effective rank / full rank",
        rows=kinds,
        columns=[str(n) for n in range(layers)],
        low=0,
        high=1,
        numbers=True,
    )
    grid[0].set_yticks(range(len(kinds)), kinds, fontsize=7)
    last = [m for m in inside if m["layer"] == layers - 1 and m["largest"]]
    for index, m in enumerate(last[:6]):
        x = np.linspace(0, 1, len(m["spectrum"]))
        grid[1].plot(x, np.array(m["spectrum"]) / m["largest"], color=COLOURS[index % 6], label=m["kind"])
    finish(
        grid[1], x="share of the singular values", y="relative to the largest", title=f"spectra of layer {layers - 1}"
    )


def _dynamics(figure: Figure, v: Values) -> None:
    figure.set_size_inches(11, 3.4)
    grid = figure.subplots(1, 3)
    if v["loss"]:
        curve(grid[0], v["steps"], v["loss"], "held-out text", 0)
    curve(grid[0], v["steps"], v["repeated_loss"], "random tokens, repeated", 1)
    finish(grid[0], x="step", y="nats per token", title="loss")
    for index, kind in enumerate(("previous", "duplicate", "induction", "sink")):
        curve(grid[1], v["steps"], [max(map(max, scores)) for scores in v["heads"][kind]], kind, index)
    finish(grid[1], x="step", y="share of attention", title="best head of each kind")
    for index, (kind, ranks) in enumerate(list(v["ranks"].items())[:6]):
        curve(grid[2], v["steps"], ranks, kind, index)
    finish(grid[2], x="step", title="effective rank, mean over layers")


PICTURES: dict[str, Callable[[Figure, Values], None]] = {
    "budget": _budget, "surprisal": _surprisal, "lens": _lens, "attribution": _attribution, "attention": _attention,
    "heads": _heads, "ablation": _ablation, "patching": _patching, "positions": _positions, "frequency": _frequency,
    "neurons": _neurons, "probes": _probes, "tuned_lens": _tuned_lens, "autoencoder": _autoencoder,
    "embeddings": _embeddings, "weights": _weights, "dynamics": _dynamics,
}  # fmt: skip
