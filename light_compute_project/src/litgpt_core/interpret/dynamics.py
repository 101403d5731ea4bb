"""The same measurements over the checkpoints of a run: when did what form?

loss          of some held-out text, nats per token
head scores   of every head, by kind (`head_scores`), on the same repeated tokens at every step
lens          divergence of every layer's prediction from the last one's
ranks         effective rank of the matrices, mean by kind
"""

from __future__ import annotations

from typing import Any

import torch

from litgpt_core.checkpoint.load import load_model
from litgpt_core.interpret.head_scores import KINDS, head_scores, plain_tokens, repeated_tokens, repetition_gain
from litgpt_core.interpret.lens import on_text
from litgpt_core.interpret.losses import token_losses
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.weights import singular_values
from litgpt_core.model.gpt import GPT
from litgpt_core.model.structure import structure

MOST = 12
"""Checkpoints that are read: the first, the last, and others spread evenly."""
WINDOWS, SEQUENCES, LENGTH = 8, 8, 64


def view(subject: Subject) -> dict[str, Any]:
    """Curves over the run's checkpoints, oldest first."""
    count = min(MOST, len(subject.checkpoints))
    index = sorted({round(i * (len(subject.checkpoints) - 1) / max(1, count - 1)) for i in range(count)})
    chosen = [subject.checkpoints[i] for i in index]
    length = min(subject.model.config.block_size, LENGTH)
    ids, periods = repeated_tokens(plain_tokens(subject), sequences=SEQUENCES, length=length, seed=subject.seed)
    windows = None if subject.windows is None else subject.some_windows(WINDOWS)
    result: dict[str, Any] = {"steps": [], "loss": [], "lens": [], "ranks": {}, "heads": {kind: [] for kind in KINDS},
                              "repeated_loss": [], "first_loss": []}  # fmt: skip
    for step, directory in chosen:
        model = load_model(directory, dtype=torch.float32, dequantize=True).requires_grad_(False)
        scores = head_scores(model, ids, periods, seed=subject.seed)
        result["steps"].append(step)
        for kind in KINDS:
            result["heads"][kind].append(scores[kind]["scores"])
        result["chance"] = {kind: scores[kind]["chance"] for kind in KINDS}
        result["control"] = scores["control"]
        first, second = repetition_gain(scores["losses"], periods)
        result["first_loss"].append(float(first.mean()))
        result["repeated_loss"].append(float(second.mean()))
        if windows is not None:
            result["loss"].append(float(token_losses(model, windows).mean()))
            result["lens"].append(on_text(model, windows[:2])[1])
        for kind, rank in _ranks(model).items():
            result["ranks"].setdefault(kind, []).append(rank)
    return result


def _ranks(model: GPT) -> dict[str, float]:
    """Kind of matrix -> mean effective rank over layers."""
    parameters = dict(model.named_parameters())
    found: dict[str, list[float]] = {}
    for layer in structure(model.config).layers:
        for linear in layer.linears:
            if linear.expert is None:
                values = singular_values(parameters[f"{layer.path(linear.name)}.weight"])
                shares = values[values > 0] / values.sum()
                rank = float((-(shares * shares.log()).sum()).exp()) if len(shares) else 0.0
                found.setdefault(linear.name, []).append(rank)
    return {kind: sum(ranks) / len(ranks) for kind, ranks in found.items()}
