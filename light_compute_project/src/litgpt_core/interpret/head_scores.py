"""What do heads attend to: the previous token, the same token before, what followed it, or the first token.

On random tokens that repeat, no text can be predicted but by looking back (Olsson et al. 2022, "In-context Learning and
Induction Heads"). Token t of a sequence with period P, t >= P, equals token t - P. Of a head's attention weights:

    previous    from t to t - 1                    all t >= 1
    duplicate   from t to t - P                    t >= P
    induction   from t to t - P + 1                t >= P: what followed the token the last time
    sink        from t to 0                        all t >= 1

Each sequence has a period of its own: with a fixed one, learned positions alone solve the task. `chance` is what a head
scores that looks at all tokens alike; `control` is the best score of all heads for a random other offset, drawn per
sequence, so what the best of so many heads reaches without a reason.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.losses import hidden_losses, mean_and_error
from litgpt_core.interpret.subject import Subject
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.gpt import GPT

SEQUENCES = 16
LENGTH = 96
KINDS = ("previous", "duplicate", "induction", "sink")


def repeated_tokens(
    vocabulary: Tensor, *, sequences: int, length: int, seed: int, periods: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Random tokens that repeat.

    Args:
        vocabulary: (K,) ids to take.
        sequences: N.
        length: T, at least 8.
        seed: Of everything random.
        periods: Smallest and largest period; None: T / 6 to T / 2.

    Returns:
        ids (N, T) and periods (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = periods or (max(3, length // 6), length // 2)
    drawn = torch.randint(low, high + 1, (sequences,), generator=generator)
    if len(vocabulary) >= high:  # no token twice within a period
        chosen = torch.rand(sequences, len(vocabulary), generator=generator).topk(high, dim=-1).indices
    else:
        chosen = torch.randint(len(vocabulary), (sequences, high), generator=generator)
    base = vocabulary[chosen]
    index = torch.arange(length) % drawn[:, None]
    return base.gather(1, index), drawn


def offset_scores(pattern: Tensor, offsets: Tensor, starts: Tensor) -> Tensor:
    """Mean attention from t to t - offset over t >= start: (N, nh, T, T), (N,) and (N,) -> (N, nh)."""
    found = []
    for weights, offset, start in zip(pattern, offsets.tolist(), starts.tolist(), strict=True):
        diagonal = weights.diagonal(offset=-offset, dim1=-2, dim2=-1)  # (nh, T - offset): t = offset ..
        found.append(diagonal[:, max(0, start - offset) :].mean(dim=-1))
    return torch.stack(found)


@torch.no_grad()
def head_scores(model: GPT, ids: Tensor, periods: Tensor, *, seed: int = 0) -> dict[str, Any]:
    """Scores of every head by kind, (n_layer, nh) each, with standard errors over sequences, chance and control; and
    the losses (N, T - 1) of the tokens after the first, in nats.
    """
    with trace(model, ["*.pattern"]) as seen:
        hidden = model.hidden(ids)
    n, length = ids.shape
    ones = torch.ones(n, dtype=torch.int64)
    offsets = {"previous": (ones, ones), "duplicate": (periods, periods), "induction": (periods - 1, periods)}
    others = _other_offsets(periods, seed=seed)
    result: dict[str, Any] = {kind: {"scores": [], "errors": []} for kind in KINDS}
    control = []
    for layer in range(model.config.n_layer):
        pattern = seen[f"{layer}.pattern"]
        by_kind = {kind: offset_scores(pattern, *given) for kind, given in offsets.items()}
        by_kind["sink"] = pattern[:, :, 1:, 0].mean(dim=-1)
        control.append(offset_scores(pattern, others, periods).mean(dim=0))
        for kind, scores in by_kind.items():  # (N, nh)
            pairs = [mean_and_error(scores[:, head]) for head in range(scores.size(1))]
            result[kind]["scores"].append([mean for mean, _ in pairs])
            result[kind]["errors"].append([error for _, error in pairs])
    uniform = 1.0 / torch.arange(1, length + 1)
    late = torch.stack([uniform[int(period) :].mean() for period in periods]).mean()
    for kind in KINDS:
        result[kind]["chance"] = float(uniform[1:].mean() if kind in ("previous", "sink") else late)
    result["control"] = float(torch.stack(control).max())
    return result | {"losses": hidden_losses(model, hidden[:, :-1], ids[:, 1:])}


def repetition_gain(losses: Tensor, periods: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss (N,) of each sequence where its tokens come for the first time, and where they come again."""
    pairs = list(zip(losses, periods.tolist(), strict=True))
    first = torch.stack([row[: period - 1].mean() for row, period in pairs])
    return first, torch.stack([row[period:].mean() for row, period in pairs])  # its predecessor was seen before


def _other_offsets(periods: Tensor, *, seed: int) -> Tensor:
    """One offset per sequence that is neither 1, nor the period, nor one less."""
    generator = torch.Generator().manual_seed(seed + 1)
    spans = (periods - 3).clamp(min=1)  # offsets 2 .. period - 2
    return 2 + (torch.rand(len(periods), generator=generator) * spans).long()


def plain_tokens(subject: Subject) -> Tensor:
    """Ids that stand for text: those that occur in the counted text, else all but the special ones."""
    if subject.counts is not None and int((subject.counts > 0).sum()) >= 16:
        return torch.from_numpy(subject.counts > 0).nonzero()[:, 0]
    special = subject.tokenizer.special_ids()
    return torch.tensor([i for i in range(subject.model.config.vocab_size) if i not in special])


def view(subject: Subject) -> dict[str, Any]:
    """Scores of all heads, and whether the second time a random sequence comes is predicted better than the first."""
    length = min(subject.model.config.block_size, LENGTH)
    ids, periods = repeated_tokens(plain_tokens(subject), sequences=SEQUENCES, length=length, seed=subject.seed)
    result = head_scores(subject.model, ids, periods, seed=subject.seed)
    before, after = repetition_gain(result.pop("losses"), periods)
    gain, error = mean_and_error(before - after)
    return result | {
        "first_loss": float(before.mean()),
        "repeated_loss": float(after.mean()),
        "gain": gain,
        "gain_error": error,
        "sequences": len(ids),
        "length": length,
        "periods": [int(periods.min()), int(periods.max())],
        "trained_tokens": subject.trained_tokens,
    }
