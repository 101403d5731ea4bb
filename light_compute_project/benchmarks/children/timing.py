"""How a process times its own generations; the same for every program that is called through Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def time_generations(
    generate: Callable[[int], int], *, new_tokens: int, repeats: int, spawned_at: float
) -> dict[str, Any]:
    """Time whole generations, prompt included, and the first token alone.

    Args:
        generate: Number of tokens to generate -> number generated.
        new_tokens: Tokens of a whole generation.
        repeats: Whole generations to time.
        spawned_at: `time.time()` just before this process was started.

    Returns:
        `start_to_first_s`, `warm_up_s` (the first whole generation, compilation included), and for each repeat
        `first_s`, `total_s` and `new_tokens`, the number generated.
    """
    generate(1)
    start_to_first = time.time() - spawned_at
    started = time.perf_counter()
    generate(new_tokens)
    warm_up = time.perf_counter() - started
    first, total, generated = [], [], []
    for _ in range(repeats):
        started = time.perf_counter()
        generate(1)
        first.append(time.perf_counter() - started)
        started = time.perf_counter()
        generated.append(generate(new_tokens))
        total.append(time.perf_counter() - started)
    return {
        "start_to_first_s": start_to_first,
        "warm_up_s": warm_up,
        "first_s": first,
        "total_s": total,
        "new_tokens": generated,
    }
