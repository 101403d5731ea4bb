"""Conversations -> ids and loss masks: what is written into a prepared folder of chat data.

    train.bin val.bin                    ids of all conversations, concatenated, raw little-endian
    train.learn.bin val.learn.bin        the loss mask: one byte per id, 1 where it is a target
    train.bounds.bin val.bounds.bin      int64: where each conversation begins, and the end of the last
    tokenizer/                           the tokenizer's files and chat_style.json, which every checkpoint copies
    meta.json                            what all of it was made from

Whether a conversation is held out depends on a seeded hash of its identity alone, so none moves to the other split when
conversations are added or continued. Not here: reading (`conversations`), finding and publishing folders
(`prepared_folder`), batches (`chat_dataset`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.data.chat_encoding import EncodedChat, EncodingProblems, encode_or_leave_out
from litgpt_core.data.chat_formats import known_formats
from litgpt_core.data.chat_rows import ChatExample
from litgpt_core.data.conversations import ReadCounts, read_conversations
from litgpt_core.data.files import shown
from litgpt_core.data.packing import pack
from litgpt_core.data.prepared import FORMAT_VERSION
from litgpt_core.data.prepared_folder import (
    content_settings,
    find_or_make,
    fingerprint_of,
    save_tokenizer,
    tokenizer_facts,
    tokenizer_identity,
    write_meta,
)
from litgpt_core.data.settings import ChatDataSettings
from litgpt_core.data.shards import token_dtype
from litgpt_core.prompts.catalogue import HUMAN_ASSISTANT, style_named
from litgpt_core.prompts.directory import load_style, save_style
from litgpt_core.prompts.style import PromptStyle
from litgpt_core.prompts.template_process import ChatTemplateError
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.settings import TokenizerSettings

logger = logging.getLogger(__name__)

MIN_CONVERSATIONS = 10
"""Fewer are refused."""

HELD_OUT_SHOWN = 5
"""Held-out conversations whose first question is a sample prompt of the comparison after training."""

_RULE = 2
"""Raise this when the same conversations would give other files; it is part of the fingerprint."""


def prepare_chats(data: ChatDataSettings, tokenizer: TokenizerSettings, *, style: PromptStyle, block_size: int) -> Path:
    """The prepared folder for these settings, made if it does not exist. The files are read in any case.

    Args:
        data: Where the conversations are.
        tokenizer: Trained on the training split unless it is pretrained.
        style: The prompt style that formats a conversation.
        block_size: Longer conversations are truncated.

    Raises:
        DataError: Nothing can be read, fewer than `MIN_CONVERSATIONS` are left, or the folder cannot be written.
        TokenizerError: The tokenizer cannot be trained or loaded.
    """
    conversations, counts = read_conversations(data)
    _refuse_few(len(conversations), data, counts.summary(), broken=counts.broken)
    train, val = split_conversations(conversations, data)
    logger.info(
        "data %s: %s conversations from %s file(s), %s held out%s",
        data.name,
        f"{len(conversations):,}",
        f"{counts.files:,}",
        f"{len(val):,}",
        f"; {counts.summary()}" if counts.summary() else "",
    )
    content = {
        "format_version": FORMAT_VERSION,
        "rule": _RULE,
        "data": content_settings(data),
        "tokenizer": tokenizer_identity(tokenizer),
        "style": style_identity(style),
        "block_size": block_size,
        "train": [_identity(c) for c in train],
        "val": [_identity(c) for c in val],
    }
    fingerprint = fingerprint_of(content)

    def build(work: Path) -> None:
        _build(
            work,
            data,
            tokenizer,
            sides={"train": train, "val": val},
            counts=counts,
            style=style,
            block_size=block_size,
            fingerprint=fingerprint,
        )

    return find_or_make(data, fingerprint=fingerprint, build=build)


def chat_style(data: ChatDataSettings, *, init_from: Path | None) -> PromptStyle:
    """The prompt style of conversations: the one named, else that of the checkpoint directory, else human_assistant.

    Raises:
        ConfigError: No style has that name.
        CheckpointError: The checkpoint's style is damaged.
    """
    if data.style != "auto":
        return style_named(data.style)
    found = load_style(init_from) if init_from else None
    return found or HUMAN_ASSISTANT


def split_conversations(
    conversations: Sequence[ChatExample], data: ChatDataSettings
) -> tuple[list[ChatExample], list[ChatExample]]:
    """(training, validation): each conversation's seeded hash against `val_fraction`; at least one in each split."""

    def split_hash(conversation: ChatExample) -> int:
        digest = hashlib.sha256(f"{data.split_seed}:{conversation.identity}".encode()).digest()
        return int.from_bytes(digest[:8], "big")

    threshold = data.val_fraction * 2**64
    ordered = sorted(conversations, key=split_hash)
    held_out = sum(split_hash(conversation) < threshold for conversation in ordered)
    cut = min(max(held_out, 1), len(ordered) - 1)
    val = {id(conversation) for conversation in ordered[:cut]}
    return [c for c in conversations if id(c) not in val], [c for c in conversations if id(c) in val]


def style_identity(style: PromptStyle) -> dict[str, Any]:
    """The part of a style that decides the text of a conversation, for a fingerprint."""
    return {key: value for key, value in vars(style).items() if key not in ("source", "description")}


def _identity(conversation: ChatExample) -> list[Any]:
    return [conversation.content(), sorted(conversation.refused)]


def _build(
    work: Path,
    data: ChatDataSettings,
    settings: TokenizerSettings,
    *,
    sides: dict[str, list[ChatExample]],
    counts: ReadCounts,
    style: PromptStyle,
    block_size: int,
    fingerprint: str,
) -> None:
    """Write all files of a prepared folder into `work`, meta.json last."""
    problems = EncodingProblems()
    sources = sides["train"] + (sides["val"] if settings.kind == "char" else [])
    tokenizer = save_tokenizer(work, settings, _rendered(sources, style, problems))
    save_style(work / "tokenizer", style)
    encoded, kept = {}, {}
    for side, conversations in sides.items():
        pairs = [(c, encode_or_leave_out(c, style, tokenizer, block_size, problems)) for c in conversations]
        encoded[side] = [chat for _, chat in pairs if chat is not None]
        kept[side] = [conversation for conversation, chat in pairs if chat is not None]
    unusable = sum(len(sides[side]) - len(encoded[side]) for side in sides)
    problems.report(data.name)
    lost = f"{unusable:,} with no target left under this prompt style, vocabulary and model.block_size={block_size}"
    left_out = ", ".join(filter(None, (counts.summary(), lost + problems.first() if unusable else "")))
    _refuse_few(sum(map(len, encoded.values())), data, left_out)
    for side, chats in encoded.items():
        if not chats:
            raise DataError(f"the {side} split has no conversation left ({left_out})", fix="another data.split_seed")
    _log_cuts(data, [chat for chats in encoded.values() for chat in chats], block_size)
    files: dict[str, int] = {}
    facts = {side: _write(work, side, chats, tokenizer, files) for side, chats in encoded.items()}
    for side, chats in encoded.items():
        facts[side]["rows"] = len(pack([len(chat.ids) - 1 for chat in chats], capacity=block_size))
    meta = {
        "format_version": FORMAT_VERSION,
        "name": data.name,
        "kind": data.kind,
        "data_settings": content_settings(data),
        "reading": {**counts.facts(), "unusable": unusable},
        "style": style.name,
        "block_size": block_size,
        "splits": facts,
        "more_files": files,
        "dtype": token_dtype(tokenizer.vocab_size),
        "tokenizer": tokenizer_facts(tokenizer),
        "held_out": _held_out(kept["val"]),
    }
    write_meta(work, meta, settings=settings, fingerprint=fingerprint)


def _write(
    work: Path, side: str, chats: Sequence[EncodedChat], tokenizer: Tokenizer, files: dict[str, int]
) -> dict[str, Any]:
    """Write the three files of a split; returns its facts for meta.json and records file sizes in `files`."""
    dtype = np.dtype(token_dtype(tokenizer.vocab_size)).newbyteorder("<")
    ids = np.fromiter(_chain(chat.ids for chat in chats), dtype=dtype)
    loss_mask = np.fromiter(_chain(chat.loss_mask for chat in chats), dtype=np.uint8)
    bounds = np.cumsum([0, *(len(chat.ids) for chat in chats)]).astype("<i8")
    for name, array in ((f"{side}.bin", ids), (f"{side}.learn.bin", loss_mask), (f"{side}.bounds.bin", bounds)):
        array.tofile(work / name)
        if name != f"{side}.bin":
            files[name] = array.nbytes
    return {
        "documents": len(chats),
        "bytes": sum(chat.answer_bytes for chat in chats),
        "tokens": ids.size,
        "targets": sum(chat.targets for chat in chats),
        "exchanges_cut": sum(chat.exchanges_cut for chat in chats),
        "tokens_cut": sum(chat.tokens_cut for chat in chats),
        "sha256": hashlib.sha256(ids.tobytes() + loss_mask.tobytes() + bounds.tobytes()).hexdigest(),
    }


def _chain(parts: Iterable[Sequence[int]]) -> Iterable[int]:
    return (value for part in parts for value in part)


def _rendered(conversations: Sequence[ChatExample], style: PromptStyle, problems: EncodingProblems) -> Iterator[str]:
    """The texts that the tokenizer is trained on."""
    for conversation in conversations:
        try:
            segments = style.segments(conversation.messages)
        except (ConfigError, ChatTemplateError) as problem:
            problems.add(conversation, problem)
        else:
            yield "".join(segment.text for segment in segments if not segment.is_token)


def _held_out(conversations: Sequence[ChatExample]) -> list[list[dict[str, str]]]:
    """The first exchange of a few held-out conversations, with the original answer."""
    shown = []
    for conversation in conversations[:HELD_OUT_SHOWN]:
        first = [m.role for m in conversation.messages].index("assistant")
        shown.append([{"role": m.role, "content": m.content} for m in conversation.messages[: first + 1]])
    return shown


def _log_cuts(data: ChatDataSettings, chats: Sequence[EncodedChat], block_size: int) -> None:
    shortened = [chat for chat in chats if chat.exchanges_cut or chat.tokens_cut]
    if shortened:
        logger.warning(
            "data %s: %s conversation(s) longer than model.block_size=%s lost %s of their oldest exchanges, and %s of "
            "them the beginning of the last one",
            data.name,
            f"{len(shortened):,}",
            block_size,
            f"{sum(chat.exchanges_cut for chat in shortened):,}",
            f"{sum(bool(chat.tokens_cut) for chat in shortened):,}",
        )


def _refuse_few(count: int, data: ChatDataSettings, left_out: str, *, broken: Sequence[str] = ()) -> None:
    if count < MIN_CONVERSATIONS:
        formats = f"; rows in a known format: {known_formats()}" if broken and not count else ""
        raise DataError(
            f"{shown(data.path)} holds {count} usable conversation{'' if count == 1 else 's'}"
            + (f" (left out: {left_out})" if left_out else "")
            + (f". The first: {broken[0]}" if broken and not count else ""),
            needed=f"at least {MIN_CONVERSATIONS}, of which one is held out for validation{formats}",
            fix="chat more (lcp serve writes chat_history.jsonl), or data.path=OTHER",
        )
