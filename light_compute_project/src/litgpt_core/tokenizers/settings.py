"""Settings of tokenizers, one class per family. Standard library only; no training or file access."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from litgpt_core.core.errors import ConfigError
from litgpt_core.tokenizers.words import Words

SubwordKind = Literal["bpe", "wordpiece", "unigram", "sentencepiece"]
SUBWORD_KINDS: tuple[SubwordKind, ...] = ("bpe", "wordpiece", "unigram", "sentencepiece")
KINDS: tuple[str, ...] = ("char", "byte", *SUBWORD_KINDS)
"""Kinds that can be trained."""

MAX_TRAIN_BYTES = 20_000_000
UNIGRAM_MAX_TRAIN_BYTES = 4_000_000
"""Unigram's trainer builds a suffix array and runs EM: it needs minutes and gigabytes where the others need seconds."""


@dataclass(frozen=True, kw_only=True)
class CharSettings:
    """One token per Unicode character seen in the training documents, plus an end-of-document token."""

    kind: Literal["char"] = "char"
    """Which tokenizer these settings belong to."""

    def __post_init__(self) -> None:
        """Raise ConfigError when `kind` is another tokenizer's."""
        _check_kind(self.kind, ("char",))


@dataclass(frozen=True, kw_only=True)
class ByteSettings:
    """One token per UTF-8 byte: 256 ids, nothing to train."""

    kind: Literal["byte"] = "byte"
    """Which tokenizer these settings belong to."""

    def __post_init__(self) -> None:
        """Raise ConfigError when `kind` is another tokenizer's."""
        _check_kind(self.kind, ("byte",))


@dataclass(frozen=True, kw_only=True)
class SubwordSettings:
    """A vocabulary of frequent subwords, learned from the training documents."""

    kind: SubwordKind
    """Which algorithm: bpe, wordpiece, unigram (Hugging Face tokenizers) or sentencepiece (SentencePiece BPE)."""
    vocab_size: int
    """Number of ids, special tokens and byte tokens included."""
    max_train_bytes: int = MAX_TRAIN_BYTES
    """Train on a seeded sample of at most this many UTF-8 bytes (unigram has a lower ceiling of its own)."""
    seed: int = 1337
    """Seed of that sample."""
    add_bos_token: bool = False
    """Begin every training window, and every prompt later, with the tokenizer's begin-of-sequence token: the first text
    position then has something to attend to. sentencepiece only: the others have no such token.
    """
    words: Words = "light"
    """How text is cut into words, within which bytes are merged: light (this project's), or as GPT-2, Llama 3 or Qwen 2
    do it, which llama.cpp knows, so that a model can be exported to GGUF. bpe only.
    """

    def __post_init__(self) -> None:
        """Raise one ConfigError that names every problem."""
        _check_kind(self.kind, SUBWORD_KINDS)
        if self.add_bos_token and self.kind != "sentencepiece":
            raise ConfigError(
                f"tokenizer.add_bos_token=true, but tokenizer={self.kind} has no begin-of-sequence token",
                needed="tokenizer=sentencepiece",
                fix="tokenizer.add_bos_token=false",
            )
        if self.words not in get_args(Words) or (self.words != "light" and self.kind != "bpe"):
            raise ConfigError(
                f"tokenizer.words={self.words!r} with tokenizer={self.kind}",
                needed=f"one of {', '.join(get_args(Words))}; for other tokenizers than bpe: light",
                fix="tokenizer=bpe tokenizer.words=qwen2",
            )
        problems = [
            f"tokenizer.{name}={value!r} is not a whole number of at least {least}"
            for name, value, least in (
                ("vocab_size", self.vocab_size, 1),
                ("max_train_bytes", self.max_train_bytes, 1),
                ("seed", self.seed, 0),
            )
            if isinstance(value, bool) or not isinstance(value, int) or value < least
        ]
        if problems:
            raise ConfigError("; ".join(problems) + ".", fix="tokenizer.vocab_size=4096 tokenizer.seed=1337")


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings:
    """An existing tokenizer in a directory of ours or LitGPT's. Nothing is trained."""

    kind: Literal["pretrained"] = "pretrained"
    """Which tokenizer these settings belong to."""
    path: str | None = None
    """Checkpoint directory, run folder, or folder with a tokenizer's files; null: what `init_from`, or else
    `distill.teacher` names."""

    def __post_init__(self) -> None:
        """Raise ConfigError when `kind` is another tokenizer's."""
        _check_kind(self.kind, ("pretrained",))


TokenizerSettings = CharSettings | ByteSettings | SubwordSettings | PretrainedSettings


def _check_kind(kind: str, allowed: tuple[str, ...]) -> None:
    if kind not in allowed:
        raise ConfigError(
            f"tokenizer.kind={kind!r} does not fit these settings.",
            needed="one of " + ", ".join(allowed),
            fix=f"tokenizer={kind}" if kind in (*KINDS, "pretrained") else f"tokenizer={allowed[0]}",
        )
