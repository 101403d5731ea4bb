"""Token shards as (inputs, targets) batches: the only place where targets are shifted by one.

Not here: the DataLoader and Lightning (`module`), the visiting order (`order`), how shards are written (`prepare`).

Legend: B micro-batch size, T block size, N tokens in the shard. A shard is raw little-endian uint16 or uint32,
memory-mapped, so its size is bounded by the disk and not by memory. Both classes are map-style datasets that return
whole micro-batches (`DataLoader(..., batch_size=None)`), keep no position, and return the same batch for the same
ordinal on every machine and in every worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.order import Ints, epoch_keys, mix64, permute, permute_blocks
from litgpt_core.data.stream.manifest import Shard
from litgpt_core.data.stream.token_row import TokenFile, TokenRow

BLOCK_BYTES = 64_000_000
"""Of one block in the order `blocks`."""
BLOCKS_AT_ONCE = 16
"""Blocks whose windows are mixed with each other."""

_AT_ONCE = 64  # micro-batches whose windows are computed together: numpy's cost is that of a call

IGNORE_INDEX = -100
"""Target of a padding position; cross-entropy must skip it."""

Batch = tuple[torch.Tensor, ...]
"""(inputs, targets), and what else the kind of data adds."""


def open_tokens(source: Path | Sequence[Shard], *, dtype: str) -> TokenFile | TokenRow:
    """One shard, or several as one row."""
    return TokenFile(source, dtype=dtype) if isinstance(source, Path) else TokenRow(source, dtype=dtype)


def _place(source: Path | Sequence[Shard]) -> str:
    return str(source) if isinstance(source, Path) else str(source[0].path.parent) if source else "the folder"


class TrainBatches(Dataset[Batch]):
    """Micro-batch k of one rank, for any k >= 0: an endless, seeded, stateless order over the shard's windows.

    Sample g of the run is `k * world_size * micro_batch_size + rank * micro_batch_size + i` for row i of micro-batch k,
    so the order of samples over the whole run is the same for every world size. Epoch `g // windows` shifts all windows
    by a seeded offset in [0, T) and visits each of them once in a seeded order (`order.permute`).

    Args:
        path: The shard, or the shards that are read as one row.
        dtype: "uint16" or "uint32", from the prepared folder's meta.json.
        block_size: T, tokens per sample.
        seed: Decides offsets and order.
        micro_batch_size: B, rows per micro-batch.
        rank, world_size: Which share this process reads.
        first_id: Takes the place of the first input of every row (begin of sequence); targets stay the text's. None:
            the text's own token.
        order: `full` mixes all windows of an epoch; `blocks` mixes blocks of `BLOCK_BYTES` (`order.permute_blocks`).

    Raises:
        DataError: The shard is missing, incomplete, or shorter than T + 1 tokens.
    """

    def __init__(
        self,
        path: Path | Sequence[Shard],
        *,
        dtype: str,
        block_size: int,
        seed: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        first_id: int | None = None,
        order: str = "full",
    ) -> None:
        check_positive(block_size=block_size, micro_batch_size=micro_batch_size, world_size=world_size)
        self.file = open_tokens(path, dtype=dtype)
        self._block = max(1, BLOCK_BYTES // (block_size * self.file.dtype.itemsize)) if order == "blocks" else 0
        self.block_size, self.seed, self.micro_batch_size = block_size, seed, micro_batch_size
        self.rank, self.world_size = checked_rank(rank, world_size), world_size
        self.first_id = first_id
        if self.file.tokens < block_size + 1:
            raise DataError(
                f"{_place(path)} holds {self.file.tokens:,} tokens, too few for one sample of "
                f"model.block_size={block_size}",
                needed=f"at least block_size + 1 = {block_size + 1:,} tokens",
                fix=f"model.block_size={_power_of_two_below(self.file.tokens)} or smaller, or a larger corpus",
            )
        # All windows must fit at every offset in [0, T); a shard of less than two windows allows fewer offsets.
        self.windows = max(1, (self.file.tokens - block_size) // block_size)
        self._offsets = min(block_size, self.file.tokens - self.windows * block_size)
        self._group = -1
        self._starts: Ints = np.zeros((0, 0), dtype=np.int64)  # of the last `_AT_ONCE` micro-batches computed

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_group": -1, "_starts": np.zeros((0, 0), dtype=np.int64)}

    @property
    def samples_per_epoch(self) -> int:
        """Windows visited once each before the next epoch's order begins."""
        return self.windows

    def starts(self, k: int) -> Ints:
        """First token of each row of micro-batch k of this rank, shape (B,)."""
        if k < 0:
            raise IndexError(f"micro-batch ordinal {k} is negative")
        group, inside = divmod(k, _AT_ONCE)
        if group != self._group:
            ordinals = np.arange(group * _AT_ONCE, (group + 1) * _AT_ONCE, dtype=np.int64)
            first = (ordinals * self.world_size + self.rank) * self.micro_batch_size
            samples = first[:, None] + np.arange(self.micro_batch_size, dtype=np.int64)
            found = self.window_starts(*np.divmod(samples.reshape(-1), self.windows))
            self._group, self._starts = group, found.reshape(samples.shape)
            self._prefetch(samples.reshape(-1))
        return np.asarray(self._starts[inside])

    def _prefetch(self, samples: Ints) -> None:
        """Have what comes after these samples fetched, of shards at addresses: in the order `blocks` one group of
        blocks ahead, else as many samples ahead as are computed together.
        """
        if isinstance(self.file, TokenRow) and self.file.remote:
            ahead = self._block * BLOCKS_AT_ONCE or _AT_ONCE * self.micro_batch_size * self.world_size
            for later in (samples, samples + ahead):
                starts = self.window_starts(*np.divmod(later, self.windows))
                self.file.prefetch(starts, self.block_size + 1)

    def window_starts(self, epochs: Ints, positions: Ints) -> Ints:
        """First token of the window at each (epoch, position), position in [0, windows); same shape."""
        keys = epoch_keys(self.seed, epochs)
        offsets = (mix64(~keys) % np.uint64(self._offsets)).astype(np.int64)
        if self._block:
            windows = permute_blocks(positions, n=self.windows, keys=keys, block=self._block, group=BLOCKS_AT_ONCE)
        else:
            windows = permute(positions, n=self.windows, keys=keys)
        return offsets + self.block_size * windows

    def __getitem__(self, k: int) -> Batch:
        """(inputs, targets) of micro-batch k, both (B, T) int64; targets[b, t] is the token after inputs[b, t]."""
        return self.rows(self.starts(k))

    def rows(self, starts: Ints) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs, targets) of the windows that begin at `starts`, both (B, T) int64."""
        rows = self.file.windows(starts, self.block_size + 1)  # (B, T+1)
        inputs = as_tensor(rows[:, :-1])
        if self.first_id is not None:
            inputs[:, 0] = self.first_id
        return inputs, as_tensor(rows[:, 1:])


class ValidationBatches(Dataset[Batch], ABC):
    """Rows of a held-out split, each exactly once over all ranks, in batches of one shape.

    Every rank has the same number of batches, so that collective operations line up and a compiled model sees one
    shape. What is missing (rows that even out the ranks, ends of rows) has input 0 and target -100: sum the losses and
    divide by the number of targets that are not -100. A batch may hold no target at all.

    Args:
        rows: Rows of the entire split.
        block_size: T, tokens per row.
        batch_size: Rows per batch; lowered to what one rank has when that is less.
        max_tokens: At most about this many tokens (rounded down to rows, one at least), from rows spread evenly over
            the split and the same in every call; None reads all.
        rank, world_size: Which share this process reads: every world_size-th row.
    """

    target_tokens: int
    """Targets over all ranks that are not -100."""

    def __init__(
        self, *, rows: int, block_size: int, batch_size: int, max_tokens: int | None, rank: int, world_size: int
    ) -> None:
        check_positive(block_size=block_size, batch_size=batch_size, world_size=world_size)
        if max_tokens is not None:
            check_positive(max_tokens=max_tokens)
        self.block_size = block_size
        count = rows if max_tokens is None else min(rows, max(1, max_tokens // block_size))
        self.chosen: Ints = np.arange(count, dtype=np.int64) * rows // count
        per_rank = -(-count // world_size)
        self.batch_size = min(batch_size, per_rank)
        self._batches = -(-per_rank // self.batch_size)
        self._own: list[int] = self.chosen[checked_rank(rank, world_size) :: world_size].tolist()

    def __len__(self) -> int:
        """Batches of this rank, the same on every rank."""
        return self._batches

    def __getitem__(self, index: int) -> Batch:
        """Batch `index`: inputs and targets, both (B, T) int64, and what else the kind of data adds."""
        if not 0 <= index < self._batches:
            raise IndexError(f"batch {index} of {self._batches}")
        return self.batch(self._own[index * self.batch_size : (index + 1) * self.batch_size])

    @abstractmethod
    def batch(self, rows: list[int]) -> Batch:
        """The batch of these rows, filled up with empty ones to `batch_size`."""


class ValBatches(ValidationBatches):
    """The held-out split of a text in windows that do not overlap: every target token exactly once over all ranks.

    Args:
        path: The shard, or the shards that are read as one row; two tokens are needed.
        dtype, block_size, first_id: As for `TrainBatches`.
        batch_size, max_tokens, rank, world_size: As for `ValidationBatches`.

    Raises:
        DataError: The shard is missing, incomplete, or has fewer than two tokens.
    """

    def __init__(
        self,
        path: Path | Sequence[Shard],
        *,
        dtype: str,
        block_size: int,
        batch_size: int,
        max_tokens: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        first_id: int | None = None,
    ) -> None:
        check_positive(block_size=block_size)
        self.first_id = first_id
        self.file = open_tokens(path, dtype=dtype)
        if self.file.tokens < 2:
            raise DataError(
                f"{_place(path)} holds {self.file.tokens} tokens",
                needed="at least 2: one input and the token after it",
                fix="use a larger corpus or a larger data.val_fraction",
            )
        super().__init__(
            rows=-(-(self.file.tokens - 1) // block_size),
            block_size=block_size,
            batch_size=batch_size,
            max_tokens=max_tokens,
            rank=rank,
            world_size=world_size,
        )
        self.target_tokens = int(np.minimum(block_size, self.file.tokens - 1 - self.chosen * block_size).sum())

    def batch(self, rows: list[int]) -> Batch:
        """(inputs, targets) of some windows, both (B, T) int64; positions without a target hold 0 and -100."""
        block = self.block_size
        inputs = torch.zeros(self.batch_size, block, dtype=torch.int64)
        targets = torch.full((self.batch_size, block), IGNORE_INDEX, dtype=torch.int64)
        for row, window in enumerate(rows):
            span = as_tensor(self.file.span(window * block, (window + 1) * block + 1))
            inputs[row, : span.numel() - 1] = span[:-1]
            targets[row, : span.numel() - 1] = span[1:]
            if self.first_id is not None:
                inputs[row, 0] = self.first_id
        return inputs, targets


def as_tensor(tokens: npt.NDArray[np.unsignedinteger]) -> torch.Tensor:
    """Ids as int64, copied."""
    return torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.int64))


def check_positive(**sizes: int) -> None:
    """ConfigError that names every size below 1."""
    wrong = [f"{name}={value}" for name, value in sizes.items() if value < 1]
    if wrong:
        raise ConfigError(", ".join(wrong) + " must be at least 1", needed="positive whole numbers")


def checked_rank(rank: int, world_size: int) -> int:
    """`rank`, if it is one of `world_size`; else ConfigError."""
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank} with world_size={world_size}", needed="0 <= rank < world_size")
    return rank


def _power_of_two_below(tokens: int) -> int:
    return 1 << max(0, (max(tokens, 2) - 1).bit_length() - 1)
