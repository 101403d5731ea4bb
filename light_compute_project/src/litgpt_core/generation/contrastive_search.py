"""Contrastive search: probable tokens that differ from the context (Su et al. 2022, arXiv 2202.06417).

    candidates   the `top_k` most probable next tokens, each evaluated as a sequence of its own
    score        (1 - alpha) * probability - alpha * (maximum cosine similarity with the hidden states before it)

The hidden state is the input of the head. alpha 0 or top_k 1 is greedy decoding. It needs hidden states, so it always
runs on plain PyTorch, whatever decoder the engine uses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.sampling import check_finite
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
        max_new_tokens: At most this many. Prompt and new tokens must fit the context window.
        alpha: Weight of the degeneration penalty, from 0 to 1.
        top_k: Candidates at each step.
        stop_ids: Ids that end the sequence; None means the tokenizer's eos.

    Raises:
        ConfigError: Arguments out of range, or prompt and new tokens exceed the context window.
        CheckpointError: The model's logits are NaN or infinite.

    >>> len(contrastive_search(engine, engine.encode_prompt("def "), max_new_tokens=6, stop_ids=()))
    6
    """
    ids = list(prompt_ids) or engine.document_start()
    block_size = engine.model.config.block_size
    if not 0 <= alpha <= 1 or not 1 <= top_k <= engine.vocab_size or max_new_tokens < 0:
        raise ConfigError(
            f"alpha={alpha}, top_k={top_k}, max_new_tokens={max_new_tokens} is not a valid search.",
            needed=f"alpha from 0 to 1, top_k from 1 to {engine.vocab_size}, max_new_tokens of 0 or more",
        )
    if len(ids) + max_new_tokens > block_size:
        raise ConfigError(
            f"{len(ids)} prompt tokens and max_new_tokens={max_new_tokens} were given.",
            needed=f"together at most the context window of {block_size}",
        )
    stops = frozenset({engine.tokenizer.eos_id} if stop_ids is None else stop_ids)
    decoder = TorchDecoder(engine.model, kv_cache=engine.kv_cache)
    new: list[int] = []
    with engine.decoding(decoder):
        decoder.start(n_sequences=top_k, length=len(ids) + max_new_tokens)
        hidden = decoder.hidden(Feed(0, 0, ids))  # (T, C)
        decoder.reorder([0] * top_k, length=len(ids))
        logits = engine.model.head(hidden[-1:])[:, : engine.vocab_size]
        seen = functional.normalize(hidden.float(), dim=-1)
        for place in range(len(ids), len(ids) + max_new_tokens):
            probabilities, candidates = torch.softmax(check_finite(logits)[0], dim=-1).topk(top_k)
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
    """Index of the best candidate.

    Args:
        probabilities: (k,), by the model.
        states: (k, C), hidden states of the candidates.
        seen: (T, C), normalised hidden states of the context.
        alpha: Weight of the degeneration penalty.
    """
    similarity = (functional.normalize(states.float(), dim=-1) @ seen.T).amax(dim=-1)  # (k,)
    return int(((1 - alpha) * probabilities - alpha * similarity).argmax())
