"""From settings to prepared data, and from a folder back to it: the one place that tells text and chat apart."""

from __future__ import annotations

from pathlib import Path

from litgpt_core.data.chat_data import ChatData
from litgpt_core.data.mixture_data import MixtureData
from litgpt_core.data.prepared import PreparedData
from litgpt_core.data.prepared_folder import read_meta
from litgpt_core.data.settings import DataSettings
from litgpt_core.data.text_data import TextData
from litgpt_core.tokenizers.settings import TokenizerSettings

__all__ = ["PreparedData", "data_type", "open_prepared", "prepare", "summary_lines"]


def data_type(kind: str) -> type[PreparedData]:
    """The class for `data.kind`, which meta.json repeats."""
    types: dict[str, type[PreparedData]] = {"chat": ChatData, "mixture": MixtureData}
    return types.get(kind, TextData)


def prepare(
    data: DataSettings,
    tokenizer: TokenizerSettings,
    *,
    block_size: int | None = None,
    init_from: Path | None = None,
    fingerprint: str | None = None,
) -> PreparedData:
    """Find the prepared folder for these settings, or make it.

    Args:
        data: The corpus or the conversations.
        tokenizer: Trained on the training split unless it is a pretrained one.
        block_size: Chat only, required: longer conversations are cut.
        init_from: Chat only: the checkpoint directory that `data.style=auto` takes its prompt style from.
        fingerprint: Chat only: use the folder with this fingerprint if it exists, although the log has grown.

    Raises:
        ConfigError: Conversations without a `block_size`: they are prepared for one model.
        DataError: Nothing can be read, too little is left to split, or the folder cannot be written.
        TokenizerError: The tokenizer cannot be trained or loaded, or cannot represent the validation text.
    """
    return data_type(data.kind).prepare(
        data, tokenizer, block_size=block_size, init_from=init_from, fingerprint=fingerprint
    )


def open_prepared(directory: Path) -> PreparedData:
    """A prepared folder that exists, checked for completeness but not against any settings.

    Raises:
        DataError: The folder is missing or does not fit its meta.json.
    """
    meta = read_meta(directory)
    return data_type(meta.get("kind", ""))(Path(directory), meta)


def summary_lines(prepared: PreparedData) -> dict[str, str]:
    """What a preparation made, for the terminal."""
    return {
        "folder": str(prepared.directory),
        "train": f"{prepared.train_tokens:,} tokens",
        "val": f"{prepared.val_tokens:,} tokens, {prepared.val_bytes:,} bytes",
        "vocabulary": f"{prepared.vocab_size:,} ids ({prepared.meta['tokenizer']['kind']}), stored as {prepared.dtype}",
        "to beat": ", ".join(f"{name} {loss:.4f}" for name, loss in prepared.references.items())
        + " nats per val token",
    }
