"""Many texts side by side: every step feeds each text its new tokens and draws the next one of each.

A decoder that is not ragged wants texts of one length: `groups` sorts them, and a text that has ended goes on being fed
(its tokens are thrown away), so that the others keep their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from litgpt_core.generation.decoder import Decoder
from litgpt_core.generation.sampling import SamplingSettings, sample
from litgpt_core.generation.text_window import TextWindow


@dataclass(kw_only=True)
class BatchRow:
    """One text of a batch in the making."""

    text: TextWindow
    """What the model sees."""
    generator: torch.Generator
    """This text's own source of randomness: its neighbours do not matter to it."""
    new_ids: list[int] = field(default_factory=list)
    """What came out so far."""
    done: bool = False
    """Whether a stop id has come."""


def groups(rows: Sequence[BatchRow], *, ragged: bool) -> list[list[BatchRow]]:
    """Rows that may be fed together: all, or those of equal length."""
    by_length: dict[int, list[BatchRow]] = {}
    for row in rows:
        by_length.setdefault(0 if ragged else len(row.text.ids), []).append(row)
    return list(by_length.values())


def step(
    decoder: Decoder, rows: Sequence[BatchRow], *, sampling: SamplingSettings, stop: frozenset[int], vocab_size: int
) -> int:
    """One more token for every row that is not done; returns how many were added."""
    fed = [(place, row) for place, row in enumerate(rows) if not (row.done and decoder.ragged)]
    logits = decoder.feed([row.text.next_feed(place) for place, row in fed])[:, :vocab_size]  # (rows, V)
    added = 0
    for line, (_, row) in enumerate(fed):
        if row.done:
            row.text.ids.append(0)
            continue
        token = int(sample(logits[line : line + 1], sampling, generator=row.generator))
        row.done = token in stop
        row.text.ids.append(token)
        if not row.done:
            row.new_ids.append(token)
            added += 1
    return added
