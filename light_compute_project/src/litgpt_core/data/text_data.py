"""Prepared text: one stream of tokens, all of which are targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.prepared_folder import checked_meta
from litgpt_core.data.settings import DataSettings, TextSettings
from litgpt_core.data.stream.manifest import STREAM_FORMAT, Shard, shards_of
from litgpt_core.data.stream.shard_cache import CACHE_BYTES
from litgpt_core.data.stream_settings import RowsSettings, TokensSettings
from litgpt_core.tokenizers.settings import TokenizerSettings

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

    @classmethod
    def prepare(
        cls,
        data: DataSettings,
        tokenizer: TokenizerSettings,
        *,
        block_size: int | None,
        init_from: Path | None,
        fingerprint: str | None,
    ) -> TextData:
        """Find or make the folder; depends on the corpus and the tokenizer alone."""
        directory = prepared_text_folder(data, tokenizer)
        if isinstance(data, TokensSettings):
            return cls(directory, checked_meta(directory), data.order, data.packing, data.cache_bytes)
        if isinstance(data, RowsSettings):
            return cls(directory, checked_meta(directory), data.order, data.packing)
        return cls(directory, checked_meta(directory))

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

    def train_batches(
        self,
        *,
        block_size: int,
        seed: int,
        micro_batch_size: int,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> Dataset[Batch]:
        """Windows of the training tokens as (inputs, targets); packed documents with segments and count as well."""
        from litgpt_core.data.dataset import TrainBatches

        if self.packing == "best_fit":
            return self._packed_batches(
                block_size=block_size,
                seed=seed,
                micro_batch_size=micro_batch_size,
                global_batch_size=global_batch_size,
                rank=rank,
                world_size=world_size,
            )
        return TrainBatches(
            self._source("train"),
            dtype=self.dtype,
            block_size=block_size,
            seed=seed,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
            first_id=self.window_start,
            order=self.order,
        )

    def _packed_batches(self, *, block_size: int, **options: int) -> Dataset[Batch]:
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
        return PackedBatches(row, plan, block_size=block_size, **options)

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

    def val_batches(
        self, *, block_size: int, batch_size: int, max_tokens: int | None = None, rank: int = 0, world_size: int = 1
    ) -> ValBatches:
        """Windows of the validation shard as (inputs, targets)."""
        from litgpt_core.data.dataset import ValBatches

        return ValBatches(
            self._source("val"),
            dtype=self.dtype,
            block_size=block_size,
            batch_size=batch_size,
            max_tokens=max_tokens,
            rank=rank,
            world_size=world_size,
            first_id=self.window_start,
        )


def prepared_text_folder(data: DataSettings, tokenizer: TokenizerSettings) -> Path:
    """The folder for these settings, found or made: read whole where the corpus is small, else in constant memory.

    Raises:
        DataError, TokenizerError: As `prepare.prepare`.
    """
    if isinstance(data, TokensSettings):
        from litgpt_core.data.stream.adopt import adopt

        return adopt(data, tokenizer)
    if isinstance(data, RowsSettings) or (isinstance(data, TextSettings) and _is_large(data)):
        from litgpt_core.data.stream.prepare_stream import prepare_stream

        return prepare_stream(data, tokenizer)
    from litgpt_core.data.settings import ChatDataSettings
    from litgpt_core.data.stream_settings import MixtureSettings
    from litgpt_core.data.text_prepare import prepare_text

    assert not isinstance(data, ChatDataSettings | MixtureSettings)
    return prepare_text(data, tokenizer)


def _is_large(data: TextSettings) -> bool:
    """Whether a text corpus is above `data.stream_above`, or at an address."""
    from litgpt_core.core.errors import DataError
    from litgpt_core.data.stream.inputs import is_address, list_inputs

    if is_address(data.path):
        return True
    try:
        files = list_inputs(data.path, data.glob, report=False)
    except DataError:
        return False  # reading says what is wrong
    return data.split != "tail" and sum(file.bytes for file in files) > data.stream_above
