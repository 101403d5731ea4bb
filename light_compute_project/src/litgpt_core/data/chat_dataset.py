"""Packed conversations as batches: inputs, targets that are -100 outside the answers, and segments.

    conversation   b  H  i  A  y  o  e        ids; targets are y, o, e (the answer and its end)
    inputs         b  H  i  A  y  o
    targets        .  .  .  y  o  e           . = -100
    segments       2  2  2  2  2  2           the second conversation of its row; 0 is padding

A validation batch is (inputs, targets, segments), each (B, T) int64. A training batch adds the number of targets of its
whole global batch, over all micro-batches and processes, as a float32 scalar: the step's loss is divided by it, and
every process computes it without communication.

As in `dataset`, batches are whole micro-batches without a position, the same for the same ordinal on every machine.
Rows are fixed (`packing`); each epoch visits them in a seeded order of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from litgpt_core.data.dataset import (
    IGNORE_INDEX,
    Batch,
    ValidationBatches,
    as_tensor,
    check_positive,
    checked_rank,
)
from litgpt_core.data.order import Ints, epoch_keys, permute
from litgpt_core.data.packing import pack
from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.stream.token_row import TokenFile


class ChatRows:
    """The packed rows of one split of a prepared folder.

    Args:
        prepared: A folder of chat data.
        side: `train` or `val`.
    """

    def __init__(self, prepared: PreparedData, side: str) -> None:
        folder, self.block_size = prepared.directory, int(prepared.meta["block_size"])
        self.ids = TokenFile(folder / f"{side}.bin", dtype=prepared.dtype)
        self.loss_mask = TokenFile(folder / f"{side}.learn.bin", dtype="uint8")
        self.bounds = np.fromfile(folder / f"{side}.bounds.bin", dtype="<i8")
        lengths = np.diff(self.bounds) - 1  # a conversation of n ids has n - 1 inputs
        self.rows = pack(lengths.tolist(), capacity=self.block_size)
        cumulative = np.concatenate([[0], np.cumsum(self.loss_mask.array(), dtype=np.int64)])
        begins = self.loss_mask.array()[self.bounds[:-1]] if len(lengths) else np.zeros(0)
        per_chat = cumulative[self.bounds[1:]] - cumulative[self.bounds[:-1]] - begins  # the first id is no target
        self.targets: Ints = np.array([int(per_chat[row].sum()) for row in self.rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: list[int], *, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(inputs, targets, segments) of some rows, padded with empty ones to `size` rows."""
        inputs = torch.zeros(size, self.block_size, dtype=torch.int64)
        targets = torch.full((size, self.block_size), IGNORE_INDEX, dtype=torch.int64)
        segments = torch.zeros(size, self.block_size, dtype=torch.int64)
        ids, mask = self.ids.array(), self.loss_mask.array()
        for row, number in enumerate(numbers):
            offset = 0
            for segment, chat in enumerate(self.rows[number], start=1):
                span = slice(int(self.bounds[chat]), int(self.bounds[chat + 1]))
                tokens, is_target = as_tensor(ids[span]), torch.from_numpy(mask[span].astype(bool))
                here = slice(offset, offset + tokens.numel() - 1)
                inputs[row, here] = tokens[:-1]
                targets[row, here] = tokens[1:].masked_fill(~is_target[1:], IGNORE_INDEX)
                segments[row, here] = segment
                offset = here.stop
        return inputs, targets, segments


class ChatTrainBatches(Dataset[Batch]):
    """Micro-batch k of one rank, for any k >= 0; row g of the run is the same for every world size.

    Args:
        prepared: The folder.
        seed: Decides the order of rows.
        micro_batch_size: B, rows per micro-batch and process.
        global_batch_size: Rows of one optimizer step over all processes.
        rank, world_size: Which share this process reads.
    """

    def __init__(
        self,
        prepared: PreparedData,
        *,
        seed: int,
        micro_batch_size: int,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        sizes = {"micro_batch_size": micro_batch_size, "global_batch_size": global_batch_size}
        check_positive(**sizes, world_size=world_size)
        self.rows = ChatRows(prepared, "train")
        self.seed, self.micro_batch_size, self.global_batch_size = seed, micro_batch_size, global_batch_size
        self.rank, self.world_size = checked_rank(rank, world_size), world_size

    @property
    def samples_per_epoch(self) -> int:
        """Rows visited once each before the next epoch's order begins."""
        return len(self.rows)

    def numbers(self, first: int, count: int) -> Ints:
        """Rows at positions `first` to `first + count` of the run, shape (count,)."""
        ordinals = np.arange(first, first + count, dtype=np.int64)
        epochs, positions = np.divmod(ordinals, len(self.rows))
        return permute(positions, n=len(self.rows), keys=epoch_keys(self.seed, epochs))

    def __getitem__(self, k: int) -> Batch:
        """(inputs, targets, segments, count) of micro-batch k."""
        if k < 0:
            raise IndexError(f"micro-batch ordinal {k} is negative")
        first = (k * self.world_size + self.rank) * self.micro_batch_size
        step = first // self.global_batch_size
        step_rows = self.numbers(step * self.global_batch_size, self.global_batch_size)
        count = torch.tensor(float(self.rows.targets[step_rows].sum()))
        mine = self.numbers(first, self.micro_batch_size).tolist()
        return *self.rows.batch(mine, size=self.micro_batch_size), count


class ChatValBatches(ValidationBatches):
    """The held-out packed rows, each exactly once over all ranks.

    Args:
        prepared: The folder.
        batch_size, max_tokens, rank, world_size: As for `ValidationBatches`; padding counts as tokens.
    """

    def __init__(
        self,
        prepared: PreparedData,
        *,
        batch_size: int,
        max_tokens: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows = ChatRows(prepared, "val")
        super().__init__(
            rows=len(self.rows),
            block_size=self.rows.block_size,
            batch_size=batch_size,
            max_tokens=max_tokens,
            rank=rank,
            world_size=world_size,
        )
        self.target_tokens = int(self.rows.targets[self.chosen].sum())

    def batch(self, rows: list[int]) -> Batch:
        """(inputs, targets, segments) of some rows."""
        return self.rows.batch(rows, size=self.batch_size)
