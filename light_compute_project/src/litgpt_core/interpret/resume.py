"""Run a part of a model: what comes before an edit need not be computed again, nor what comes after an activation.

The slow reference is a whole forward pass with an edit of the residual stream (`trace`); a test compares.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from litgpt_core.interpret.access import block_of
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.gpt import GPT
from litgpt_core.model.mask import build_masks
from litgpt_core.model.rope import RopeTable


class _Enough(Exception):
    """Ends a forward pass."""


def activation(model: GPT, ids: Tensor, name: str) -> Tensor:
    """One activation for (B, T) ids; nothing behind it is computed."""
    found: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        found.append(value)
        raise _Enough

    with contextlib.suppress(_Enough), trace(model, edit={name: keep}):
        model.hidden(ids)
    return found[0]


def hidden_from(model: GPT, residual: Tensor, layer: int) -> Tensor:
    """(B, T, C), what block `layer` reads -> (B, T, C), the last norm's output, as `GPT.hidden` makes it.

    With `layer` equal to n_layer the residual stream is that behind the last block.
    """
    transformer = model.transformer
    positions = torch.arange(residual.size(1), device=residual.device)
    masks = build_masks(model.config, positions)
    tables: list[RopeTable | None] = [None] if transformer.rope is None else [*transformer.rope(positions)]
    x = residual
    for number in range(layer, model.config.n_layer):
        mask = masks.windowed if transformer.windowed[number] else masks.full
        x = block_of(model, number)(x, tables[transformer.rope_indices[number]], mask)
    normed: Tensor = transformer.ln_f(x)
    return normed
