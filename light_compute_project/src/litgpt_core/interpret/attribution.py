"""Direct logit attribution: what each part of the model added to one logit, in logits. The parts sum to the logit.

    logit of token t at position p = W_U[t] . ln_f(residual stream) + b = sum over parts of W_U[t] . scale * part + b

With the last norm's scale frozen (`decompose`). `centred` subtracts the mean over the vocabulary from W_U first: a
constant added to all logits changes no probability, so it is nobody's merit. A soft-cap of the logits comes afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.access import mlp_projection
from litgpt_core.interpret.decompose import frozen_norm, neuron_outputs, traced_parts
from litgpt_core.interpret.subject import Subject
from litgpt_core.model.gpt import GPT

SHOWN_NEURONS = 5


def direction(model: GPT, token: int, *, against: int | None = None, centred: bool = False) -> tuple[Tensor, float]:
    """The vector (C,) whose product with the last norm's output is a logit, and the bias that is added.

    Args:
        model: Its head is read.
        token: Whose logit.
        against: Subtract this token's logit.
        centred: Subtract the mean logit over the vocabulary.
    """
    rows = slice(0, model.config.vocab_size)
    weight, bias = model.lm_head.weight.detach(), model.lm_head.bias
    vector = weight[token].clone()
    added = 0.0 if bias is None else float(bias[token])
    if against is not None:
        vector, added = vector - weight[against], added - (0.0 if bias is None else float(bias[against]))
    elif centred:
        vector, added = vector - weight[rows].mean(dim=0), added - (0.0 if bias is None else float(bias[rows].mean()))
    return vector, added


@torch.no_grad()
def attribute(
    model: GPT,
    parts: dict[str, Tensor],
    residual: Tensor,
    *,
    token: int,
    position: int,
    against: int | None = None,
    centred: bool = False,
) -> dict[str, float]:
    """Part -> what it added to a logit at one position of the first sequence; sums to the logit (before a soft-cap).

    Args:
        model: The model that was traced.
        parts: Of `residual_parts`.
        residual: (B, T, C), the last block's output.
        token, against, centred: As for `direction`.
        position: Where the logit is read.
    """
    linear, norm_bias = frozen_norm(model.transformer.ln_f, residual[0, position])
    vector, bias = direction(model, token, against=against, centred=centred)
    added = {name: float(linear(part[0, position]) @ vector) for name, part in parts.items()}
    if norm_bias is not None:
        added["last norm"] = float(norm_bias @ vector)
    if bias:
        added["head bias"] = bias
    return added


def view(subject: Subject) -> dict[str, Any]:
    """For the last token of the prompt: what decided the model's first choice, and against its second choice."""
    model, ids = subject.model, subject.prompt_ids()
    parts, seen = traced_parts(model, ids, last_only=True)
    logits = seen["logits"][0, -1, : model.config.vocab_size]
    first, second = (int(i) for i in logits.topk(2).indices)
    last = f"{model.config.n_layer - 1}.resid_post"
    centred = attribute(model, parts, seen[last], token=first, position=0, centred=True)
    difference = attribute(model, parts, seen[last], token=first, position=0, against=second)
    return {
        "prompt": subject.token_texts(ids[0]),
        "token": subject.token_text(first),
        "runner_up": subject.token_text(second),
        "logit": float(logits[first] - logits.mean()),
        "parts": centred,
        "against_runner_up": difference,
        "neurons": _neurons(subject, seen, first, last),
    }


def _neurons(subject: Subject, seen: dict[str, Tensor], token: int, last: str) -> list[dict[str, Any]]:
    """The hidden units with the largest effect on the logit at the last position, of all layers."""
    model = subject.model
    vector, _ = direction(model, token, centred=True)
    linear, _ = frozen_norm(model.transformer.ln_f, seen[last][0, -1])
    found: list[tuple[float, str]] = []
    for layer in range(model.config.n_layer):
        if f"{layer}.neurons" in seen:
            units = _strongest(model, layer, seen[f"{layer}.neurons"][0, -1], vector)
            written = neuron_outputs(model, layer, units, seen)
            found += [(float(linear(part[0, -1]) @ vector), name) for name, part in written.items()]
    found.sort(key=lambda pair: -abs(pair[0]))
    return [{"neuron": name, "added": value} for value, name in found[: 2 * SHOWN_NEURONS]]


def _strongest(model: GPT, layer: int, values: Tensor, vector: Tensor) -> list[int]:
    """Candidates: units with the largest product of activation and direct effect, norms left out."""
    effect = (vector @ mlp_projection(model, layer).weight.detach()) * values
    return [int(i) for i in effect.abs().topk(min(4 * SHOWN_NEURONS, len(effect))).indices]
