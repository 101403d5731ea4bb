"""Hidden units of the MLPs: strongest examples in held-out text, what a unit writes to the logits, dead units.

A unit's write direction is its column of the MLP's projection; through the last norm's gain and the head it raises some
tokens and lowers others. A unit is dead if it never reaches 1 % of its layer's root mean square on the text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.access import has_neurons, mlp_projection
from litgpt_core.interpret.decompose import frozen_norm
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.gpt import GPT

WINDOWS = 24
BATCH = 8
SHOWN = 8
"""Units of each layer in the report, those that fire most selectively."""
EXAMPLES, BEFORE, AFTER = 4, 12, 3
DEAD = 0.01
MOST_NUMBERS = 100_000_000
"""Activations that are held at once."""


@torch.no_grad()
def written_logits(model: GPT, layer: int, units: list[int]) -> Tensor:
    """(units, vocab_size): what each unit adds to the logits per unit of activation, up to the last norm's scale;
    centred.
    """
    columns = mlp_projection(model, layer).weight[:, units].detach().mT
    gain, _ = frozen_norm(model.transformer.ln_f, torch.ones(columns.size(1)))
    logits = gain(columns) @ model.lm_head.weight.detach()[: model.config.vocab_size].mT
    return logits - logits.mean(dim=-1, keepdim=True)


@torch.no_grad()
def activations(model: GPT, windows: Tensor, layers: list[int]) -> dict[int, Tensor]:
    """(N, T) ids -> hidden units (N, T, I) of some layers."""
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for part in torch.split(windows, BATCH):
        with trace(model, [f"{layer}.neurons" for layer in layers]) as seen:
            model.hidden(part)
        for layer in layers:
            found[layer].append(seen[f"{layer}.neurons"])
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def selectivity(values: Tensor) -> Tensor:
    """(N, T, I) -> (I,): largest absolute activation / root mean square of the unit."""
    flat = values.flatten(0, 1)
    return flat.abs().amax(dim=0) / flat.square().mean(dim=0).sqrt().clamp(min=1e-12)


def strongest(values: Tensor, unit: int, *, count: int) -> list[tuple[int, int, float]]:
    """(window, position, activation) of a unit's largest absolute activations, one per window at most."""
    of_unit = values[..., unit]
    best = of_unit.abs().max(dim=1)
    rows = best.values.argsort(descending=True)[:count]
    return [(int(row), int(best.indices[row]), float(of_unit[row, best.indices[row]])) for row in rows]


def view(subject: Subject) -> dict[str, Any]:
    """Each layer's dead units, and its most selective ones with examples and promoted tokens."""
    windows = subject.some_windows(WINDOWS)[:, :-1]
    config, layers = subject.model.config, []
    everyone = [layer for layer in range(config.n_layer) if has_neurons(subject.model, layer)]
    at_once = max(1, MOST_NUMBERS // (windows.numel() * config.intermediate_size))
    for begin in range(0, len(everyone), at_once):
        for layer, values in activations(subject.model, windows, everyone[begin : begin + at_once]).items():
            layers.append(_of_layer(subject, values, windows, layer))
    return {"layers": layers, "tokens": windows.numel()}


def _of_layer(subject: Subject, values: Tensor, windows: Tensor, layer: int) -> dict[str, Any]:
    flat = values.flatten(0, 1)
    level = flat.square().mean().sqrt()
    ratios = selectivity(values)
    chosen = ratios.topk(min(SHOWN, values.size(-1))).indices.tolist()
    written = written_logits(subject.model, layer, chosen)
    return {
        "layer": layer,
        "units": values.size(-1),
        "dead": int((flat.abs().amax(dim=0) < DEAD * level).sum()),
        "mean_active": float((flat.abs() > level).float().mean()),
        "shown": [
            {
                "name": f"L{layer}N{unit}",
                "selectivity": float(ratios[unit]),
                "raises": subject.token_texts(logits.topk(6).indices),
                "lowers": subject.token_texts((-logits).topk(6).indices),
                "examples": [
                    example(subject, windows[row], position) | {"activation": value}
                    for row, position, value in strongest(values, unit, count=EXAMPLES)
                ],
            }
            for unit, logits in zip(chosen, written, strict=True)
        ],
    }


def example(subject: Subject, row: Tensor, position: int) -> dict[str, Any]:
    """The text around one token: what is before, the token, what follows."""
    texts = subject.token_texts(row[max(0, position - BEFORE) : position + AFTER + 1])
    at = min(position, BEFORE)
    return {"before": "".join(texts[:at]), "token": texts[at], "after": "".join(texts[at + 1 :])}
