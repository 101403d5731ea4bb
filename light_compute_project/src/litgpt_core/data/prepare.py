"""From settings to prepared data, and from a folder back to it: the one place that tells text and chat apart."""

from __future__ import annotations

import logging
from pathlib import Path

from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.chat_data import ChatData
from litgpt_core.data.mixture_data import MixtureData, prepare_mixture
from litgpt_core.data.prepared import PreparedData, checked_meta, read_meta
from litgpt_core.data.prepared_folder import find_folder
from litgpt_core.data.recorded_settings import USES
from litgpt_core.data.settings import ChatDataSettings, CorpusSettings, DataSettings, TextSettings
from litgpt_core.data.stream_settings import MixtureSettings, RowsSettings, TokensSettings
from litgpt_core.data.text_data import TextData
from litgpt_core.tokenizers.settings import TokenizerSettings

__all__ = ["PreparedData", "data_type", "open_prepared", "prepare", "summary_lines"]

logger = logging.getLogger(__name__)


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
    if isinstance(data, ChatDataSettings):
        directory = _chats(data, tokenizer, block_size=block_size, init_from=init_from, fingerprint=fingerprint)
    else:
        directory = _texts(data, tokenizer)
    uses = {key: value for key, value in vars(data).items() if key in (*USES, "cache_bytes")}
    return data_type(data.kind)(directory, checked_meta(directory), **uses)


def _chats(
    data: ChatDataSettings,
    tokenizer: TokenizerSettings,
    *,
    block_size: int | None,
    init_from: Path | None,
    fingerprint: str | None,
) -> Path:
    """The folder of conversations.

    A chat log grows while a run is interrupted: a resumed run continues with the conversations that it began with,
    whose `fingerprint` it knows, as long as their folder exists.
    """
    from litgpt_core.data.chat_prepare import chat_style, prepare_chats

    if block_size is None:
        raise ConfigError(
            "data=chat: conversations are prepared for one model, with its prompt style and its context length",
            needed="a corpus of text here",
            fix="lcp train +experiment=finetune_chat init_from=CHECKPOINT, which prepares them by itself",
        )
    known = find_folder(data, fingerprint=fingerprint) if fingerprint else None
    if known is not None:
        logger.info("data %s: using the conversations that this run began with; newer ones are not used", data.name)
        return known
    style = chat_style(data, init_from=init_from)
    logger.info("data %s: prompt style %s", data.name, style.name)
    return prepare_chats(data, tokenizer, style=style, block_size=block_size)


def _texts(
    data: CorpusSettings | RowsSettings | TokensSettings | MixtureSettings, tokenizer: TokenizerSettings
) -> Path:
    """The folder of text: read whole where the corpus is small, else in constant memory; or a description of others."""
    if isinstance(data, MixtureSettings):
        return prepare_mixture(data, tokenizer)
    if isinstance(data, TokensSettings):
        from litgpt_core.data.stream.adopt import adopt

        return adopt(data, tokenizer)
    if isinstance(data, RowsSettings) or (isinstance(data, TextSettings) and _is_large(data)):
        from litgpt_core.data.stream.prepare_stream import prepare_stream

        return prepare_stream(data, tokenizer)
    from litgpt_core.data.text_prepare import prepare_text

    return prepare_text(data, tokenizer)


def _is_large(data: TextSettings) -> bool:
    """Whether a text corpus is above `data.stream_above`, or at an address."""
    from litgpt_core.data.stream.inputs import is_address, list_inputs

    if is_address(data.path):
        return True
    try:
        files = list_inputs(data.path, data.glob, report=False)
    except DataError:
        return False  # reading says what is wrong
    return data.split != "tail" and sum(file.bytes for file in files) > data.stream_above


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
