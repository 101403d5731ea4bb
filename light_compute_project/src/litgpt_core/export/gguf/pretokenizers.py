"""How a byte-level BPE cuts text into words: GGUF's name for it (`tokenizer.ggml.pre`) -> tokenizer.json.

llama.cpp has these patterns compiled in and knows them by name only. Listed here are those whose ids were compared with
llama.cpp's; under another name a file would be cut differently without notice, so it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_WORDS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
QWEN2_WORDS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_GPT2 = {**_BYTES, "use_regex": True}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def _split(pattern: str) -> dict[str, Any]:
    words = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return _sequence(words, {**_BYTES, "use_regex": False})


@dataclass(frozen=True, kw_only=True)
class Pretokenizer:
    """One way to cut text into words."""

    json: dict[str, Any] = field(hash=False)
    """`pre_tokenizer` of tokenizer.json."""
    ignore_merges: bool = False
    """A word that is a token as a whole is not merged."""
    add_bos: bool = False
    """llama.cpp's default where the file has no `add_bos_token`."""


_DIGITS = _sequence({"type": "Digits", "individual_digits": True}, _GPT2)

PRETOKENIZERS = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo"), Pretokenizer(json=_GPT2)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), Pretokenizer(json=_DIGITS)),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3"), Pretokenizer(json=_split(LLAMA3_WORDS), ignore_merges=True, add_bos=True)
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Pretokenizer(json=_split(QWEN2_WORDS))),
}
"""Name in the file -> how it cuts."""
