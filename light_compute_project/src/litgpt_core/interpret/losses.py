"""Loss of every token of a text: by position, by how frequent the token is, and as surprisal of a prompt.

Losses are in nats; surprisal is in bits. Standard errors are over windows of text, which are further apart than tokens.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.interpret.subject import Subject
from litgpt_core.model.gpt import GPT

BATCH_TOKENS = 2048
"""Tokens of a forward pass."""
HEAD_TOKENS = 128
"""Tokens whose logits are held at once. Those of 2,048 are written to memory and read again: 41 instead of 24 ms with
4,096 ids on 2 cores of an AMD EPYC.
"""
WINDOWS = 32
EARLY = slice(4, 16)
"""Positions whose loss is compared with that of the second half of the window, in the same windows."""


def logits_loss(logits: Tensor, targets: Tensor, *, vocab_size: int) -> Tensor:
    """(B, T, padded) and (B, T) -> (B, T) nats; padded columns of the vocabulary are cut."""
    flat = logits[..., :vocab_size].flatten(0, -2)
    return functional.cross_entropy(flat, targets.flatten(), reduction="none").view_as(targets)


@torch.no_grad()
def token_losses(model: GPT, windows: Tensor) -> Tensor:
    """(N, T + 1) ids -> (N, T) nats of each target."""
    rows = max(1, BATCH_TOKENS // windows.size(1))
    return torch.cat([hidden_losses(model, model.hidden(w[:, :-1]), w[:, 1:]) for w in torch.split(windows, rows)])


def hidden_losses(model: GPT, hidden: Tensor, targets: Tensor) -> Tensor:
    """The last norm's output (N, T, C) and (N, T) ids -> (N, T) nats of each target."""
    rows = torch.split(hidden.reshape(-1, hidden.size(-1)), HEAD_TOKENS)
    labels = torch.split(targets.reshape(-1), HEAD_TOKENS)
    parts = zip(rows, labels, strict=True)
    losses = [logits_loss(model.head(x), y, vocab_size=model.config.vocab_size) for x, y in parts]
    return torch.cat(losses).view_as(targets)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of (N,) and its standard error; the error of a single value is nan."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error


def surprisal(subject: Subject) -> dict[str, Any]:
    """Bits of each token of the prompt after the first, given those before it, and the model's entropy there."""
    ids = subject.prompt_ids()
    with torch.no_grad():
        log_probs = subject.model(ids)[0, :-1, : subject.model.config.vocab_size].log_softmax(dim=-1)
    bits = -log_probs.gather(1, ids[0, 1:, None])[:, 0] / math.log(2)
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1) / math.log(2)
    best = log_probs.argmax(dim=-1)
    return {
        "prompt": subject.token_texts(ids[0]),
        "bits": [None, *map(float, bits)],
        "entropy": [None, *map(float, entropy)],
        "expected": [None, *subject.token_texts(best)],
    }


def text_losses(subject: Subject) -> Tensor:
    """(N, T) nats of the targets of `WINDOWS` windows of held-out text, computed once."""
    if subject.losses is None:
        subject.losses = token_losses(subject.model, subject.some_windows(WINDOWS))
    return subject.losses


def by_position(subject: Subject) -> dict[str, Any]:
    """Loss by position in the window, in ranges of positions that double."""
    losses = text_losses(subject)  # (N, T)
    edges = [0]
    while edges[-1] < losses.size(1):
        edges.append(min(losses.size(1), max(1, 2 * edges[-1])))
    if len(edges) > 2 and edges[-1] - edges[-2] < edges[-2] // 4:  # a short last range joins the one before
        edges.pop(-2)
    ranges = []
    for begin, end in itertools.pairwise(edges):
        mean, error = mean_and_error(losses[:, begin:end].mean(dim=1))
        ranges.append({"begin": begin, "end": end, "loss": mean, "error": error})
    mean, error = mean_and_error(losses.mean(dim=1))
    early, late = losses[:, EARLY].mean(dim=1), losses[:, losses.size(1) // 2 :].mean(dim=1)
    gain, gain_error = mean_and_error(early - late)
    return {
        "ranges": ranges,
        "windows": len(losses),
        "tokens": losses.numel(),
        "loss": mean,
        "error": error,
        "gain": gain,
        "gain_error": gain_error,
    }


GROUPS = 10


def by_frequency(subject: Subject) -> dict[str, Any]:
    """Loss by how frequent the target is, in groups of equally many targets, the most frequent first.

    Frequencies are those of the training text where it is at hand, else of the held-out text.
    """
    assert subject.counts is not None
    windows = subject.some_windows(WINDOWS)
    losses, targets = text_losses(subject).flatten(), windows[:, 1:].flatten()
    counts = torch.from_numpy(subject.counts)
    share = counts[targets] / counts.sum()
    order = share.argsort(descending=True, stable=True)
    groups = []
    for part in order.chunk(GROUPS):
        mean, error = mean_and_error(losses[part])
        unigram = float(-(share[part].clamp(min=1 / float(counts.sum()))).log().mean())
        groups.append(
            {
                "most": float(share[part[0]]), "least": float(share[part[-1]]), "loss": mean, "error": error,
                "unigram": unigram, "tokens": len(part),
                "examples": list(dict.fromkeys(subject.token_texts(targets[part[:400:17]])))[:6],
            }
        )  # fmt: skip
    return {"groups": groups}
