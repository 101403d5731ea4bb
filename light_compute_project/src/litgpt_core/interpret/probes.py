"""Probes: can a property of the text be read from the residual stream by logistic regression, layer by layer?

A probe with many dimensions can learn arbitrary labels. Therefore each property has a control with the same share of
positives in which every token of the vocabulary has one fixed random label (Hewitt & Liang 2019), and the accuracy is
that on windows of text the probe has not seen. Selectivity is accuracy minus control accuracy; `majority` is the
accuracy of always saying the more frequent label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.lens import layer_names
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import trace

WINDOWS = 64
TOKENS = 4096
RAREST = 0.05
"""Properties that fewer (or all but fewer) tokens have are left out."""
PENALTY, CONVERGED = 1e-2, 1e-5
"""The penalty of a weight's square; a step of Newton's method below which there is no other."""

Label = Callable[[Sequence[str]], list[bool]]


def _own_capital(texts: Sequence[str]) -> list[bool]:
    return [text.strip()[:1].isupper() for text in texts]


def _previous_capital(texts: Sequence[str]) -> list[bool]:
    return [False, *_own_capital(texts)[:-1]]


def _next_space(texts: Sequence[str]) -> list[bool]:
    return [*(text[:1].isspace() for text in texts[1:]), False]


def _in_brackets(texts: Sequence[str]) -> list[bool]:
    found, depth = [], 0
    for text in texts:
        for letter in text:
            depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        found.append(depth > 0)
    return found


PROPERTIES: dict[str, Label] = {
    "begins with a capital": _own_capital,
    "the token before does": _previous_capital,
    "a space follows": _next_space,
    "inside brackets": _in_brackets,
}
"""Of the current token, of one before, of the one to come, and of everything so far."""


def fit(x: Tensor, y: Tensor, *, penalty: float = PENALTY, steps: int = 6) -> tuple[Tensor, Tensor]:
    """Logistic regression by Newton's method (iteratively reweighted least squares).

    Args:
        x: (N, C), standardised.
        y: (N,) of 0 and 1.
        penalty: Times the squared length of the weight, added to the mean loss.
        steps: Of Newton's method at most; each solves one (C + 1, C + 1) system.

    Returns:
        weight (C,) and bias ().
    """
    rows = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    ridge = torch.full((rows.size(1),), 2 * penalty * len(rows), dtype=torch.float64)
    ridge[-1] = 1e-3
    weight = torch.zeros(rows.size(1), dtype=torch.float64)
    for _ in range(steps):
        p = torch.sigmoid(rows @ weight.to(x.dtype))
        gradient = (rows.mT @ (p - y)).double() + ridge * weight
        hessian = (rows.mT @ (rows * (p * (1 - p)).clamp(min=1e-6)[:, None])).double() + torch.diag(ridge)
        step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(hessian))[:, 0]
        weight = weight - step
        if step.abs().max() < CONVERGED:
            break
    return weight[:-1].to(x.dtype), weight[-1].to(x.dtype)


def accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Share of right answers on `test` of a probe fitted on `train`; both (N, C) and (N,)."""
    mean, spread = train[0].mean(dim=0), train[0].std(dim=0).clamp(min=1e-6)
    weight, bias = fit((train[0] - mean) / spread, train[1])
    right = (((test[0] - mean) / spread) @ weight + bias > 0) == (test[1] > 0.5)
    return float(right.float().mean())


def control_labels(tokens: Tensor, *, vocab_size: int, share: float, seed: int) -> Tensor:
    """(N,) ids -> (N,) of 0 and 1: a fixed random label of each token, 1 for about `share` of the vocabulary."""
    return (torch.rand(vocab_size, generator=torch.Generator().manual_seed(seed)) < share).float()[tokens]


def view(subject: Subject) -> dict[str, Any]:
    """Accuracy, control and majority for every property and layer; half of the windows are held out."""
    length = min(64, subject.model.config.block_size)
    windows = subject.some_windows(WINDOWS)[:, :length]
    windows = windows[: max(4, TOKENS // length)]
    names = layer_names(subject.model)
    with torch.no_grad(), trace(subject.model, names) as seen:
        subject.model.hidden(windows)
    half = len(windows) // 2
    rows = []
    for number, (name, label) in enumerate(PROPERTIES.items()):
        y = torch.tensor([label(subject.token_texts(row)) for row in windows]).float()
        share = float(y.mean())
        if not RAREST < share < 1 - RAREST:
            continue
        control = control_labels(
            windows, vocab_size=subject.model.config.padded_vocab_size, share=share, seed=subject.seed + number
        )
        result: dict[str, Any] = {"property": name, "share": share, "accuracy": [], "control": []}
        for kind, labels in (("accuracy", y), ("control", control)):
            for layer in names:
                x = seen[layer]
                train = (x[:half].flatten(0, 1), labels[:half].flatten())
                test = (x[half:].flatten(0, 1), labels[half:].flatten())
                result[kind].append(accuracy(train, test))
        positive = float(y[half:].mean())
        result["majority"] = max(positive, 1 - positive)
        rows.append(result)
    layers = ["embedding", *(f"layer {n}" for n in range(len(names) - 1))]
    return {"layers": layers, "properties": rows, "train_tokens": half * length,
            "test_tokens": (len(windows) - half) * length}  # fmt: skip
