"""What may be called a saving. Pure functions over measured rows; every rule is a test.

    file     the bytes that the engine reads are at least 3 % fewer than the source's in bfloat16
    memory   peak memory is smaller by more than 3 % in every one of at least 5 rounds
    speed    tokens per second are higher by more than 3 % in every one of at least 5 rounds
    quality  "no loss" only if the upper end of the paired interval is below 0.001 bits per byte on every domain

Zeros in dense matrices save nothing. A row that another one beats or equals on every axis, and beats on one by more
than the measurement's noise, is dominated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MARGIN = 1.03
ROUNDS = 5
NO_LOSS = 0.001
AXES = ("file", "memory", "speed", "quality")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The measurements of one model."""

    name: str
    file_bytes: int
    """What the engine reads; of the source, its weights in bfloat16."""
    tokens_per_s: Sequence[float] = ()
    peak_mb: Sequence[float] = ()
    decoder: str = ""
    deltas: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Domain -> difference in bits per byte, and half the width of its 95 % interval."""
    kl: float = 0.0
    """Mean divergence from the source: tells models apart whose bits per byte differ by noise."""
    zeros: float = 0.0
    """Share of exact zeros in weights that are stored dense."""

    @property
    def delta(self) -> float:
        """Mean difference over domains."""
        return sum(delta for delta, _ in self.deltas.values()) / max(1, len(self.deltas))


def saves(row: Row, source: Row) -> set[str]:
    """The axes on which a row is better than the source."""
    found = set()
    if row.file_bytes * MARGIN <= source.file_bytes:
        found.add("file")
    if _always(source.peak_mb, row.peak_mb):
        found.add("memory")
    if _always(row.tokens_per_s, source.tokens_per_s):
        found.add("speed")
    if row.deltas and all(delta + half < NO_LOSS for delta, half in row.deltas.values()):
        found.add("quality")
    return found


def _always(larger: Sequence[float], smaller: Sequence[float]) -> bool:
    """Whether the first is larger by the margin in every round, of which there are enough."""
    n = min(len(larger), len(smaller))
    return n >= ROUNDS and all(a > MARGIN * b for a, b in zip(larger, smaller, strict=True))


def dominator(row: Row, rows: Sequence[Row]) -> str | None:
    """The name of a row that is at least as good on every axis and clearly better on one."""
    for other in rows:
        if other is not row and _at_least(other, row) and _clearly(other, row):
            return other.name
    return None


def _noise(row: Row) -> float:
    return max((half for _, half in row.deltas.values()), default=0.0)


def _at_least(a: Row, b: Row) -> bool:
    speed = not b.tokens_per_s or _median(a.tokens_per_s) >= _median(b.tokens_per_s)
    memory = not b.peak_mb or _median(a.peak_mb) <= _median(b.peak_mb)
    quality = a.delta <= b.delta and a.kl <= b.kl
    return a.file_bytes <= b.file_bytes and quality and speed and memory


def _clearly(a: Row, b: Row) -> bool:
    return a.file_bytes * MARGIN < b.file_bytes or a.delta + _noise(a) + _noise(b) < b.delta


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def verdict(row: Row, source: Row, others: Sequence[Row]) -> str:
    """One line about a row: what it saves, or that it saves nothing and why."""
    found = saves(row, source)
    saved = [axis for axis in AXES[:3] if axis in found]
    parts = [f"saves {', '.join(saved)}" if saved else "SAVES NOTHING"]
    if row.zeros > 0.1 and "file" not in found:
        parts.append(f"{row.zeros:.0%} zeros are stored like other weights; a pattern such as 2:4 is packed")
    if "quality" in found:
        parts.append("no loss")
    for axis, values in (("speed", row.tokens_per_s), ("memory", row.peak_mb)):
        if axis not in found and len(values) >= ROUNDS:
            parts.append({"speed": "not faster", "memory": "no less memory"}[axis])
        elif 0 < len(values) < ROUNDS:
            parts.append(f"{axis}: {len(values)} of {ROUNDS} rounds needed for a verdict")
    if row.decoder not in ("", "kernel", source.decoder):
        parts.append(f"decoded by {row.decoder} PyTorch, the CPU kernel lacks it")
    if better := dominator(row, others):
        parts.append(f"dominated by {better}")
    return "; ".join(parts)
