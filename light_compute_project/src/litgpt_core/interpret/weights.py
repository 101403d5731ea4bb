"""Weight matrices: singular values, effective rank, norms, and what rises above a random matrix.

effective rank   exp of the entropy of the singular values' shares (Roy & Vetterli 2007): k for k equal ones
stable rank      sum of squares / largest square
above random     singular values above the largest of a random matrix of the same shape and mean square,
                 sigma (sqrt m + sqrt n) (Marchenko & Pastur 1967), per full rank; about 0 before training
tail exponent    Hill's estimate over the upper half of the squared singular values (Martin & Mahoney 2021)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.subject import Subject
from litgpt_core.model.structure import structure

SHOWN = 64
"""Points of each spectrum in the report."""
LARGEST = 1500
"""Matrices whose smaller side is longer are left out: their spectrum takes seconds."""


def singular_values(weight: Tensor) -> Tensor:
    """(m, n) -> (min(m, n),) in descending order, float64, by the eigenvalues of the smaller Gram matrix."""
    wide = weight.detach().double()
    gram = wide @ wide.mT if wide.size(0) <= wide.size(1) else wide.mT @ wide
    eigenvalues: Tensor = torch.linalg.eigvalsh(gram)
    return eigenvalues.clamp(min=0).sqrt().flip(0)


def spectrum_facts(weight: Tensor) -> dict[str, Any]:
    """What the module's docstring lists, of one matrix."""
    values = singular_values(weight)
    m, n = weight.shape
    total = float(values.sum())
    if total == 0:
        return {"shape": [m, n], "norm": 0.0, "effective_rank": 0.0, "stable_rank": 0.0, "rank": 0, "above_random": 0,
                "tail": None, "largest": 0.0, "spectrum": [0.0]}  # fmt: skip
    shares = values[values > 0] / total
    squares = values.square()
    edge = float(squares.sum() / (m * n)) ** 0.5 * (math.sqrt(m) + math.sqrt(n))
    upper = squares[: max(2, len(squares) // 2)].clamp(min=1e-30)
    hill = float((upper / upper[-1]).log()[:-1].mean())
    step = max(1, len(values) // SHOWN)
    return {
        "shape": [m, n],
        "norm": float(squares.sum().sqrt()),
        "largest": float(values[0]),
        "effective_rank": float((-(shares * shares.log()).sum()).exp()),
        "stable_rank": float(squares.sum() / squares[0]),
        "rank": int((values > values[0] * max(m, n) * 1e-7).sum()),
        "above_random": int((values > edge).sum()),
        "tail": 1 + 1 / hill if hill > 0 else None,
        "spectrum": values[::step].tolist(),
    }


def view(subject: Subject) -> dict[str, Any]:
    """Every matrix of the blocks (queries, keys, values apart), the embeddings, and the gains of norms."""
    model = subject.model
    described = structure(model.config)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    matrices: list[dict[str, Any]] = []
    left_out: list[str] = []
    layers: dict[str, int | None] = {
        part.path(linear.name): part.index for part in described.layers for linear in part.linears
    }
    for path, linear in described.linears():
        if linear.expert is not None and linear.expert > 0:  # one expert stands for all
            continue
        weight = parameters[f"{path}.weight"]
        groups = linear.row_groups or (("", weight.size(0)),)
        for (purpose, _), rows in zip(groups, torch.split(weight, [size for _, size in groups]), strict=True):
            name = f"{path}.{purpose}" if purpose else path
            if min(rows.shape) > LARGEST:
                left_out.append(name)
                continue
            short = name.removeprefix(f"transformer.h.{layers.get(path)}.")
            matrices.append({"name": name, "layer": layers.get(path), "kind": short} | spectrum_facts(rows))
    gains = [
        {"name": layer.path(norm.name), "mean": float(gain.mean()), "spread": float(gain.std())}
        for layer in described.layers
        for norm in layer.norms
        if norm.weight
        for gain in [parameters[f"{layer.path(norm.name)}.weight"] + float(norm.unit_offset)]
    ]
    return {"matrices": matrices, "norm_gains": gains, "left_out": left_out}
