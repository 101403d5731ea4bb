"""Beam search and contrastive search from text to text: `generate.py --num_beams`, `--contrastive_alpha`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from litgpt_core.generation.beam_search import beam_search
from litgpt_core.generation.contrastive_search import contrastive_search
from litgpt_core.generation.stream import text_after

if TYPE_CHECKING:
    from litgpt_core.generation.engine import Engine


def searched_texts(
    engine: Engine,
    prompt: str,
    *,
    max_new_tokens: int,
    stop_ids: Collection[int] | None = None,
    beams: int = 1,
    length_penalty: float = 1.0,
    results: int = 1,
    contrastive_alpha: float | None = None,
    top_k: int = 4,
) -> Iterator[tuple[str, str]]:
    """(text after the prompt, a summary line), best first: contrastive search if alpha is given, else beam search.

    Arguments and errors are those of `beam_search` and `contrastive_search`.
    """
    ids = engine.encode_prompt(prompt)
    if contrastive_alpha is not None:
        new = contrastive_search(
            engine, ids, max_new_tokens=max_new_tokens, alpha=contrastive_alpha, top_k=top_k, stop_ids=stop_ids
        )
        yield text_after(engine.tokenizer, ids, new), f"{len(new)} tokens by contrastive search"
        return
    found = beam_search(
        engine,
        ids,
        max_new_tokens=max_new_tokens,
        beams=beams,
        length_penalty=length_penalty,
        stop_ids=stop_ids,
        results=results,
    )
    for beam in found:
        note = f"{len(beam.token_ids)} tokens, log-probability {beam.logprob:.3f}, score {beam.score:.4f}"
        yield text_after(engine.tokenizer, ids, beam.token_ids), note
