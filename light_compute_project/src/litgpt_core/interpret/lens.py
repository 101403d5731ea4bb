"""Logit lens (nostalgebraist 2020): the last norm and the head applied to the residual stream of every layer.

At the last layer this is the model's own prediction; before, it shows when a prediction forms. The padded columns of
the vocabulary are cut before any softmax.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.gpt import GPT

TOP = 5
MOST_LOGITS = 200_000_000
"""That are computed for all layers together."""
MOST_CELLS = 6000
"""Of the grid in the report; of a longer prompt the end is shown."""


def read_out(model: GPT, residual: Tensor) -> Tensor:
    """(..., C) residual stream -> (..., vocab_size) logits, as the model makes them of its last layer's."""
    return model.head(model.transformer.ln_f(residual))[..., : model.config.vocab_size]


def layer_names(model: GPT) -> list[str]:
    """The residual streams in order: what block 0 reads, then every block's output."""
    return ["embed", *(f"{layer}.resid_post" for layer in range(model.config.n_layer))]


@torch.no_grad()
def lens_log_probs(model: GPT, ids: Tensor) -> list[Tensor]:
    """Log probabilities (B, T, vocab_size) at the embedding and after every block: n_layer + 1 of them."""
    names = layer_names(model)
    with trace(model, names) as seen:
        model.hidden(ids)
    return [read_out(model, seen[name]).log_softmax(dim=-1) for name in names]


def divergence(final: Tensor, other: Tensor) -> Tensor:
    """KL(final || other) in nats, of log probabilities (..., V) -> (...)."""
    return (final.exp() * (final - other)).sum(dim=-1)


class Prediction:
    """The model's own prediction, which others are compared with: `divergence` with two passes over the logits instead
    of six, since KL(p || q) = sum p log p - sum p z + logsumexp z for logits z of q.

    Args:
        logits: (N, V)
    """

    def __init__(self, logits: Tensor) -> None:
        log_probs = logits.log_softmax(dim=-1)
        self.probabilities = log_probs.exp()
        self.negative_entropy = torch.linalg.vecdot(self.probabilities, log_probs)

    def divergence(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """KL(prediction || softmax of logits (N, V)) in nats, (N,), and the logits' logsumexp (N,)."""
        total = logits.logsumexp(dim=-1)
        found = self.negative_entropy - torch.linalg.vecdot(self.probabilities, logits) + total
        return found.clamp(min=0), total


@torch.no_grad()
def view(subject: Subject) -> dict[str, Any]:
    """The prompt, layer by layer: most probable tokens and divergence from the end; and the loss on held-out text."""
    model, ids = subject.model, subject.prompt_ids()
    names = layer_names(model)
    shown = ids[0, -max(8, MOST_CELLS // len(names)) :]
    with trace(model, names) as seen:
        model.hidden(ids)
    residuals = [seen[name][0, -len(shown) :] for name in names]
    final = read_out(model, residuals[-1]).log_softmax(dim=-1)
    following = torch.cat([shown[1:], shown.new_tensor([-1])])
    grid, divergences = [], []
    for residual in residuals:
        log_probs = read_out(model, residual).log_softmax(dim=-1)  # (T, V), one layer at a time
        divergences.append(float(divergence(final, log_probs).mean()))
        grid.append(_row_of_grid(subject, log_probs, following))
    result: dict[str, Any] = {
        "prompt": subject.token_texts(shown),
        "cut_from": ids.size(1) if ids.size(1) > len(shown) else None,
        "layers": ["embedding", *(f"layer {n}" for n in range(model.config.n_layer))],
        "grid": grid,
        "divergence": divergences,
    }
    if subject.windows is not None:
        losses, divergences, tokens = on_text(model, subject.some_windows(8))
        result |= {"text_loss": losses, "text_divergence": divergences, "text_tokens": tokens}
    return result


def _row_of_grid(subject: Subject, log_probs: Tensor, following: Tensor) -> dict[str, Any]:
    best = log_probs.topk(TOP, dim=-1)
    rank = (log_probs > log_probs.gather(1, following.clamp(min=0)[:, None])).sum(dim=-1) + 1
    return {
        "tokens": [subject.token_texts(row) for row in best.indices],
        "probabilities": [[round(float(p), 4) for p in row.exp()] for row in best.values],
        "rank_of_next": [int(r) if n >= 0 else None for r, n in zip(rank, following, strict=True)],
    }


@torch.no_grad()
def on_text(model: GPT, windows: Tensor) -> tuple[list[float], list[float], int]:
    """Loss of every layer's prediction and its divergence from the final one, in nats, over (N, T + 1) ids; and over
    how many tokens: not all where layers and vocabulary are many.
    """
    names = layer_names(model)
    with trace(model, names) as seen:
        model.hidden(windows[:, :-1])
    stride = -(-windows[:, 1:].numel() * len(names) * model.config.vocab_size // MOST_LOGITS)
    residuals = {name: seen[name].flatten(0, 1)[::stride] for name in names}
    targets = windows[:, 1:].flatten()[::stride, None]
    prediction = Prediction(read_out(model, residuals[names[-1]]))
    losses, divergences = [], []
    for name in names:
        logits = read_out(model, residuals[name])
        far, total = prediction.divergence(logits)
        losses.append(float((total - logits.gather(-1, targets)[:, 0]).mean()))
        divergences.append(float(far.mean()))
    return losses, divergences, int(targets.numel())
