"""Run a model from one of its layers on: what comes before an edit need not be computed again.

The slow reference is a whole forward pass with an edit of the residual stream (`trace`); a test compares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from litgpt_core.interpret.access import block_of
from litgpt_core.model.gpt import GPT
from litgpt_core.model.mask import build_masks
from litgpt_core.model.rope import RopeTable


def hidden_from(model: GPT, residual: Tensor, layer: int) -> Tensor:
    """(B, T, C), what block `layer` reads -> (B, T, C), the last norm's output, as `GPT.hidden` makes it."""
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
