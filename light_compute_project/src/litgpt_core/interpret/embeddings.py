"""Token embeddings: nearest neighbours by cosine, and a map of the first two principal components.

Only tokens that occur take part: rows of rare tokens have hardly moved from their random start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.subject import Subject

TOKENS = 600
NEIGHBOURS = 8


def principal_components(rows: Tensor, *, count: int = 2) -> tuple[Tensor, Tensor]:
    """(N, C) -> coordinates (N, count) and each component's share of the variance, by eigenvectors."""
    centred = (rows - rows.mean(dim=0)).double()
    values, vectors = torch.linalg.eigh(centred.mT @ centred)
    order = values.argsort(descending=True)[:count]
    return (centred @ vectors[:, order]).float(), (values[order] / values.sum()).float()


def neighbours(rows: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """(N, C) -> numbers of the most similar other rows (N, count) and their cosines (N, count)."""
    unit = torch.nn.functional.normalize(rows, dim=-1)
    cosines = unit @ unit.mT
    cosines.fill_diagonal_(-2.0)
    best = cosines.topk(min(count, len(rows) - 1), dim=-1)
    return best.indices, best.values


@torch.no_grad()
def view(subject: Subject) -> dict[str, Any]:
    """The most frequent tokens (without counts: the first of the vocabulary) with place and neighbours."""
    embedding = subject.model.transformer.wte.weight.detach()
    vocabulary = subject.model.config.vocab_size
    if subject.counts is not None:
        counts = torch.from_numpy(subject.counts[:vocabulary])
        ids = counts.argsort(descending=True, stable=True)[:TOKENS]
        ids = ids[counts[ids] > 0]
    else:
        ids = torch.arange(min(vocabulary, TOKENS))
    rows = embedding[ids]
    places, variance = principal_components(rows)
    index, cosines = neighbours(rows, count=NEIGHBOURS)
    mean_cosine = float((torch.nn.functional.normalize(rows, dim=-1).mean(dim=0)).square().sum())
    return {
        "tokens": subject.token_texts(ids),
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "variance": variance.tolist(),
        "norms": rows.norm(dim=-1).tolist(),
        "neighbours": index.tolist(),
        "cosines": cosines.tolist(),
        "mean_cosine": mean_cosine,
        "chance_cosine": _random_best(len(rows), rows.size(1)),
    }


def _random_best(count: int, width: int) -> float:
    """The cosine of the nearest neighbour among as many random directions, on average."""
    rows = torch.randn(min(count, 400), width, generator=torch.Generator().manual_seed(0))
    return float(neighbours(rows, count=1)[1].mean())
