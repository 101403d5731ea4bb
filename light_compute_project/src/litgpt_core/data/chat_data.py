"""Prepared conversations: packed rows, of which only the answers are targets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.prepared_folder import find_folder, read_meta
from litgpt_core.data.settings import ChatDataSettings, DataSettings
from litgpt_core.tokenizers.settings import TokenizerSettings

if TYPE_CHECKING:
    from litgpt_core.data.chat_dataset import ChatTrainBatches, ChatValBatches
    from litgpt_core.prompts.style import PromptStyle

logger = logging.getLogger(__name__)


class ChatData(PreparedData):
    """A folder that `chat_prepare` wrote, for one prompt style and one context length."""

    @classmethod
    def prepare(
        cls,
        data: DataSettings,
        tokenizer: TokenizerSettings,
        *,
        block_size: int | None,
        init_from: Path | None,
        fingerprint: str | None,
    ) -> ChatData:
        """Find or make the folder.

        A chat log grows while a run is interrupted: a resumed run continues with the conversations that it began with,
        whose `fingerprint` it knows, as long as their folder exists.

        Raises:
            ConfigError: `block_size` is None, or `data.style` names no prompt style.
        """
        from litgpt_core.data.chat_prepare import prepare_chats

        assert isinstance(data, ChatDataSettings)
        if block_size is None:
            raise ConfigError(
                "data=chat: conversations are prepared for one model, with its prompt style and its context length",
                needed="a corpus of text here",
                fix="lcp train +experiment=finetune_chat init_from=CHECKPOINT, which prepares them by itself",
            )
        directory = find_folder(data, fingerprint=fingerprint) if fingerprint else None
        if directory is not None:
            logger.info("data %s: using the conversations that this run began with; newer ones are not used", data.name)
        else:
            style = chat_style(data, init_from=init_from)
            logger.info("data %s: prompt style %s", data.name, style.name)
            directory = prepare_chats(data, tokenizer, style=style, block_size=block_size)
        return cls(directory, read_meta(directory))

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
        self,
        *,
        block_size: int,
        seed: int,
        micro_batch_size: int,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> ChatTrainBatches:
        """Packed rows as (inputs, targets, segments, count); their length is the folder's, which is the model's."""
        from litgpt_core.data.chat_dataset import ChatTrainBatches

        return ChatTrainBatches(
            self,
            seed=seed,
            micro_batch_size=micro_batch_size,
            global_batch_size=global_batch_size,
            rank=rank,
            world_size=world_size,
        )

    def val_batches(
        self, *, block_size: int, batch_size: int, max_tokens: int | None = None, rank: int = 0, world_size: int = 1
    ) -> ChatValBatches:
        """Held-out packed rows as (inputs, targets, segments)."""
        from litgpt_core.data.chat_dataset import ChatValBatches

        return ChatValBatches(self, batch_size=batch_size, max_tokens=max_tokens, rank=rank, world_size=world_size)


def chat_style(data: ChatDataSettings, *, init_from: Path | None) -> PromptStyle:
    """The prompt style of conversations: the one named, else that of the checkpoint directory, else human_assistant.

    Raises:
        ConfigError: No style has that name.
        CheckpointError: The checkpoint's style is damaged.
    """
    from litgpt_core.prompts.catalogue import HUMAN_ASSISTANT, style_named
    from litgpt_core.prompts.directory import load_style

    if data.style != "auto":
        return style_named(data.style)
    found = load_style(init_from) if init_from else None
    return found or HUMAN_ASSISTANT
