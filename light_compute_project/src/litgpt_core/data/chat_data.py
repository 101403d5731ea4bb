"""Prepared conversations: packed rows, of which only the answers are targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from litgpt_core.data.prepared import OrderedRows, PreparedData, Share

if TYPE_CHECKING:
    from litgpt_core.data.chat_dataset import ChatTrainBatches, ChatValBatches


class ChatData(PreparedData):
    """A folder that `chat_prepare` wrote, for one prompt style and one context length."""

    @property
    def epoch_tokens(self) -> int:
        """Token positions of all packed training rows, padding included."""
        return int(self.meta["splits"]["train"]["rows"]) * int(self.meta["block_size"])

    @property
    def val_targets(self) -> int:
        """Ids of the held-out answers and their ends."""
        return int(self.meta["splits"]["val"]["targets"])

    @property
    def val_tokens_per_byte(self) -> float:
        """Targets per UTF-8 byte of the held-out answers."""
        return self.val_targets / self.val_bytes

    @property
    def references(self) -> dict[str, float]:
        """None: the model before fine-tuning is the reference."""
        return {}

    @property
    def held_out(self) -> list[list[dict[str, Any]]]:
        """The first exchange of a few held-out conversations."""
        conversations: list[list[dict[str, Any]]] = self.meta["held_out"]
        return conversations

    def check_block_size(self, block_size: int) -> None:
        """Every length fits: rows are padded."""

    def train_batches(
        self, *, block_size: int, global_batch_size: int, **rows: Unpack[OrderedRows]
    ) -> ChatTrainBatches:
        """Packed rows as (inputs, targets, segments, count); their length is the folder's, which is the model's."""
        from litgpt_core.data.chat_dataset import ChatTrainBatches

        return ChatTrainBatches(self, global_batch_size=global_batch_size, **rows)

    def val_batches(
        self, *, block_size: int, batch_size: int, max_tokens: int | None = None, **share: Unpack[Share]
    ) -> ChatValBatches:
        """Held-out packed rows as (inputs, targets, segments)."""
        from litgpt_core.data.chat_dataset import ChatValBatches

        return ChatValBatches(self, batch_size=batch_size, max_tokens=max_tokens, **share)
