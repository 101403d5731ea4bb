"""What did the model look at when it wrote one token of an answer? Attention from that token's place to all before it.

    prompt ids       answer ids           the token at `position` of the answer was predicted at the place before it,
    p p p p p p      a a [a] a            so the attention weights of that place are shown, over the T ids up to it

    layers           (L, T) mean over the heads of each layer; every row sums to 1
    average          (T,)   mean over the layers
    rollout          (T,)   Abnar & Zuidema (2020): each layer as (attention + identity) / 2, multiplied from the last
                            to the first, which follows attention through the tokens in between

Attention says where heads read, not what they did with it; patching and attribution say that.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.text_window import TextWindow
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.gpt import GPT

MOST_TOKENS = 512
"""Of the prompt and the answer; of longer ones the beginning is left out, which then is not seen either."""
DIGITS = 4


@torch.no_grad()
def looked_at(model: GPT, prompt_ids: Sequence[int], answer_ids: Sequence[int], *, position: int) -> dict[str, Any]:
    """Attention behind one token of an answer, as plain values for JSON.

    Args:
        model: Not its compiled form, and not one that another thread is using: for that, `own_modules` of it.
        prompt_ids: What the answer continues; at least one id.
        answer_ids: The answer so far, or all of it.
        position: Of the token in the answer, from 0.

    Returns:
        `position`; `first`, the number of ids of prompt and answer that were left out at the beginning (by the model's
        window, as in generation, or by `MOST_TOKENS`); `ids` (T,) from there on; `layers` (L, T), `average` (T,) and
        `rollout` (T,), rounded to `DIGITS` digits.

    Raises:
        ConfigError: There is no such position, the prompt is empty, or an id is none of the model's.
    """
    _check(model, prompt_ids, answer_ids, position=position)
    first, ids = _seen(prompt_ids, answer_ids[:position], block_size=model.config.block_size)
    weights = mean_patterns(model, torch.tensor([ids], device=model.device))  # (L, T, T)
    layers = weights[:, -1]
    return {
        "position": position,
        "first": first,
        "ids": ids,
        "layers": [_rounded(row) for row in layers],
        "average": _rounded(layers.mean(dim=0)),
        "rollout": _rounded(rollout(weights)),
    }


def mean_patterns(model: GPT, ids: Tensor) -> Tensor:
    """(1, T) ids -> (L, T, T) attention weights, mean over heads, float32 on the CPU; one layer's heads at a time."""
    found: dict[int, Tensor] = {}

    def keep(layer: int, pattern: Tensor) -> Tensor:
        found[layer] = pattern[0].float().mean(dim=0).cpu()
        return pattern

    edits = {f"{layer}.pattern": partial(keep, layer) for layer in range(model.config.n_layer)}
    with torch.no_grad(), trace(model, edit=edits):
        model.hidden(ids)
    return torch.stack([found[layer] for layer in range(model.config.n_layer)])


def rollout(weights: Tensor) -> Tensor:
    """(L, T, T) attention weights -> (T,) shares of the last token's place that come from each token; sums to 1."""
    row = torch.zeros(weights.size(-1), dtype=weights.dtype)
    row[-1] = 1.0
    for layer in weights.flip(0):
        row = (row + row @ layer) / 2
    return row


def own_modules(model: GPT) -> GPT:
    """A second model of the same tensors, whose modules can be hooked while another thread runs the first.

    Make it before that thread begins.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    copied.clear_kv_cache()
    return copied.eval()


def _check(model: GPT, prompt_ids: Sequence[int], answer_ids: Sequence[int], *, position: int) -> None:
    if not prompt_ids:
        raise ConfigError("an empty prompt", needed="at least one token before the answer", fix="the prompt's ids")
    if not 0 <= position < len(answer_ids):
        raise ConfigError(
            f"position {position} of an answer of {len(answer_ids)} tokens",
            needed=f"a position from 0 to {len(answer_ids) - 1}" if answer_ids else "an answer of at least one token",
            fix="position 0",
        )
    size = model.config.vocab_size
    for token in (*prompt_ids, *answer_ids):
        if not 0 <= token < size:
            raise ConfigError(
                f"token id {token:,}: the model has none such",
                needed=f"ids from 0 to {size - 1:,}",
                fix="ids of the model's own tokenizer",
            )


def _seen(prompt_ids: Sequence[int], before: Sequence[int], *, block_size: int) -> tuple[int, list[int]]:
    """How many ids are left out, as generation moves its window, and the ids that the token was predicted from."""
    window = TextWindow(ids=list(prompt_ids), block_size=block_size)
    window.next_feed(0)
    for token in before:
        window.ids.append(token)
        window.next_feed(0)
    first = max(window.start, len(window.ids) - MOST_TOKENS)
    return first, window.ids[first:]


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), DIGITS) for value in values]
