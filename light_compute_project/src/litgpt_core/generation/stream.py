"""Streaming detokenizer: returns only whole characters, whose concatenation equals decoding all tokens at once."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litgpt_core.tokenizers.base import Tokenizer

REPLACEMENT = "\ufffd"


class StreamDecoder:
    """Converts the tokens of one continuation to text, one token at a time.

    Tokens that represent bytes go through an incremental UTF-8 decoder. Where a token's text depends on its neighbours
    (`Tokenizer.token_bytes` returns None, as for some Hugging Face tokenizers), all tokens are decoded again at each
    step and the difference is returned, which takes time quadratic in the length.

    Args:
        tokenizer: The model's tokenizer.
        prompt_ids: The prompt: it can decide whether the first word starts with a space.
    """

    def __init__(self, tokenizer: Tokenizer, *, prompt_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._parts: list[str] = []  # all text returned so far, including the prompt
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._mid_character = False
        self._by_bytes = True
        for token_id in prompt_ids:
            self._ids.append(token_id)
            self._take_bytes(token_id)
        if not self._by_bytes:
            self._parts = [tokenizer.decode(self._ids)]

    def push(self, token_id: int) -> str:
        """Add a token; returns the text that is now final, which is empty in the middle of a character."""
        self._ids.append(token_id)
        text = self._take_bytes(token_id)
        return text if self._by_bytes else self._difference(final=False)

    def push_all(self, token_ids: Sequence[int]) -> str:
        """Add several tokens; equals calling `push` for each."""
        parts = [self._tokenizer.token_bytes(token_id) for token_id in token_ids] if self._by_bytes else [None]
        if None in parts:
            return "".join(map(self.push, token_ids))
        self._ids += token_ids
        return self._take(b"".join(parts))  # type: ignore[arg-type]

    def finish(self) -> str:
        """Returns the rest, with U+FFFD for an incomplete character."""
        return self._utf8.decode(b"", final=True) if self._by_bytes else self._difference(final=True)

    def _take_bytes(self, token_id: int) -> str:
        data = self._tokenizer.token_bytes(token_id) if self._by_bytes else None
        if data is None:
            self._by_bytes = False
            return ""
        return self._take(data)

    def _take(self, data: bytes) -> str:
        if not self._mid_character and data.isascii():
            text = data.decode("ascii")
        else:
            text = self._utf8.decode(data)
            self._mid_character = bool(self._utf8.getstate()[0])
        self._parts.append(text)
        return text

    def _difference(self, *, final: bool) -> str:
        text, sent = self._tokenizer.decode(self._ids), "".join(self._parts)
        if not final:
            text = text.rstrip(REPLACEMENT)  # the next token may complete this character
        if text.startswith(sent):
            new = text[len(sent) :]
        elif final:  # the tokenizer changed text that was already returned: continue after the common prefix
            common = next((i for i, (a, b) in enumerate(zip(text, sent, strict=False)) if a != b), len(text))
            new = text[common:]
        else:
            return ""
        self._parts = [sent, new]
        return new


def text_after(tokenizer: Tokenizer, prompt_ids: Sequence[int], new_ids: Sequence[int]) -> str:
    """The text of `new_ids` as a continuation of `prompt_ids`."""
    decoder = StreamDecoder(tokenizer, prompt_ids=prompt_ids)
    return "".join(map(decoder.push, new_ids)) + decoder.finish()
