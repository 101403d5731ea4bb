"""A mixture of token rows as batches; the windows of each source are those that it has alone (`dataset`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from litgpt_core.data.dataset import Batch, TrainBatches, check_positive, checked_rank
from litgpt_core.data.mixture import MixtureOrder
from litgpt_core.data.stream.manifest import Shard

_SEED_STEP = 1_000_003


class MixtureBatches(Dataset[Batch]):
    """Micro-batch k of one rank, for any k >= 0; sample g of the run is the same for every world size.

    Args:
        sources: The shards of each source.
        order: Which source each sample comes from.
        dtype, block_size, seed, micro_batch_size, rank, world_size, first_id: As for `TrainBatches`.
        window_order: `order` of each source's windows.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[Shard]],
        *,
        order: MixtureOrder,
        dtype: str,
        block_size: int,
        seed: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        first_id: int | None = None,
        window_order: str = "full",
    ) -> None:
        check_positive(micro_batch_size=micro_batch_size, world_size=world_size)
        self.order, self.block_size, self.micro_batch_size = order, block_size, micro_batch_size
        self.rank, self.world_size = checked_rank(rank, world_size), world_size
        self.sources = [
            TrainBatches(
                shards,
                dtype=dtype,
                block_size=block_size,
                seed=seed + _SEED_STEP * number,
                micro_batch_size=micro_batch_size,
                first_id=first_id,
                order=window_order,
            )
            for number, shards in enumerate(sources, start=1)
        ]

    def __getitem__(self, k: int) -> Batch:
        """(inputs, targets) of micro-batch k, both (B, T) int64."""
        if k < 0:
            raise IndexError(f"micro-batch ordinal {k} is negative")
        first = (k * self.world_size + self.rank) * self.micro_batch_size
        samples = np.arange(first, first + self.micro_batch_size, dtype=np.int64)
        numbers, ordinals = self.order.locate(samples)
        inputs = torch.empty(self.micro_batch_size, self.block_size, dtype=torch.int64)
        targets = torch.empty_like(inputs)
        for number in np.unique(numbers).tolist():
            rows, source = np.flatnonzero(numbers == number), self.sources[number]
            starts = source.window_starts(*np.divmod(ordinals[rows], source.windows))
            at = torch.from_numpy(rows)
            inputs[at], targets[at] = source.rows(starts)
        return inputs, targets
