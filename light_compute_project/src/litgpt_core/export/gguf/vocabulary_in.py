"""The tokenizer of a GGUF file as a folder that our tokenizers and LitGPT load.

    gpt2     byte-level BPE by merges; words are cut as `pretokenizers` says       -> tokenizer.json
    llama    SentencePiece's BPE by scores, bytes for unknown characters           -> tokenizer.json

Special tokens, whether prompts begin with bos, and the chat template come along. Other kinds (wordpiece, unigram) are
refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import TokenizerError
from litgpt_core.export.gguf.header import AGAIN, GGUFFile
from litgpt_core.export.gguf.layout import (
    BYTE,
    CHAT_TEMPLATE,
    CONTROL,
    NO_MERGE,
    NORMAL,
    TOKENIZER,
    UNKNOWN,
    USER_DEFINED,
)
from litgpt_core.export.gguf.pretokenizers import PRETOKENIZERS
from litgpt_core.export.huggingface.sentencepiece_json import merges_by_score
from litgpt_core.tokenizers.sentencepiece_bpe import SPACE_MARK

_ENDS = ("<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>")
"""Names of end tokens, for files that do not give its id."""
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


class GGUFVocabulary:
    """The checked fields `tokenizer.ggml.*` of a file."""

    def __init__(self, file: GGUFFile, *, words: str | None = None) -> None:
        self.file = file
        self.model = str(self._get("model", str))
        self.words = words or str(file.metadata.get(f"{TOKENIZER}pre", "default"))
        self.tokens: list[str] = self._get("tokens", list)
        types = file.metadata.get(f"{TOKENIZER}token_type")
        self.types = [NORMAL] * len(self.tokens) if types is None else [int(kind) for kind in types]
        if len(self.types) != len(self.tokens):
            raise self.wrong(f"has {len(self.tokens):,} tokens and {len(self.types):,} types")
        if len(set(self.tokens)) != len(self.tokens):
            seen: set[str] = set()
            twice = next(token for token in self.tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
            raise self.wrong(f"has the token {twice!r} twice")

    def _get(self, key: str, kind: type) -> Any:
        value = self.file.metadata.get(TOKENIZER + key)
        if not isinstance(value, kind):
            raise self.wrong(f"has no {TOKENIZER}{key}" if value is None else f"has {TOKENIZER}{key}={value!r}")
        return value

    def wrong(self, problem: str) -> TokenizerError:
        """The error for a field."""
        return TokenizerError(f"{self.file.path} {problem}.", needed="an intact tokenizer", fix=AGAIN)

    def token_id(self, role: str) -> int | None:
        """The id of bos, eos, eot, unknown or padding; None if the file names none."""
        found = self.file.metadata.get(f"{TOKENIZER}{role}_token_id")
        if found is None:
            usual = {"bos": 1, "eos": 2, "unknown": 0}.get(role) if self.model == "llama" else None
            fits = usual is not None and self.types[usual : usual + 1] in ([CONTROL], [UNKNOWN])
            return usual if fits else None
        if not isinstance(found, int) or not 0 <= found < len(self.tokens):
            raise self.wrong(f"has {TOKENIZER}{role}_token_id={found!r} and {len(self.tokens):,} tokens")
        return found

    def end(self) -> int:
        """The id that ends a text. Raises TokenizerError if there is none."""
        if (found := self.token_id("eos")) is not None:
            return found
        named = next((self.tokens.index(name) for name in _ENDS if name in self.tokens), None)
        if named is None:
            raise self.wrong(f"has no {TOKENIZER}eos_token_id")
        return named

    def flag(self, key: str, *, default: bool) -> bool:
        """A flag of the tokenizer."""
        return bool(self.file.metadata.get(TOKENIZER + key, default))


def write_tokenizer(file: GGUFFile, target: Path, *, words: str | None = None) -> int:
    """Write a file's tokenizer to the empty folder `target`; the number of tokens.

    Args:
        words: How text is cut into words (a name of `pretokenizers`), instead of what the file says.

    Raises:
        TokenizerError: Fields are missing or contradict each other, or the kind is unknown here.
    """
    vocabulary = GGUFVocabulary(file, words=words)
    makers = {"gpt2": _byte_level, "llama": _sentencepiece}
    if vocabulary.model not in makers:
        raise TokenizerError(
            f"{file.path} has a tokenizer of the kind {vocabulary.model!r}, which is unknown here.",
            needed="gpt2 (byte-level BPE) or llama (SentencePiece BPE)",
            fix="choose another model",
        )
    content = makers[vocabulary.model](vocabulary)
    settings, ids = _settings(vocabulary)
    for name, value in (
        ("tokenizer.json", content),
        ("tokenizer_config.json", settings),
        ("generation_config.json", ids),
    ):
        text = json.dumps(value, ensure_ascii=False, indent=None if name == "tokenizer.json" else 2)
        (target / name).write_text(text + "\n", encoding="utf-8")
    return len(vocabulary.tokens)


def _settings(vocabulary: GGUFVocabulary) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer_config.json and generation_config.json."""
    end, tokens = vocabulary.end(), vocabulary.tokens
    default = vocabulary.model == "llama" or (
        vocabulary.words in PRETOKENIZERS and PRETOKENIZERS[vocabulary.words].add_bos
    )
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": vocabulary.flag("add_bos_token", default=default),
        "clean_up_tokenization_spaces": False,
    }
    for role, key in _ROLES.items():
        place = end if role == "eos" else vocabulary.token_id(role)
        if place is not None:
            settings[key] = tokens[place]
    template = vocabulary.file.metadata.get(CHAT_TEMPLATE)
    if isinstance(template, str) and template.strip():
        settings["chat_template"] = template
    begin, turn = vocabulary.token_id("bos"), vocabulary.token_id("eot")
    ends = list(dict.fromkeys([end, *([] if turn is None else [turn])]))
    ids: dict[str, Any] = {"eos_token_id": ends if len(ends) > 1 else end}
    return settings, ids if begin is None else {"bos_token_id": begin, **ids}


def _added(vocabulary: GGUFVocabulary) -> list[dict[str, Any]]:
    """Tokens that are found in text before it is cut: control tokens, and those that a user defined."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    found = []
    for place, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True)):
        if kind in (CONTROL, UNKNOWN, USER_DEFINED) and token:
            found.append({"id": place, "content": token, **flags, "special": kind != USER_DEFINED})
    return found


def _content(vocabulary: GGUFVocabulary, model: Mapping[str, Any], **steps: Any) -> dict[str, Any]:
    whole = {"type": "BPE", "dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, **model}
    parts = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, **steps}
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": _added(vocabulary)}
    return {**head, **parts, "model": {**whole, "vocab": {token: at for at, token in enumerate(vocabulary.tokens)}}}


def _byte_level(vocabulary: GGUFVocabulary) -> dict[str, Any]:
    known = PRETOKENIZERS.get(vocabulary.words)
    if known is None:
        raise TokenizerError(
            f"{vocabulary.file.path} cuts words by rules called {vocabulary.words!r}, which are unknown here.",
            needed=f"one of {', '.join(PRETOKENIZERS)}",
            fix="choose another model, or say which of them fits: --words NAME",
        )
    merges = vocabulary._get("merges", list)
    model = {"unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": known.ignore_merges}
    return _content(
        vocabulary,
        {**model, "merges": _pairs(vocabulary, merges)},
        pre_tokenizer=known.json,
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    )


def _pairs(vocabulary: GGUFVocabulary, merges: Sequence[str]) -> list[list[str]]:
    known = set(vocabulary.tokens)
    pairs = []
    for merge in merges:
        if merge == NO_MERGE and merge.replace(" ", "") not in known:
            continue
        left, _, right = merge.partition(" ") if merge[:1] != " " else (merge[:1], "", merge[2:])
        if left not in known or right not in known or left + right not in known:
            raise vocabulary.wrong(f"merges {merge!r}, which is not made of tokens")
        pairs.append([left, right])
    return pairs


def _sentencepiece(vocabulary: GGUFVocabulary) -> dict[str, Any]:
    scores = vocabulary.file.metadata.get(f"{TOKENIZER}scores")
    if scores is None or len(scores) != len(vocabulary.tokens):
        raise vocabulary.wrong(f"has no {TOKENIZER}scores, one for each token")
    normal = {
        token: float(score)
        for token, kind, score in zip(vocabulary.tokens, vocabulary.types, scores, strict=True)
        if kind == NORMAL and token
    }
    leading = vocabulary.flag("add_space_prefix", default=True)
    unknown = vocabulary.token_id("unknown")
    model = {
        "unk_token": None if unknown is None else vocabulary.tokens[unknown],
        "fuse_unk": True,
        "byte_fallback": BYTE in vocabulary.types,
        "ignore_merges": False,
        "merges": merges_by_score(normal),
    }
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
    before = [{"type": "Prepend", "prepend": SPACE_MARK}] if leading else []
    after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if leading else []
    decoders = [
        {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *after,
    ]
    return _content(
        vocabulary,
        model,
        normalizer={"type": "Sequence", "normalizers": [*before, spaces]},
        decoder={"type": "Sequence", "decoders": decoders},
    )
