"""Token after token from a model, as `litgpt_core.generation.Engine` does it: equal seeds give equal texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from litgpt_core.pure.gpt import GPT
from litgpt_core.pure.rng import Rng
from litgpt_core.pure.sampling import Sampling, penalize, sample


def generate(
    model: GPT,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    vocab_size: int,
    how: Sampling,
    seed: int | None,
    stop_ids: Collection[int] = (),
) -> Iterator[int]:
    """New ids, up to a stop id, which is not among them.

    Where a text outgrows the model's window, the model forgets all but the last half of it and goes on.

    Args:
        model: Forgets what it has read before.
        prompt_ids: At least one.
        max_new_tokens: At most so many.
        vocab_size: Ids below it may be drawn: those of the tokenizer, without the model's padding.
        how: How tokens are drawn.
        seed: None for another text each time.
        stop_ids: Ids that end the text.
    """
    ids, rng = list(prompt_ids), Rng(seed)
    start, block_size = 0, model.config.block_size
    model.clear()
    for _ in range(max_new_tokens):
        if len(ids) - start > block_size:
            start = len(ids) - max(1, block_size // 2)
            model.clear()
        logits: Sequence[float] = model.logits(ids[start + model.length :])[:vocab_size]
        logits = penalize(logits, how, prompt_ids=prompt_ids, new_ids=ids[len(prompt_ids) :])
        token = sample(logits, how, uniform=rng.random())
        if token in stop_ids:
            return
        ids.append(token)
        yield token
