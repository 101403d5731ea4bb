"""Packed documents as batches: inputs, targets, segments and the number of targets of the step, as for conversations.

The order of rows is a function of (seed, epoch, position), the same for every world size. Which parts make a row:
`stream.packed_rows`. The legend of `dataset` and `chat_dataset` holds here, too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from litgpt_core.data.dataset import IGNORE_INDEX, Batch, as_tensor, check_positive, checked_rank
from litgpt_core.data.order import Ints, epoch_keys, permute
from litgpt_core.data.stream.packed_rows import PackedRows
from litgpt_core.data.stream.token_row import TokenRow


class PackedBatches(Dataset[Batch]):
    """Micro-batch k of one rank, for any k >= 0.

    Args:
        row: The training tokens.
        plan: The rows.
        block_size: T.
        seed: Decides the order of rows.
        micro_batch_size, global_batch_size: Rows of a micro-batch, and of an optimizer step over all processes.
        rank, world_size: Which share this process reads.
    """

    def __init__(
        self,
        row: TokenRow,
        plan: PackedRows,
        *,
        block_size: int,
        seed: int,
        micro_batch_size: int,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_positive(micro_batch_size=micro_batch_size, global_batch_size=global_batch_size, world_size=world_size)
        self.tokens, self.plan, self.block_size, self.seed = row, plan, block_size, seed
        self.micro_batch_size, self.global_batch_size = micro_batch_size, global_batch_size
        self.rank, self.world_size = checked_rank(rank, world_size), world_size

    def numbers(self, first: int, count: int) -> Ints:
        """Rows at the samples `first` to `first + count` of the run, shape (count,)."""
        epochs, positions = np.divmod(np.arange(first, first + count, dtype=np.int64), len(self.plan))
        return permute(positions, n=len(self.plan), keys=epoch_keys(self.seed, epochs))

    def __getitem__(self, k: int) -> Batch:
        """(inputs, targets, segments, count): three (B, T) int64, and the targets of the global batch, a float32."""
        if k < 0:
            raise IndexError(f"micro-batch ordinal {k} is negative")
        first = (k * self.world_size + self.rank) * self.micro_batch_size
        step = self.numbers(first // self.global_batch_size * self.global_batch_size, self.global_batch_size)
        shape = (self.micro_batch_size, self.block_size)
        inputs, segments = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        targets = torch.full(shape, IGNORE_INDEX, dtype=torch.int64)
        for at, number in enumerate(self.numbers(first, self.micro_batch_size).tolist()):
            offset = 0
            for segment, (begin, length) in enumerate(self.plan.row(number), start=1):
                ids = as_tensor(self.tokens.span(begin, begin + length))
                here = slice(offset, offset + length - 1)
                inputs[at, here], targets[at, here], segments[at, here] = ids[:-1], ids[1:], segment
                offset = here.stop
        return inputs, targets, segments, torch.tensor(float(self.plan.targets(step)))
