"""How a byte-level BPE cuts text into words: GGUF's name for it (`tokenizer.ggml.pre`) -> tokenizer.json.

llama.cpp has these patterns compiled in and knows them by name only. Listed here are those whose ids were compared with
llama.cpp's; under another name a file would be cut differently without notice, so it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from litgpt_core.tokenizers.words import GPT2_STEP, LLAMA3_WORDS, QWEN2_WORDS, sequence, split


@dataclass(frozen=True, kw_only=True)
class Pretokenizer:
    """One way to cut text into words."""

    json: dict[str, Any] = field(hash=False)
    """`pre_tokenizer` of tokenizer.json."""
    ignore_merges: bool = False
    """A word that is a token as a whole is not merged."""
    add_bos: bool = False
    """llama.cpp's default where the file has no `add_bos_token`."""


_DIGITS = sequence({"type": "Digits", "individual_digits": True}, GPT2_STEP)

PRETOKENIZERS = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo"), Pretokenizer(json=GPT2_STEP)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), Pretokenizer(json=_DIGITS)),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3"), Pretokenizer(json=split(LLAMA3_WORDS), ignore_merges=True, add_bos=True)
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Pretokenizer(json=split(QWEN2_WORDS))),
}
"""Name in the file -> how it cuts."""
