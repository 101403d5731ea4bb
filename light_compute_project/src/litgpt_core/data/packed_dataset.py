"""Rows that are packed before training, as batches: inputs, targets, segments and the number of targets of the step.

The order of rows is a function of (seed, epoch, position), the same for every world size. Which parts of documents make
a row: `stream.packed_rows`; conversations: `chat_dataset`. The legend of `dataset` holds here, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Unpack

import numpy as np
import torch
from torch.utils.data import Dataset

from litgpt_core.data.dataset import IGNORE_INDEX, Batch, as_tensor, check_positive, checked_rank
from litgpt_core.data.order import Ints, epoch_keys, permute
from litgpt_core.data.prepared import TrainRows
from litgpt_core.data.stream.packed_rows import PackedRows
from litgpt_core.data.stream.token_row import TokenRow

Filled = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class FixedRows(Dataset[Batch], ABC):
    """Micro-batch k of one rank, for any k >= 0, of rows that are visited in a seeded order of every epoch.

    Args:
        rows: How many there are.
        block_size: T.
        seed: Decides the order of rows.
        micro_batch_size, global_batch_size: Rows of a micro-batch, and of an optimizer step over all processes.
        rank, world_size: Which share this process reads.
    """

    def __init__(
        self,
        rows: int,
        *,
        block_size: int,
        seed: int,
        micro_batch_size: int,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_positive(micro_batch_size=micro_batch_size, global_batch_size=global_batch_size, world_size=world_size)
        self.samples_per_epoch, self.block_size, self.seed = rows, block_size, seed
        self.micro_batch_size, self.global_batch_size = micro_batch_size, global_batch_size
        self.rank, self.world_size = checked_rank(rank, world_size), world_size

    def numbers(self, first: int, count: int) -> Ints:
        """Rows at the samples `first` to `first + count` of the run, shape (count,)."""
        epochs, positions = np.divmod(np.arange(first, first + count, dtype=np.int64), self.samples_per_epoch)
        return permute(positions, n=self.samples_per_epoch, keys=epoch_keys(self.seed, epochs))

    def __getitem__(self, k: int) -> Batch:
        """(inputs, targets, segments, count): three (B, T) int64, and the targets of the global batch, a float32."""
        if k < 0:
            raise IndexError(f"micro-batch ordinal {k} is negative")
        first = (k * self.world_size + self.rank) * self.micro_batch_size
        step = self.numbers(first // self.global_batch_size * self.global_batch_size, self.global_batch_size)
        count = torch.tensor(float(self.targets(step)))
        return *self.filled(self.numbers(first, self.micro_batch_size).tolist()), count

    @abstractmethod
    def targets(self, numbers: Ints) -> int:
        """Targets in some rows together."""

    @abstractmethod
    def filled(self, numbers: list[int]) -> Filled:
        """(inputs, targets, segments) of `micro_batch_size` rows."""


def empty_rows(size: int, block_size: int) -> Filled:
    """(inputs, targets, segments) of padding, each (size, T) int64."""
    zeros = torch.zeros(size, block_size, dtype=torch.int64)
    return zeros, torch.full_like(zeros, IGNORE_INDEX), torch.zeros_like(zeros)


class PackedBatches(FixedRows):
    """Documents, packed into rows.

    Args:
        row: The training tokens.
        plan: The rows.
        order: As for `FixedRows`.
    """

    def __init__(self, row: TokenRow, plan: PackedRows, **order: Unpack[TrainRows]) -> None:
        super().__init__(len(plan), **order)
        self.tokens, self.plan = row, plan

    def targets(self, numbers: Ints) -> int:
        """Targets in some rows together."""
        return self.plan.targets(numbers)

    def filled(self, numbers: list[int]) -> Filled:
        """(inputs, targets, segments) of some rows."""
        inputs, targets, segments = empty_rows(len(numbers), self.block_size)
        for at, number in enumerate(numbers):
            offset = 0
            for segment, (begin, length) in enumerate(self.plan.row(number), start=1):
                ids = as_tensor(self.tokens.span(begin, begin + length))
                here = slice(offset, offset + length - 1)
                inputs[at, here], targets[at, here], segments[at, here] = ids[:-1], ids[1:], segment
                offset = here.stop
        return inputs, targets, segments
