"""Runs inside LitGPT's process: its `--data`, fed from our prepared ids. Nothing else of ours may import this module.

LitGPT's own modules tokenize text with a subword tokenizer and write shards of another kind; this hands it the same ids
that every contestant trains on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from litgpt.data import DataModule
from torch.utils.data import DataLoader, Dataset


class RandomWindows(Dataset[torch.Tensor]):
    """So many windows of ids at random places, each (T + 1,) int64."""

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
    """LitGPT's face of a data set, over a prepared folder.

    Args:
        folder: Holds train.bin and val.bin: raw uint16 ids.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.batch_size, self.length = 1, 2

    def connect(self, tokenizer: object = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
        """Take what LitGPT knows by now."""
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
