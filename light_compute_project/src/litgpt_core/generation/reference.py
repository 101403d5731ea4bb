"""Reference implementation of generation, for tests: one full forward pass over the window per token, no KV cache."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from litgpt_core.generation.sampling import SamplingSettings, UniformRng, penalize, sample_reference
from litgpt_core.generation.text_window import window_start

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT


@torch.no_grad()
def generate_reference(
    model: GPT,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: SamplingSettings,
    seed: int = 0,
    stop_ids: Collection[int] = (),
    vocab_size: int | None = None,
) -> list[int]:
    """New ids after `prompt_ids`, without the stop id that ended them. The model must be in evaluation mode.

    `vocab_size` cuts off padding ids. Uses the same window and random numbers as `Engine.generate`.
    """
    device = model.device
    rng = UniformRng(seed)
    ids, start = list(prompt_ids), 0
    for _ in range(max_new_tokens):
        start = window_start(start, length=len(ids), block_size=model.config.block_size)
        logits = model(torch.tensor([ids[start:]], device=device))[0, -1, :vocab_size]
        logits = penalize(logits, sampling, prompt_ids=prompt_ids, new_ids=ids[len(prompt_ids) :])
        token = sample_reference(logits, sampling, uniform=rng.next())
        if token in stop_ids:
            break
        ids.append(token)
    return ids[len(prompt_ids) :]
