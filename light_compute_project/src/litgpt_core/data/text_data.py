"""Prepared text: one stream of tokens, all of which are targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.prepared import OrderedRows, PreparedData, ValRows
from litgpt_core.data.stream.manifest import STREAM_FORMAT, Shard, shards_of
from litgpt_core.data.stream.shard_cache import CACHE_BYTES

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from litgpt_core.data.dataset import Batch, ValBatches


@dataclass(frozen=True)
class TextData(PreparedData):
    """A folder that `text_prepare`, `stream.prepare_stream` or `stream.adopt` wrote."""

    order: str = "full"
    """How windows are mixed in training: `full` or `blocks`."""
    packing: str = "windows"
    """What a training row is: one of the `windows` of the stream, or documents by `best_fit`."""
    cache_bytes: int = CACHE_BYTES
    """Of blocks of shards at addresses."""

    @property
    def epoch_tokens(self) -> int:
        """Ids in the training shard."""
        return self.train_tokens

    @property
    def val_targets(self) -> int:
        """Every validation token but the first."""
        return self.val_tokens - 1

    @property
    def val_tokens_per_byte(self) -> float:
        """Tokens per UTF-8 byte of the validation text."""
        return self.val_tokens / self.val_bytes

    @property
    def window_start(self) -> int | None:
        """The id that every window begins with (`tokenizer.add_bos_token`), or None."""
        found = self.meta["tokenizer"].get("bos_id")
        return None if found is None else int(found)

    @property
    def references(self) -> dict[str, float]:
        """Losses of a unigram and a bigram model fitted on the training tokens."""
        losses = self.meta["reference_losses"]
        return {name: float(losses[name]) for name in ("unigram", "bigram")}

    @property
    def held_out(self) -> list[list[dict[str, Any]]]:
        """None: text has no questions."""
        return []

    def check_block_size(self, block_size: int) -> None:
        """Raise DataError if the training shard is shorter than `block_size` + 1 tokens."""
        self.train_batches(block_size=block_size, seed=0, micro_batch_size=1, global_batch_size=1)

    def train_batches(self, *, block_size: int, global_batch_size: int, **rows: Unpack[OrderedRows]) -> Dataset[Batch]:
        """Windows of the training tokens as (inputs, targets); packed documents with segments and count as well."""
        from litgpt_core.data.dataset import TrainBatches

        if self.packing == "best_fit":
            return self._packed_batches(block_size=block_size, global_batch_size=global_batch_size, **rows)
        source, first_id = self._source("train"), self.window_start
        return TrainBatches(
            source, dtype=self.dtype, block_size=block_size, first_id=first_id, order=self.order, **rows
        )

    def _packed_batches(
        self, *, block_size: int, global_batch_size: int, **rows: Unpack[OrderedRows]
    ) -> Dataset[Batch]:
        from litgpt_core.data.packed_dataset import PackedBatches
        from litgpt_core.data.stream.packed_rows import packed_rows
        from litgpt_core.data.stream.token_row import TokenRow

        if self.window_start is not None:
            raise ConfigError(
                "data.packing=best_fit with tokenizer.add_bos_token=true: packed documents begin with their own text",
                needed="rows of documents without a begin-of-sequence token",
                fix="tokenizer.add_bos_token=false, or data.packing=windows",
            )
        row = TokenRow(self.shards("train"), dtype=self.dtype)
        plan = packed_rows(self.directory, row, eos_id=self.eos_id, block_size=block_size)
        return PackedBatches(row, plan, block_size=block_size, global_batch_size=global_batch_size, **rows)

    def passes(self, *, samples: int, block_size: int, seed: int) -> dict[str, float]:
        """Name of a source -> how often a run of so many samples reads its training tokens; empty for a sole source."""
        return {}

    def shards(self, side: str) -> list[Shard]:
        """See the base class."""
        if self.meta.get("format_version") == STREAM_FORMAT:
            return shards_of(self.directory, side, cache_bytes=self.cache_bytes)
        return super().shards(side)

    def _source(self, side: str) -> Path | list[Shard]:
        if self.meta.get("format_version") == STREAM_FORMAT:
            return self.shards(side)
        return self.train_path if side == "train" else self.val_path

    def val_batches(self, **rows: Unpack[ValRows]) -> ValBatches:
        """Windows of the validation shard as (inputs, targets)."""
        from litgpt_core.data.dataset import ValBatches

        return ValBatches(self._source("val"), dtype=self.dtype, first_id=self.window_start, **rows)
