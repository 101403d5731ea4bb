"""Prepared text: one stream of tokens, all of which are targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.prepared_folder import read_meta
from litgpt_core.data.settings import ChatDataSettings, DataSettings
from litgpt_core.tokenizers.settings import TokenizerSettings

if TYPE_CHECKING:
    from litgpt_core.data.dataset import TrainBatches, ValBatches


class TextData(PreparedData):
    """A folder that `text_prepare` wrote."""

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
        from litgpt_core.data.text_prepare import prepare_text

        assert not isinstance(data, ChatDataSettings)
        directory = prepare_text(data, tokenizer)
        return cls(directory, read_meta(directory))

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
    ) -> TrainBatches:
        """Windows of the training shard as (inputs, targets)."""
        from litgpt_core.data.dataset import TrainBatches

        return TrainBatches(
            self.train_path,
            dtype=self.dtype,
            block_size=block_size,
            seed=seed,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
            first_id=self.window_start,
        )

    def val_batches(
        self, *, block_size: int, batch_size: int, max_tokens: int | None = None, rank: int = 0, world_size: int = 1
    ) -> ValBatches:
        """Windows of the validation shard as (inputs, targets)."""
        from litgpt_core.data.dataset import ValBatches

        return ValBatches(
            self.val_path,
            dtype=self.dtype,
            block_size=block_size,
            batch_size=batch_size,
            max_tokens=max_tokens,
            rank=rank,
            world_size=world_size,
            first_id=self.window_start,
        )
