"""Documents packed into rows, cut only where they are longer than a row: the plan, as files next to the shards.

    row 0  | document 4            | document 0   |.|       a document of n ids has n - 1 inputs, each with its target
    row 1  | document 2   | document 1 | 3  |.......|       . = padding

Best-fit decreasing (`packing`) within groups of `GROUP` successive documents, so that memory is bounded at any size. A
document of more than T + 1 ids is cut into parts that share one id at each cut, so that no target is lost. The files:

    rows-T.parts    (first id, ids) of every part in the order of rows, int64; positions in the row of all shards
    rows-T.bounds   parts before each row, int64

Not here: batches (`packed_dataset`). No torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litgpt_core.core.files import replacing
from litgpt_core.core.lock import exclusive
from litgpt_core.data.packing import pack
from litgpt_core.data.stream.token_row import TokenRow

logger = logging.getLogger(__name__)

GROUP = 1 << 17
"""Parts that are packed together."""
_AT_ONCE = 1 << 22

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackedRows:
    """Which parts of documents make each row."""

    parts: Ints
    """(first id, ids), shape (P, 2)."""
    bounds: Ints
    """Row r holds the parts [bounds[r], bounds[r + 1]), shape (R + 1,)."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def row(self, number: int) -> list[tuple[int, int]]:
        """(first id, ids) of each part of a row."""
        return [(int(a), int(n)) for a, n in self.parts[self.bounds[number] : self.bounds[number + 1]]]

    def targets(self, numbers: Ints) -> int:
        """Targets in some rows together."""
        return sum(int(self.parts[self.bounds[n] : self.bounds[n + 1], 1].sum() - self._parts_of(n)) for n in numbers)

    def _parts_of(self, number: int) -> int:
        return int(self.bounds[number + 1] - self.bounds[number])


def packed_rows(folder: Path, row: TokenRow, *, eos_id: int, block_size: int) -> PackedRows:
    """The plan for rows of `block_size` inputs, read from the prepared folder or made there.

    Args:
        folder: The prepared folder.
        row: Its training tokens.
        eos_id: Ends a document.
        block_size: T.
    """
    bounds = folder / f"rows-{block_size}.bounds"
    if not bounds.exists():
        with exclusive(folder / f".rows-{block_size}.lock", purpose=f"packing {folder.name}"):
            if not bounds.exists():
                _make(folder, row, eos_id=eos_id, block_size=block_size)
    found = np.memmap(folder / f"rows-{block_size}.parts", dtype="<i8", mode="r").reshape(-1, 2)
    return PackedRows(found.view(np.ndarray), np.fromfile(bounds, dtype="<i8"))


def document_parts(row: TokenRow, *, eos_id: int, block_size: int) -> Iterator[tuple[int, int]]:
    """(first id, ids) of every document with a target, in order; long ones in parts of at most `block_size` + 1 ids."""
    start = 0
    for begin in range(0, row.tokens, _AT_ONCE):
        block = row.span(begin, begin + _AT_ONCE)
        ends = (np.flatnonzero(block == eos_id) + 1 + begin).tolist()
        if begin + len(block) == row.tokens and (not ends or ends[-1] < row.tokens):
            ends.append(row.tokens)
        for end in ends:
            while end - start > 1:
                length = min(end - start, block_size + 1)
                yield start, length
                start += length - 1
            start = end


def _make(folder: Path, row: TokenRow, *, eos_id: int, block_size: int) -> None:
    rows = targets = 0
    with (
        replacing(folder / f"rows-{block_size}.bounds", durable=True) as bounds_path,
        replacing(folder / f"rows-{block_size}.parts", durable=True) as parts_path,
        bounds_path.open("wb") as bounds,
        parts_path.open("wb") as parts,
    ):
        written = 0
        bounds.write(np.zeros(1, dtype="<i8").tobytes())
        for group in _groups(document_parts(row, eos_id=eos_id, block_size=block_size)):
            table = np.array(group, dtype="<i8")
            packed = pack((table[:, 1] - 1).tolist(), capacity=block_size)
            parts.write(table[[index for members in packed for index in members]].tobytes())
            counts = np.cumsum([len(members) for members in packed]) + written
            bounds.write(counts.astype("<i8").tobytes())
            written, rows = int(counts[-1]), rows + len(packed)
            targets += int((table[:, 1] - 1).sum())
    logger.info(
        "data: %s rows of %d tokens, %.2f %% of them padding",
        f"{rows:,}",
        block_size,
        100 * (1 - targets / max(1, rows * block_size)),
    )


def _groups(parts: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    group: list[tuple[int, int]] = []
    for part in parts:
        group.append(part)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group
