"""A tokenizer's files, in and out: copied as they are wherever both sides read them, built where one side cannot.

In:  tokenizer.json or tokenizer.model travel unchanged; GPT-2's vocab.json and merges.txt become a tokenizer.json. What
     LitGPT and our room need beside them (a class name, the ids of bos and eos) is filled in from the folder.
Out: AutoTokenizer gives the ids that our tokenizer gives. Our SentencePiece models get a tokenizer.json, because
     transformers reads a bare tokenizer.model by rules of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litgpt_core import tokenizers
from litgpt_core.checkpoint.layout import TOKENIZER_FILES
from litgpt_core.core.errors import TokenizerError
from litgpt_core.export.huggingface.folder import read_json
from litgpt_core.export.huggingface.layout import (
    GENERATION_CONFIG,
    MERGES,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    TOKENIZER_MODEL,
    VOCABULARY,
)

_ID_KEYS = ("bos_token_id", "eos_token_id")
_JSON_CLASS = "PreTrainedTokenizerFast"
_GPT2_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizerFast", "GPTNeoXTokenizer")


def gather_tokenizer(folder: Path, target: Path, *, model: Mapping[str, Any]) -> None:
    """Put a folder's tokenizer into the empty `target`, in the form that our room and LitGPT load.

    Args:
        model: config.json, whose bos and eos ids stand in where the tokenizer's own files name none.

    Raises:
        TokenizerError: There is no tokenizer, or none that can be read without transformers.
        CheckpointError: A JSON file is broken.
    """
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    settings = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    if settings.get("kind") == "sentencepiece" and (target / TOKENIZER_MODEL).is_file():
        (target / TOKENIZER_JSON).unlink(missing_ok=True)  # ours: written beside it for transformers only
    if not any((target / name).is_file() for name in (TOKENIZER_JSON, TOKENIZER_MODEL)):
        _from_pieces(folder, target, settings)
    _name_class(target, settings)
    _name_ends(folder, target, settings, model)


def _name_class(target: Path, settings: dict[str, Any]) -> None:
    """LitGPT asks every directory for a `tokenizer_class`."""
    if "tokenizer_class" not in settings:
        only_model = not (target / TOKENIZER_JSON).is_file()
        settings["tokenizer_class"] = "LlamaTokenizer" if only_model else _JSON_CLASS
    _write(target / TOKENIZER_CONFIG, settings)


def _name_ends(folder: Path, target: Path, settings: dict[str, Any], model: Mapping[str, Any]) -> None:
    """Where no file says which tokens begin and end a text, take the ids of config.json."""
    special = read_json(folder / SPECIAL_TOKENS) if (folder / SPECIAL_TOKENS).is_file() else {}
    found = {key: special[key] for key in ("bos_token", "eos_token") if not settings.get(key) and special.get(key)}
    if found:
        settings |= found
        _write(target / TOKENIZER_CONFIG, settings)
    if not (folder / GENERATION_CONFIG).is_file():
        ids = {key: model[key] for key in _ID_KEYS if isinstance(model.get(key), int | list)}
        if ids and settings.get("kind") is None:
            _write(target / GENERATION_CONFIG, ids)


def _from_pieces(folder: Path, target: Path, settings: dict[str, Any]) -> None:
    """GPT-2's two files as one tokenizer.json."""
    if not all((folder / name).is_file() for name in (VOCABULARY, MERGES)):
        raise TokenizerError(
            f"{folder} holds no tokenizer.",
            needed=f"{TOKENIZER_JSON}, {TOKENIZER_MODEL}, or {VOCABULARY} and {MERGES}",
            fix="download the tokenizer's files into the folder too",
        )
    if settings.get("tokenizer_class") not in _GPT2_CLASSES:
        raise TokenizerError(
            f"{folder} has {VOCABULARY} and {MERGES} of a {settings['tokenizer_class']}, which cuts text by "
            "rules of its own.",
            needed=TOKENIZER_JSON,
            fix=f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r}) writes it",
        )
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = read_json(folder / VOCABULARY)
    try:
        model = models.BPE.from_file(str(folder / VOCABULARY), str(folder / MERGES))
    except Exception as problem:  # the library raises bare Exception for every kind of damage
        raise TokenizerError(
            f"{folder / VOCABULARY} and {MERGES} cannot be read: {problem}", needed="intact files of one tokenizer"
        ) from None
    built: Tokenizer = Tokenizer(model)
    spaced = bool(settings.get("add_prefix_space", False))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=True)
    built.decoder = decoders.ByteLevel()
    built.post_processor = processors.ByteLevel(trim_offsets=False)
    names = {_content(settings.get(key)) or "<|endoftext|>" for key in ("bos_token", "eos_token", "unk_token")}
    built.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in sorted(names & set(pieces))])
    built.save(str(target / TOKENIZER_JSON))


def _content(entry: object) -> str | None:
    value = entry.get("content") if isinstance(entry, dict) else entry
    return value if isinstance(value, str) else None


# --- out


def write_tokenizer(directory: Path, target: Path, *, longest: int) -> dict[str, Any]:
    """Write a checkpoint directory's tokenizer into `target` such that AutoTokenizer gives the same ids.

    Two things cannot be said to transformers: that text which spells the end token stays text, and that a char
    tokenizer refuses unknown characters by name (there it raises an error of its own).

    Args:
        longest: Most tokens of the model, for `model_max_length`.

    Returns:
        `bos_token_id` and `eos_token_id` as far as they exist, for config.json.

    Raises:
        TokenizerError: The tokenizer cannot be read, or has no form that transformers gives the same ids with.
    """
    tokenizer = tokenizers.load(directory)
    for name in TOKENIZER_FILES:
        if (directory / name).is_file() and name not in ("prompt_style.yaml", GENERATION_CONFIG):
            shutil.copyfile(directory / name, target / name)
    ids: dict[str, Any] = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    _write(target / GENERATION_CONFIG, _generation(directory, ids))
    if tokenizer.kind == "foreign":
        return ids
    if tokenizer.kind == "sentencepiece":
        from litgpt_core.export.huggingface.sentencepiece_json import tokenizer_json

        (target / TOKENIZER_JSON).write_bytes(tokenizer_json((directory / TOKENIZER_MODEL).read_bytes()))
    given = read_json(directory / TOKENIZER_CONFIG)
    settings = {
        "tokenizer_class": _JSON_CLASS,
        "kind": tokenizer.kind,
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.kind != "byte":  # its end token is a byte's stand-in: named there, the letter would be read as the end
        settings |= {key: given[key] for key in ("bos_token", "eos_token") if given.get(key) is not None}
    _write(target / TOKENIZER_CONFIG, settings)
    return ids


def _generation(directory: Path, ids: Mapping[str, Any]) -> dict[str, Any]:
    """generation_config.json: the directory's own if it can be read, with our ids where it has none."""
    try:
        given = json.loads((directory / GENERATION_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        given = {}
    present = {key: value for key, value in ids.items() if value is not None}
    return {**present, **(given if isinstance(given, dict) else {})}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
