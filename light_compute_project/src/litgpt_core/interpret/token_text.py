"""One token as text for people: spaces included, bytes that are no text and special ids in angle brackets."""

from __future__ import annotations

from litgpt_core.tokenizers.base import Tokenizer


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text of an id; `<eos>` and `<17>` for special ids and those that the tokenizer does not have."""
    if token >= tokenizer.vocab_size or token in tokenizer.special_ids():
        return "<eos>" if token == tokenizer.eos_id else f"<{token}>"
    raw = tokenizer.token_bytes(token)
    if raw is None:
        return tokenizer.decode([token])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<{byte:02X}>" for byte in raw)
    return "".join(letter if letter.isprintable() or letter in "\n\t" else f"<{ord(letter):02X}>" for letter in text)
