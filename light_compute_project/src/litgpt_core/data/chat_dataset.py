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

from typing import Unpack

import numpy as np
import torch

from litgpt_core.data.dataset import IGNORE_INDEX, Batch, ValidationBatches, as_tensor
from litgpt_core.data.order import Ints
from litgpt_core.data.packed_dataset import Filled, FixedRows, empty_rows
from litgpt_core.data.packing import pack
from litgpt_core.data.prepared import OrderedRows, PreparedData
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

    def batch(self, numbers: list[int], *, size: int) -> Filled:
        """(inputs, targets, segments) of some rows, padded with empty ones to `size` rows."""
        inputs, targets, segments = empty_rows(size, self.block_size)
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


class ChatTrainBatches(FixedRows):
    """Conversations, packed into rows.

    Args:
        prepared: The folder.
        global_batch_size, order: As for `FixedRows`.
    """

    def __init__(self, prepared: PreparedData, *, global_batch_size: int, **order: Unpack[OrderedRows]) -> None:
        self.rows = ChatRows(prepared, "train")
        block_size = self.rows.block_size
        super().__init__(len(self.rows), block_size=block_size, global_batch_size=global_batch_size, **order)

    def targets(self, numbers: Ints) -> int:
        """Targets in some rows together."""
        return int(self.rows.targets[numbers].sum())

    def filled(self, numbers: list[int]) -> Filled:
        """(inputs, targets, segments) of some rows."""
        return self.rows.batch(numbers, size=self.micro_batch_size)


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
