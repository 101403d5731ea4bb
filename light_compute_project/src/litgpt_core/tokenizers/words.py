"""How byte-level BPE cuts text into words, within which it merges bytes: `tokenizer.words`.

    light     names with `_`, digits one by one, a line end with the indentation after it
    gpt2      GPT-2's: contractions, letters, numbers, others, each with the space before it
    llama3    Llama 3's: numbers in groups of three, line ends after punctuation; a word that is a token is not merged
    qwen2     Qwen 2's: as Llama 3's, digits one by one

The last three are known to llama.cpp, which has its patterns compiled in; with them a model can be exported to GGUF.
"""

from __future__ import annotations

from typing import Any, Literal

Words = Literal["light", "gpt2", "llama3", "qwen2"]

LIGHT_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{L}_]{1,64}"  # a name with the space, dot or bracket before it
    r"|\p{N}"  # digits one by one
    r"| ?[^\s\p{L}\p{N}]{1,64}(?:[\r\n]+[ \t]{0,64})?"  # punctuation, with a line end and the indentation after it
    r"|[\r\n]+[ \t]{0,64}"
    r"|\s{1,64}(?!\S)|\s{1,64}"
)
"""Lengths are bounded, because WordPiece's search is quadratic in the length of a word."""
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_WORDS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
QWEN2_WORDS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
GPT2_STEP = {**_BYTES, "use_regex": True}
"""`ByteLevel` has GPT-2's pattern built in."""


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    """Several steps as one `pre_tokenizer`."""
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(pattern: str) -> dict[str, Any]:
    """The `pre_tokenizer` that cuts by a pattern and then writes bytes as characters."""
    words = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return sequence(words, {**_BYTES, "use_regex": False})


PRE_TOKENIZERS: dict[Words, dict[str, Any]] = {
    "light": split(LIGHT_WORDS),
    "gpt2": GPT2_STEP,
    "llama3": split(LLAMA3_WORDS),
    "qwen2": split(QWEN2_WORDS),
}
"""`pre_tokenizer` of tokenizer.json."""
WHOLE_WORDS: tuple[Words, ...] = ("llama3",)
"""With `ignore_merges`: a word that is a token as a whole is not merged."""
