"""Packed conversations as batches: inputs, targets with -100 where nothing is learnt, and which text a token is of.

    conversation   b  H  i  A  y  o  e        ids; learnt are y, o, e (the answer and its end)
    inputs         b  H  i  A  y  o
    targets        .  .  .  y  o  e           . = -100
    segments       2  2  2  2  2  2           the second conversation of its row; 0 is padding

Same promises as `dataset`: map-style, asked for whole micro-batches, no position, the same answer for the same ordinal
on every machine. Rows are fixed (`packing`), their order is drawn anew for every epoch. A training batch also carries
the number of targets of the whole global batch it belongs to, over all micro-batches and processes: what the loss of
the step is divided by, known to everybody without asking anybody.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from litgpt_core.data.dataset import IGNORE_INDEX, TokenFile, as_tensor, check_positive, checked_rank
from litgpt_core.data.order import Ints, epoch_keys, permute
from litgpt_core.data.packing import pack
from litgpt_core.data.prepared import PreparedData

ChatBatch = tuple[torch.Tensor, ...]
"""(inputs, targets, segments), each (B, T) int64; in training also the count, a scalar of float32."""


class ChatRows:
    """The packed rows of one side of a prepared folder.

    Args:
        prepared: What `prepare_chats` made.
        side: `train` or `val`.
    """

    def __init__(self, prepared: PreparedData, side: str) -> None:
        folder, self.block_size = prepared.directory, int(prepared.meta["block_size"])
        self.ids = TokenFile(folder / f"{side}.bin", dtype=prepared.dtype)
        self.flags = TokenFile(folder / f"{side}.learn.bin", dtype="uint8")
        self.bounds = np.fromfile(folder / f"{side}.bounds.bin", dtype="<i8")
        lengths = np.diff(self.bounds) - 1  # a conversation of n ids has n - 1 inputs
        self.rows = pack(lengths.tolist(), capacity=self.block_size)
        learnt = np.concatenate([[0], np.cumsum(self.flags.array(), dtype=np.int64)])
        begins = self.flags.array()[self.bounds[:-1]] if len(lengths) else np.zeros(0)
        per_chat = learnt[self.bounds[1:]] - learnt[self.bounds[:-1]] - begins  # the first id is nobody's target
        self.targets: Ints = np.array([int(per_chat[row].sum()) for row in self.rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: list[int], *, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(inputs, targets, segments) of some rows, padded with empty ones to `size` rows."""
        inputs = torch.zeros(size, self.block_size, dtype=torch.int64)
        targets = torch.full((size, self.block_size), IGNORE_INDEX, dtype=torch.int64)
        segments = torch.zeros(size, self.block_size, dtype=torch.int64)
        ids, flags = self.ids.array(), self.flags.array()
        for row, number in enumerate(numbers):
            place = 0
            for text, chat in enumerate(self.rows[number], start=1):
                span = slice(int(self.bounds[chat]), int(self.bounds[chat + 1]))
                tokens, learn = as_tensor(ids[span]), torch.from_numpy(flags[span].astype(bool))
                here = slice(place, place + tokens.numel() - 1)
                inputs[row, here] = tokens[:-1]
                targets[row, here] = tokens[1:].masked_fill(~learn[1:], IGNORE_INDEX)
                segments[row, here] = text
                place = here.stop
        return inputs, targets, segments


class ChatTrainBatches(Dataset[ChatBatch]):
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
        """Rows visited once each before the order is drawn anew."""
        return len(self.rows)

    def numbers(self, first: int, count: int) -> Ints:
        """Rows that stand at places `first` to `first + count` of the run, shape (count,)."""
        places = np.arange(first, first + count, dtype=np.int64)
        epochs, positions = np.divmod(places, len(self.rows))
        return permute(positions, n=len(self.rows), keys=epoch_keys(self.seed, epochs))

    def __getitem__(self, k: int) -> ChatBatch:
        """(inputs, targets, segments, count) of micro-batch k."""
        if k < 0:
            raise IndexError(f"micro-batch ordinal {k} is negative")
        first = (k * self.world_size + self.rank) * self.micro_batch_size
        step = first // self.global_batch_size
        whole = self.numbers(step * self.global_batch_size, self.global_batch_size)
        count = torch.tensor(float(self.rows.targets[whole].sum()))
        mine = self.numbers(first, self.micro_batch_size).tolist()
        return *self.rows.batch(mine, size=self.micro_batch_size), count


class ChatValBatches(Dataset[ChatBatch]):
    """The held-out rows, each once over all ranks, in batches of one shape; as many on every rank, with empty rows.

    Args:
        prepared: The folder.
        batch_size: Rows per batch; lowered to what one rank has when that is less.
        max_tokens: At most about so many token places (one row at least), from rows spread evenly; None reads all.
        rank, world_size: Which share this process reads.
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
        check_positive(batch_size=batch_size, world_size=world_size)
        self.rows = ChatRows(prepared, "val")
        total = len(self.rows)
        count = total if max_tokens is None else min(total, max(1, max_tokens // self.rows.block_size))
        chosen = np.arange(count, dtype=np.int64) * total // count
        per_rank = -(-count // world_size)
        self.batch_size = min(batch_size, per_rank)
        self._batches = -(-per_rank // self.batch_size)
        self._mine = chosen[checked_rank(rank, world_size) :: world_size].tolist()
        self.target_tokens = int(self.rows.targets[chosen].sum())
        """Targets over all ranks."""

    def __len__(self) -> int:
        """Batches of this rank, the same on every rank."""
        return self._batches

    def __getitem__(self, index: int) -> ChatBatch:
        """(inputs, targets, segments) of batch `index`."""
        if not 0 <= index < self._batches:
            raise IndexError(f"batch {index} of {self._batches}")
        numbers = self._mine[index * self.batch_size : (index + 1) * self.batch_size]
        return self.rows.batch(numbers, size=self.batch_size)
