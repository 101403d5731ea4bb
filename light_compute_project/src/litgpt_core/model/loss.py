"""Next-token loss: one number for training, a sum and a count for evaluation.

    hidden (B, T, C) --head--> logits (N, V), N = B * T  -->  loss, fp32 under any autocast

With a vocabulary of 50,000, the logits are by far the largest tensor of a step. `chunk_size` tokens at a time, each
chunk's logits are thrown away after the forward pass and computed again in the backward pass: memory for chunk_size * V
numbers instead of N * V, at the price of one more product with the head. Not here: the shift by one, which the data set
does.

Per token with logits z, target t and V columns (the padded vocabulary):

    nll        = logsumexp(z) - z[t]
    smoothed   = (1 - label_smoothing) * nll + label_smoothing * (logsumexp(z) - mean(z))       as in torch
    loss       = mean over counted tokens of smoothed + z_loss * logsumexp(z)^2                  PaLM, section 5

Where not every token counts, a step's loss is their sum over the global batch divided by their number in it, not
a mean of micro-batches' means: `cross_entropy(count=...)` takes that number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

Head = Tensor | Callable[[Tensor], Tensor]
"""The head's weight (V, C), or a function (N, C) -> (N, V) such as `GPT.head`, which knows biases and soft-caps."""


def cross_entropy(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    chunk_size: int = 0,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    count: Tensor | None = None,
) -> Tensor:
    """Mean loss over the tokens that count, in nats.

    Args:
        hidden: (B, T, C) or (N, C), the model's output before the head.
        head: Weight (V, C) or function (N, C) -> (N, V).
        targets: (B, T) or (N,) int64.
        ignore_index: Target of tokens that do not count.
        chunk_size: Tokens whose logits are held at once; 0 holds all of them, which is faster and right for small
            vocabularies.
        z_loss: Weight of the squared log-partition, which keeps logits from drifting; 1e-4 in PaLM.
        label_smoothing: Share of the target's probability that is spread over all columns, in [0, 1).
        count: What the sum of the losses is divided by, a scalar; None: the number of tokens that count here.

    Returns:
        A scalar, fp32 (fp64 if the logits are). If no token counts it is 0 and its gradients are 0.
    """
    if chunk_size < 0 or z_loss < 0.0 or not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"bad loss settings: {chunk_size=} {z_loss=} {label_smoothing=}")
    total: Tensor | None = None
    for rows, labels in _chunks(hidden, targets, chunk_size):
        arguments = (rows, head, labels, ignore_index, z_loss, label_smoothing)
        if chunk_size and torch.is_grad_enabled():
            part: Tensor = checkpoint(_summed_loss, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            part = _summed_loss(*arguments)
        total = part if total is None else total + part
    assert total is not None
    return total / (targets != ignore_index).sum().clamp(min=1) if count is None else total / count


@torch.no_grad()
def token_losses(
    hidden: Tensor, head: Head, targets: Tensor, *, ignore_index: int = -100, chunk_size: int = 0
) -> tuple[Tensor, Tensor]:
    """Sum of the losses in nats and number of the tokens that count: two fp32 scalars, to be added up over batches and
    ranks.

    The arguments are those of `cross_entropy`; no smoothing, no z-loss, no gradient.
    """
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for rows, labels in _chunks(hidden, targets, chunk_size):
        total = total + _summed_loss(rows, head, labels, ignore_index, 0.0, 0.0).float()
    return total, (targets != ignore_index).sum().float()


def _chunks(hidden: Tensor, targets: Tensor, chunk_size: int) -> list[tuple[Tensor, Tensor]]:
    """A list and not a generator, which torch.compile cannot follow around a checkpoint."""
    rows, labels = hidden.reshape(-1, hidden.size(-1)), targets.reshape(-1)
    if not chunk_size:
        return [(rows, labels)]
    return list(zip(torch.split(rows, chunk_size), torch.split(labels, chunk_size), strict=True))


def _summed_loss(
    rows: Tensor, head: Head, targets: Tensor, ignore_index: int, z_loss: float, label_smoothing: float
) -> Tensor:
    """(N, C) and (N,) -> the sum over counted tokens, a scalar."""
    logits = functional.linear(rows, head) if isinstance(head, Tensor) else head(rows)  # (N, V)
    return summed_loss_of_logits(
        logits, targets, ignore_index=ignore_index, z_loss=z_loss, label_smoothing=label_smoothing
    )


def summed_loss_of_logits(
    logits: Tensor, targets: Tensor, *, ignore_index: int = -100, z_loss: float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """(N, V) and (N,) -> the sum over counted tokens, a scalar; the arguments are those of `cross_entropy`."""
    with torch.autocast(device_type=logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = functional.cross_entropy(
            logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="sum"
        )
        if z_loss:
            log_partition = logits.logsumexp(dim=-1).masked_fill(targets == ignore_index, 0.0)
            loss = loss + z_loss * log_partition.square().sum()
    return loss
