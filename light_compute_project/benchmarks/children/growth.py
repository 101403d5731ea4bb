"""Seconds of one decoded token at growing positions of the context."""

from __future__ import annotations

import statistics
import time
from typing import Any


def decode(job: dict[str, Any]) -> dict[str, Any]:
    """Returns `seconds` of a token at each of `positions`, the median of `repeats`, and the decoder's name."""
    import torch

    from litgpt_core.generation.choice import choose_decoder
    from litgpt_core.generation.decoder import Feed
    from litgpt_core.model import GPT
    from litgpt_core.model.config import GPTConfig
    from litgpt_core.model.init import initialize

    torch.set_num_threads(job["threads"])
    last = max(job["positions"]) + 1
    config = GPTConfig(**job["model"], block_size=last, vocab_size=256, padding_multiple=64, rotary_percentage=1.0)
    model = GPT(config).eval()
    initialize(model, seed=1337)
    decoder = choose_decoder(model.to(torch.bfloat16), packed_weights=True)
    decoder.start(n_sequences=1, length=last)
    ids = torch.randint(256, (last,), generator=torch.Generator().manual_seed(1)).tolist()
    seconds, at = [], 0
    with torch.no_grad():
        for position in job["positions"]:
            decoder.feed([Feed(0, at, ids[at:position])])
            at, taken = position, []
            for _ in range(job["repeats"]):
                started = time.perf_counter()
                decoder.feed([Feed(0, at, [ids[at]])])  # again at the same place
                taken.append(time.perf_counter() - started)
            seconds.append(statistics.median(taken))
    return {"seconds": seconds, "decoder": decoder.name}
