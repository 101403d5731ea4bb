"""Import and export of a tokenizer's files: copied unchanged where both sides can read them, converted otherwise.

Import: tokenizer.json or tokenizer.model are copied; GPT-2's vocab.json and merges.txt become a tokenizer.json. What
        LitGPT and our tokenizers also need (a class name, the ids of bos and eos) is taken from the folder.
Export: AutoTokenizer returns the same ids as our tokenizer. Our SentencePiece models get a tokenizer.json, because
        transformers interprets a tokenizer.model alone differently.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litgpt_core import tokenizers
from litgpt_core.checkpoint.layout import TOKENIZER_FILES
from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.links import refuse_leading_out
from litgpt_core.core.parsing import read_json as read_any_json
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
from litgpt_core.tokenizers.directory import json_bytes

_ID_KEYS = ("bos_token_id", "eos_token_id")
_JSON_CLASS = "PreTrainedTokenizerFast"
_GPT2_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizerFast", "GPTNeoXTokenizer")


def gather_tokenizer(folder: Path, target: Path, *, model: Mapping[str, Any]) -> None:
    """Copy a folder's tokenizer to the empty `target`, in the form that our tokenizers and LitGPT load.

    Args:
        model: config.json, whose bos and eos ids are used if the tokenizer's files name none.

    Raises:
        TokenizerError: There is no tokenizer, or none that can be read without transformers.
        CheckpointError: A JSON file is corrupted.
    """
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(refuse_leading_out(folder / name), target / name)
    settings = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    if settings.get("kind") == "sentencepiece" and (target / TOKENIZER_MODEL).is_file():
        (target / TOKENIZER_JSON).unlink(missing_ok=True)  # ours: written only for transformers
    if not any((target / name).is_file() for name in (TOKENIZER_JSON, TOKENIZER_MODEL)):
        _from_pieces(folder, target, settings)
    _name_class(target, settings)
    _name_ends(folder, target, settings, model)


def _name_class(target: Path, settings: dict[str, Any]) -> None:
    """LitGPT expects a `tokenizer_class` in every directory."""
    if "tokenizer_class" not in settings:
        only_model = not (target / TOKENIZER_JSON).is_file()
        settings["tokenizer_class"] = "LlamaTokenizer" if only_model else _JSON_CLASS
    _write(target / TOKENIZER_CONFIG, settings)


def _name_ends(folder: Path, target: Path, settings: dict[str, Any], model: Mapping[str, Any]) -> None:
    """If no file names the bos and eos tokens, use the ids of config.json."""
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
    """Convert GPT-2's two files to a tokenizer.json."""
    if not all((folder / name).is_file() for name in (VOCABULARY, MERGES)):
        raise TokenizerError(
            f"{folder} holds no tokenizer.",
            needed=f"{TOKENIZER_JSON}, {TOKENIZER_MODEL}, or {VOCABULARY} and {MERGES}",
            fix="also download the tokenizer's files into the folder",
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
    except Exception as problem:  # the library raises a plain Exception for every error
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


# --- export


def write_tokenizer(directory: Path, target: Path, *, longest: int) -> dict[str, Any]:
    """Write a checkpoint directory's tokenizer to `target` such that AutoTokenizer returns the same ids.

    Two properties cannot be expressed in transformers: text that spells the end token stays text, and a char tokenizer
    refuses unknown characters with a specific error (transformers raises another one).

    Args:
        longest: The model's context window, for `model_max_length`.

    Returns:
        `bos_token_id` and `eos_token_id` as far as they exist, for config.json.

    Raises:
        TokenizerError: The tokenizer cannot be read, or transformers cannot reproduce its ids.
    """
    tokenizer = tokenizers.load(directory)
    for name in TOKENIZER_FILES:
        if (directory / name).is_file() and name not in ("prompt_style.yaml", GENERATION_CONFIG):
            shutil.copyfile(refuse_leading_out(directory / name), target / name)
    ids: dict[str, Any] = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    _write(target / GENERATION_CONFIG, _generation(directory, ids))
    if tokenizer.kind == "foreign":
        return ids
    if tokenizer.kind == "sentencepiece":
        from litgpt_core.export.huggingface.sentencepiece_json import tokenizer_json

        model = (directory / TOKENIZER_MODEL).read_bytes()
        (target / TOKENIZER_JSON).write_bytes(tokenizer_json(model, add_bos=tokenizer.use_bos))
    given = read_json(directory / TOKENIZER_CONFIG)
    settings = {
        "tokenizer_class": _JSON_CLASS,
        "kind": tokenizer.kind,
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.use_bos:
        settings["add_bos_token"] = True
    if tokenizer.kind != "byte":  # its end token is a byte, which transformers would read in text if it were named
        settings |= {key: given[key] for key in ("bos_token", "eos_token") if given.get(key) is not None}
    _write(target / TOKENIZER_CONFIG, settings)
    return ids


def _generation(directory: Path, ids: Mapping[str, Any]) -> dict[str, Any]:
    """generation_config.json: the directory's own if readable, completed with our ids."""
    try:
        given = read_any_json(directory / GENERATION_CONFIG)
    except (OSError, ValueError):
        given = {}
    present = {key: value for key, value in ids.items() if value is not None}
    return {**present, **(given if isinstance(given, dict) else {})}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_bytes(json_bytes(content))
