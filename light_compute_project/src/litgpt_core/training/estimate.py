"""Mean loss of a model over a few batches: the textbook estimate, for experiments and notebooks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from litgpt_core.core.errors import DataError
from litgpt_core.model.gpt import GPT
from litgpt_core.model.loss import token_losses


@torch.no_grad()
def estimate_loss(model: GPT, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Cross-entropy in nats per token, averaged over all batches, without dropout. The model's mode is restored.

    Args:
        model: Any GPT.
        batches: `(inputs, targets)`, each (B, T), as `get_batch` returns them; they are moved to the model's device.

    Raises:
        DataError: There is no batch.
    """
    device = model.device
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    try:
        for inputs, targets in batches:
            hidden = model.hidden(inputs.to(device))  # (B, T, C)
            losses, counted = token_losses(hidden, model.head, targets.to(device))
            total, count = total + float(losses), count + int(counted)
    finally:
        model.train(was_training)
    if not count:
        raise DataError("no batch to estimate the loss from", needed="at least one", fix="get_batch(...) makes one")
    return total / count
