"""Likely, but unlike what stands there already: contrastive search (Su et al. 2022, arXiv 2202.06417).

    candidates   the `top_k` likeliest next tokens, each tried as a sequence of its own
    score        (1 - alpha) * probability - alpha * (the candidate's largest cosine with any hidden state before it)

The hidden state is what the head reads. alpha 0 or top_k 1 is greedy decoding. It needs hidden states, so it runs on
plain PyTorch, whatever the engine decodes with.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.sampling import finite
from litgpt_core.generation.torch_decoder import TorchDecoder

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine


@torch.no_grad()
def contrastive_search(
    engine: Engine,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    alpha: float = 0.6,
    top_k: int = 4,
    stop_ids: Collection[int] | None = None,
) -> list[int]:
    """New ids, without the stop id that ended them.

    Args:
        engine: Model and tokenizer.
        prompt_ids: Ids to continue; empty means the start of a document.
        max_new_tokens: At most this many. Prompt and text together must fit the model's window.
        alpha: Weight of being different, from 0 to 1.
        top_k: Candidates at each step.
        stop_ids: Ids that end the text; None means the tokenizer's eos.

    Raises:
        ConfigError: Numbers that make no search, or a text that would outgrow the window.
        CheckpointError: The model answers NaN.

    >>> len(contrastive_search(engine, engine.encode_prompt("def "), max_new_tokens=6, stop_ids=()))
    6
    """
    ids = list(prompt_ids) or engine.document_start()
    block_size = engine.model.config.block_size
    if not 0 <= alpha <= 1 or not 1 <= top_k <= engine.vocab_size or max_new_tokens < 0:
        raise ConfigError(
            f"alpha={alpha}, top_k={top_k}, max_new_tokens={max_new_tokens} make no search.",
            needed=f"alpha from 0 to 1, top_k from 1 to {engine.vocab_size}, max_new_tokens of 0 or more",
        )
    if len(ids) + max_new_tokens > block_size:
        raise ConfigError(
            f"{len(ids)} prompt tokens and max_new_tokens={max_new_tokens} were given.",
            needed=f"together at most the model's window of {block_size}",
        )
    stops = frozenset({engine.tokenizer.eos_id} if stop_ids is None else stop_ids)
    decoder = TorchDecoder(engine.model)
    new: list[int] = []
    with engine.writing(decoder):
        decoder.start(n_sequences=top_k, length=len(ids) + max_new_tokens)
        hidden = decoder.hidden(Feed(0, 0, ids))  # (T, C)
        decoder.reorder([0] * top_k, length=len(ids))
        logits = engine.model.head(hidden[-1:])[:, : engine.vocab_size]
        seen = functional.normalize(hidden.float(), dim=-1)
        for place in range(len(ids), len(ids) + max_new_tokens):
            probabilities, candidates = torch.softmax(finite(logits)[0], dim=-1).topk(top_k)
            feeds = [Feed(row, place, [token]) for row, token in enumerate(candidates.tolist())]
            states = decoder.step_hidden(feeds)  # (k, C)
            chosen = choose(probabilities, states, seen, alpha=alpha)
            token = int(candidates[chosen])
            if token in stops:
                break
            new.append(token)
            decoder.reorder([chosen] * top_k, length=place + 1)
            seen = torch.cat((seen, functional.normalize(states[chosen : chosen + 1].float(), dim=-1)))
            logits = engine.model.head(states[chosen : chosen + 1])[:, : engine.vocab_size]
    return new


def choose(probabilities: Tensor, states: Tensor, seen: Tensor, *, alpha: float) -> int:
    """Which candidate is best.

    Args:
        probabilities: (k,), the model's.
        states: (k, C), hidden states of the candidates.
        seen: (T, C), those before, of length 1.
        alpha: Weight of being different.
    """
    likeness = (functional.normalize(states.float(), dim=-1) @ seen.T).amax(dim=-1)  # (k,)
    return int(((1 - alpha) * probabilities - alpha * likeness).argmax())
