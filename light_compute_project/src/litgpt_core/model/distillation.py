"""Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531): the loss of learning a teacher's distribution.

Of a token with the teacher's distribution p and the model's q, both softmax(logits / temperature):

    forward   KL(p || q)
    reverse   KL(q || p)                                        (MiniLLM, arXiv 2306.08543)
    jsd       (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2    (GKD, arXiv 2306.13649)
    loss      weight * temperature^2 * divergence + (1 - weight) * cross entropy of the text

As in `loss`: sums over the tokens that count, in float32, `chunk_size` tokens at a time if requested.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from litgpt_core.core.errors import ConfigError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.loss import summed_loss_of_logits
from litgpt_core.model.optional_settings import DistillSettings

HeadFunction = Callable[[Tensor], Tensor]
"""(N, C) -> (N, V), as `GPT.head`."""


def forward_kl(ours: Tensor, source: Tensor) -> Tensor:
    """(..., V) log probabilities of both -> (...,) KL(source || ours)."""
    return (source.exp() * (source - ours)).sum(-1)


def reverse_kl(ours: Tensor, source: Tensor) -> Tensor:
    """(..., V) -> (...,) KL(ours || source)."""
    return (ours.exp() * (ours - source)).sum(-1)


def jensen_shannon(ours: Tensor, source: Tensor) -> Tensor:
    """(..., V) -> (...,) Jensen-Shannon divergence."""
    middle = torch.logaddexp(ours, source) - math.log(2)
    return (forward_kl(middle, source) + forward_kl(middle, ours)) / 2


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward": forward_kl,
    "reverse": reverse_kl,
    "jsd": jensen_shannon,
}


def distillation_loss(
    hidden: Tensor,
    head: HeadFunction,
    source: Tensor,
    source_head: HeadFunction,
    targets: Tensor,
    *,
    settings: DistillSettings,
    vocab_size: int,
    chunk_size: int = 0,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    count: Tensor | None = None,
) -> Tensor:
    """Mean loss over the tokens that count, in nats.

    Args:
        hidden: (B, T, C), the model's output before its head.
        head: The model's.
        source: (B, T, C'), the teacher's, without gradients.
        source_head: The teacher's.
        targets: (B, T) int64; -100 does not count.
        settings: Kind, weight, temperature.
        vocab_size: Columns of the logits that are compared: the padding of the two models may differ.
        chunk_size, z_loss, label_smoothing, count: As in `loss.cross_entropy`, for the cross entropy.

    Returns:
        A scalar in float32.
    """

    def part(rows: Tensor, theirs: Tensor, labels: Tensor) -> Tensor:
        logits = head(rows)
        with torch.no_grad():
            their_logits = source_head(theirs)
        with torch.autocast(device_type=rows.device.type, enabled=False):
            counts = (labels != -100).float()
            ours, wanted = (
                (each[:, :vocab_size].float() / settings.temperature).log_softmax(-1) for each in (logits, their_logits)
            )
            divergence = (DIVERGENCES[settings.loss](ours, wanted) * counts).sum() * settings.temperature**2
        if settings.weight == 1:
            return divergence
        text = summed_loss_of_logits(logits, labels, z_loss=z_loss, label_smoothing=label_smoothing)
        return settings.weight * divergence + (1 - settings.weight) * text

    rows = (hidden.reshape(-1, hidden.size(-1)), source.reshape(-1, source.size(-1)), targets.reshape(-1))
    total = hidden.new_zeros((), dtype=torch.float32)
    for chunk in zip(*(torch.split(each, chunk_size or len(each)) for each in rows), strict=True):
        if chunk_size and torch.is_grad_enabled():
            total = total + checkpoint(part, *chunk, use_reentrant=False, preserve_rng_state=False)
        else:
            total = total + part(*chunk)
    return total / ((targets != -100).sum().clamp(min=1) if count is None else count)


def check_teacher(config: GPTConfig, teacher: GPTConfig) -> None:
    """Raise ConfigError unless both models have the same number of tokens, and the teacher reads as long a context."""
    if config.vocab_size != teacher.vocab_size:
        raise ConfigError(
            f"The model has {config.vocab_size} tokens, its teacher {teacher.vocab_size}.",
            needed="one tokenizer: distributions over other tokens cannot be compared",
            fix="a teacher with the model's tokenizer",
        )
    if config.block_size > teacher.block_size:
        raise ConfigError(
            f"The model reads {config.block_size} tokens, its teacher {teacher.block_size}.",
            needed="a teacher with at least the model's block_size",
            fix=f"model.block_size={teacher.block_size}",
        )
