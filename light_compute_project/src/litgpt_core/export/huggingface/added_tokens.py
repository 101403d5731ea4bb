"""Tokens that a folder adds to its tokenizer file, and ids that config.json and the tokenizer must agree on.

A `tokenizer.model` cannot hold the tokens of `added_tokens.json`; transformers adds them when it loads the folder. Here
they are built into a tokenizer.json with the same ids, which LitGPT reads too, or the folder is refused: without them
the markers of a chat would be ordinary text, and a model whose end token is one of them would never end.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import TokenizerError
from litgpt_core.export.huggingface.folder import read_json
from litgpt_core.export.huggingface.layout import (
    GENERATION_CONFIG,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    TOKENIZER_MODEL,
)
from litgpt_core.export.huggingface.sentencepiece_json import foreign_tokenizer_json
from litgpt_core.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

ADDED_TOKENS = "added_tokens.json"
_SAVE = "AutoTokenizer.from_pretrained({0!r}).save_pretrained({0!r}) writes a complete tokenizer.json"
_TEXTS = (
    "Hello, world! The quick brown fox jumps over the lazy dog.",
    "two  spaces, a tab\tand\nlines\r\n\n   indented",
    "def f(x):\n    return x ** 2  # 100,000.5",
    "Größe naïve čeština Привет 日本語 中文 한국어 العربية 🎉👩‍💻 \u200b\u2581",
    "",
    "a",
)


def build_in_added_tokens(folder: Path, target: Path) -> None:
    """Make the tokenizer in `target` hold every token that `folder` adds, with its id.

    Args:
        folder: The Hugging Face folder.
        target: Holds a copy of its tokenizer's files, which are changed where needed.

    Raises:
        TokenizerError: Tokens are missing, and cannot be built in with the same ids.
    """
    added = _added(folder)
    if (target / TOKENIZER_JSON).is_file():
        known = _ids_of_json(target / TOKENIZER_JSON)
        missing = {token: place for token, place in added.items() if known.get(token) != place}
        if missing and ((folder / TOKENIZER_JSON).is_file() or not _append(target / TOKENIZER_JSON, missing)):
            raise _incomplete(folder, TOKENIZER_JSON, missing)
        return
    if not (target / TOKENIZER_MODEL).is_file():
        return
    from sentencepiece import SentencePieceProcessor

    definition = (target / TOKENIZER_MODEL).read_bytes()
    try:
        processor = SentencePieceProcessor(model_proto=definition)
    except RuntimeError:
        return  # loading it gives the error
    size = processor.vocab_size()
    missing = {token: place for token, place in added.items() if place >= size or processor.id_to_piece(place) != token}
    end = _named(folder, "eos_token") or ""
    other_end = processor.piece_to_id(end) not in (processor.unk_id(), processor.eos_id())
    if not missing and not other_end:
        return
    content = foreign_tokenizer_json(definition, added=missing)
    if content is None or not _same_ids(content, processor):
        raise _incomplete(folder, TOKENIZER_MODEL, missing or {end: processor.piece_to_id(end)})
    (target / TOKENIZER_JSON).write_bytes(content)
    (target / TOKENIZER_MODEL).unlink()
    logger.info(
        "%s: %d added token(s) built into %s: %s", folder, len(missing), TOKENIZER_JSON, ", ".join(list(missing)[:8])
    )


def compare_ids(folder: Path, tokenizer: Tokenizer, *, model: Mapping[str, Any]) -> None:
    """Compare the ids of bos, eos and pad in config.json and generation_config.json with the tokenizer's.

    Args:
        folder: The Hugging Face folder.
        tokenizer: As imported.
        model: config.json.

    Raises:
        TokenizerError: The tokenizer lacks every id that ends a text: the model would never end.
    """
    given = read_json(folder / GENERATION_CONFIG) if (folder / GENERATION_CONFIG).is_file() else {}
    ours = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    for role, own in ours.items():
        source = GENERATION_CONFIG if given.get(f"{role}_token_id") is not None else "config.json"
        ids = _ids((given if source == GENERATION_CONFIG else model).get(f"{role}_token_id"))
        if role == "eos" and ids and min(ids) >= tokenizer.vocab_size:
            raise TokenizerError(
                f"{folder / source} ends texts with id {ids[0]}; the tokenizer has the ids 0 to "
                f"{tokenizer.vocab_size - 1}.",
                needed="a tokenizer with every token of the model, or the model would never end",
                fix=_SAVE.format(str(folder)),
            )
        if ids and own is not None and own not in ids:
            logger.warning(
                "%s gives %s_token_id %s, the tokenizer %d: the tokenizer's is used",
                folder / source,
                role,
                ", ".join(map(str, ids)),
                own,
            )
    pads = _ids(model.get("pad_token_id"))
    if pads and pads[0] >= tokenizer.vocab_size:
        logger.warning("%s gives pad_token_id %d, which the tokenizer lacks", folder / "config.json", pads[0])


def _ids(value: object) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    return [each for each in listed if isinstance(each, int) and not isinstance(each, bool) and each >= 0]


def _added(folder: Path) -> dict[str, int]:
    """Token -> id, of every file that lists added tokens."""
    found: dict[str, int] = {}
    if (folder / ADDED_TOKENS).is_file():
        listed = read_json(folder / ADDED_TOKENS)
        found |= {token: place for token, place in listed.items() if _ids(place)}
    config = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    decoder = config.get("added_tokens_decoder")
    for place, token in decoder.items() if isinstance(decoder, dict) else ():
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and place.isdecimal():
            found.setdefault(content, int(place))
    return found


def _named(folder: Path, key: str) -> str | None:
    """The token that tokenizer_config.json or special_tokens_map.json names for a role."""
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS):
        entry = read_json(folder / name).get(key) if (folder / name).is_file() else None
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str) and content:
            return content
    return None


def _ids_of_json(path: Path) -> dict[str, int]:
    from tokenizers import Tokenizer as Processor

    try:
        return dict(Processor.from_file(str(path)).get_vocab(with_added_tokens=True))
    except Exception as problem:  # the library raises a plain Exception for every error
        raise TokenizerError(f"{path} cannot be read as a tokenizer: {problem}", needed="an intact file") from None


def _append(path: Path, missing: Mapping[str, int]) -> bool:
    """Add tokens to a tokenizer.json that was made here from vocab.json and merges.txt; whether they got their ids."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Processor

    processor = Processor.from_file(str(path))
    ordered = sorted(missing, key=lambda token: missing[token])
    processor.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ordered])
    if any(processor.token_to_id(token) != place for token, place in missing.items()):
        return False
    processor.save(str(path))
    return True


def _same_ids(content: bytes, processor: Any) -> bool:
    """Whether the converted tokenizer gives the same ids on fixed texts and on random sequences of ordinary tokens."""
    from tokenizers import Tokenizer as Processor

    converted = Processor.from_buffer(content)
    rng = random.Random(0)
    marked = set(Processor.from_buffer(content).get_added_tokens_decoder())
    plain = [place for place in range(processor.vocab_size()) if place not in marked]
    sampled = [processor.decode(rng.choices(plain, k=12)).lstrip() for _ in range(300)]
    return all(
        converted.encode(text, add_special_tokens=False).ids == processor.encode(text) for text in (*_TEXTS, *sampled)
    )


def _incomplete(folder: Path, name: str, missing: Mapping[str, int]) -> TokenizerError:
    shown = ", ".join(f"{token!r} ({place})" for token, place in list(missing.items())[:5])
    return TokenizerError(
        f"{folder / name} lacks {len(missing)} added token(s) of the folder: {shown}",
        needed="a tokenizer file with every token at its id",
        fix=_SAVE.format(str(folder)),
    )
