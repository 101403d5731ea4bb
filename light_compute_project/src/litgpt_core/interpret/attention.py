"""Attention weights of every head on the prompt, as bytes: 0 is none, 255 all of a query's attention."""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import trace

MOST_BYTES = 2_000_000
"""Weights that the report holds; a longer prompt is cut."""


def as_bytes(values: Tensor) -> dict[str, Any]:
    """Values from 0 to 1 of any shape as base64 of uint8."""
    data = (values.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    return {"base64": base64.b64encode(data.numpy().tobytes()).decode("ascii"), "shape": list(data.shape)}


@torch.no_grad()
def view(subject: Subject) -> dict[str, Any]:
    """(n_layer, nh, T, T) weights, and how spread each head's attention is."""
    config = subject.model.config
    longest = int((MOST_BYTES / (config.n_layer * config.n_head)) ** 0.5)
    ids = subject.prompt_ids()
    shown = ids[:, :longest]
    with trace(subject.model, ["*.pattern"]) as seen:
        subject.model.hidden(shown)
    weights = torch.stack([seen[f"{layer}.pattern"][0] for layer in range(config.n_layer)])  # (L, nh, T, T)
    entropy = -(weights * weights.clamp(min=1e-12).log2()).sum(dim=-1).mean(dim=-1)
    most = torch.arange(1, shown.size(1) + 1).log2().mean()
    return {
        "prompt": subject.token_texts(shown[0]),
        "cut_from": ids.size(1) if ids.size(1) > longest else None,
        "weights": as_bytes(weights),
        "entropy_bits": entropy.tolist(),
        "uniform_entropy_bits": float(most),
        "to_first": weights[:, :, 1:, 0].mean(dim=-1).tolist(),
    }
