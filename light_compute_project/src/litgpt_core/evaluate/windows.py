"""Overlapping windows over a long sequence, so that every token is scored once and with context. A pure function.

    ids      start t1 t2 t3 t4 t5 t6 t7 t8 t9       block_size = 4, context = 2
    window 1   [start t1 t2 t3] -> t1 t2 t3 t4      the first window scores all that it can predict
    window 2            [t3 t4 t5 t6] -> t5 t6 t7   later ones begin with `context` ids that were scored already
    window 3                     [t6 t7 t8] -> t8 t9

This is how generation moves its window (`generation/text_window.py`, which keeps block_size // 2 ids), so that a text
is scored here with exactly the contexts that generating, and `coding.py`, would have.
"""

from __future__ import annotations

from litgpt_core.core.errors import ConfigError
from litgpt_core.evaluate.scorer import Ids, Span


def sliding_spans(ids: Ids, *, block_size: int, context: int | None = None) -> list[Span]:
    """The windows of one text.

    Args:
        ids: (1 + T,): the start id and the text's ids.
        block_size: Most input ids of a window.
        context: Least ids of context of every token after the first window; None: block_size // 2, at least 1.

    Returns:
        Spans that together score each of the T ids once, in order; none for T = 0.

    Raises:
        ConfigError: `context` is not from 1 to block_size.
    """
    kept = max(1, block_size // 2) if context is None else context
    if not 1 <= kept <= block_size:
        raise ConfigError(
            f"--context {kept} tokens for a window of {block_size:,}",
            needed=f"a number from 1 to {block_size:,}",
            fix=f"--context {max(1, block_size // 2)}",
        )
    spans, start, done = [], 0, 1
    while done < len(ids):
        end = min(start + block_size + 1, len(ids))
        spans.append(Span(ids[start:end], done - start))
        done, start = end, end - kept
    return spans
