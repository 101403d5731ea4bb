"""LitGPT's `--data` over our prepared ids. Loaded by LitGPT's own process; nothing else here may import this module.

LitGPT's own data modules tokenize text with a subword tokenizer and write their own kind of shards; this gives it the
same ids that all programs train on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from litgpt.data import DataModule
from torch.utils.data import DataLoader, Dataset


class RandomWindows(Dataset[torch.Tensor]):
    """`count` windows of ids at random positions, each (T + 1,) int64."""

    def __init__(self, path: Path, *, length: int, count: int) -> None:
        self.ids = np.memmap(path, dtype=np.uint16, mode="r")
        self.length, self.count = length, count
        self.starts = np.random.default_rng(1337).integers(0, len(self.ids) - length, size=count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        start = int(self.starts[index])
        return torch.from_numpy(self.ids[start : start + self.length].astype(np.int64))


class TokenShards(DataModule):  # type: ignore[misc]
    """LitGPT's interface to a data set, for a prepared folder.

    Args:
        folder: Holds train.bin and val.bin: raw uint16 ids.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.batch_size, self.length = 1, 2

    def connect(self, tokenizer: object = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
        """Set batch size and length, as LitGPT does before training."""
        self.batch_size, self.length = batch_size, (max_seq_length or 1) + 1

    def train_dataloader(self) -> DataLoader[torch.Tensor]:
        """Batches (B, T + 1)."""
        return self._loader("train.bin", count=100_000)

    def val_dataloader(self) -> DataLoader[torch.Tensor]:
        """Batches (B, T + 1)."""
        return self._loader("val.bin", count=1_000)

    def _loader(self, name: str, *, count: int) -> DataLoader[torch.Tensor]:
        windows = RandomWindows(self.folder / name, length=self.length, count=count)
        return DataLoader(windows, batch_size=self.batch_size, drop_last=True)
