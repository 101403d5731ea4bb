"""A checkpoint's tokenizer as `vocabulary.js` reads it: tokens, types, and how text is cut and merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.parsing import read_json
from litgpt_core.export.gguf.layout import TOKENIZER
from litgpt_core.export.gguf.vocabulary_out import tokens_of, vocabulary_fields
from litgpt_core.tokenizers import Tokenizer
from litgpt_core.tokenizers.directory import MAX_DEFINITION_BYTES

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `ByteLevel` cuts by, if nothing else is said."""
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's white space. JavaScript's own `\\s` lacks U+0085 and has U+FEFF."""


def definition_of(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer of a checkpoint directory.

    Raises:
        TokenizerError: The page would return other ids.
    """
    content = _byte_level(directory, tokenizer)
    if content is not None:
        tokens, types = tokens_of(content, tokenizer.vocab_size)
        model = content["model"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        found: dict[str, Any] = {"model": "gpt2", "tokens": tokens, "types": types, "merges": merges}
        found |= {"steps": steps_of(content.get("pre_tokenizer")), "whole": bool(model.get("ignore_merges"))}
    else:
        fields = {key.removeprefix(TOKENIZER): value for key, value in vocabulary_fields(directory, tokenizer).items()}
        found = {"model": fields["model"], "tokens": fields["tokens"], "types": fields["token_type"], "steps": []}
        if fields["model"] == "llama":
            found["scores"] = [int(each) if each == int(each) else each for each in fields["scores"]]
    return {
        "whole": False,
        "leading": content is None and bool(fields["add_space_prefix"]),
        "literal": tokenizer.kind in ("sentencepiece", "char"),
        "parse": tokenizer.kind == "foreign",
        "bos": tokenizer.bos_id,
        "useBos": tokenizer.use_bos,
        "eos": tokenizer.eos_id,
        **found,
    }


def _byte_level(directory: Path, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The tokenizer.json of a byte-level BPE; None for other kinds."""
    if tokenizer.kind not in ("bpe", "foreign") or not (directory / "tokenizer.json").is_file():
        return None
    content: dict[str, Any] = read_json(directory / "tokenizer.json", max_bytes=MAX_DEFINITION_BYTES)
    model = content["model"]
    plain = model.get("type") == "BPE" and not model.get("byte_fallback") and content.get("normalizer") is None
    return content if plain else None


def steps_of(cut: Any) -> list[str]:
    """Patterns of JavaScript whose matches, and what is between them, are the words; applied one after the other.

    Args:
        cut: `pre_tokenizer` of tokenizer.json.

    Raises:
        TokenizerError: It does more than cut.
    """
    if cut is None:
        return []
    kind = cut.get("type")
    if kind == "Sequence":
        return [step for each in cut["pretokenizers"] for step in steps_of(each)]
    if kind == "ByteLevel" and not cut.get("add_prefix_space"):
        return [in_javascript(GPT2_WORDS)] if cut.get("use_regex", True) else []
    if kind == "Digits":
        return [r"\p{N}" if cut.get("individual_digits") else r"\p{N}+"]
    if kind == "Split" and str(cut.get("behavior")).lower() == "isolated" and "Regex" in cut["pattern"]:
        return [in_javascript(cut["pattern"]["Regex"])]
    raise TokenizerError(
        f"The tokenizer cuts text by {kind} with settings that the page does not have.",
        needed="Split by a pattern, Digits or ByteLevel",
        fix="--format gguf, or --format huggingface",
    )


def in_javascript(pattern: str) -> str:
    """A pattern of tokenizer.json for a JavaScript expression with the flag u."""
    contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    spelled = "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
    text = pattern.replace(contractions, spelled)
    if "(?i" in text:
        raise TokenizerError("The tokenizer cuts text by a pattern that ignores case.", needed="another pattern")
    result, inside, at = "", False, 0
    while at < len(text):
        two, one = text[at : at + 2], text[at]
        if two in (r"\s", r"\S"):
            assert two == r"\s" or not inside, "no class holds \\S"
            result += _SPACE if inside else f"[{'^' if two == chr(92) + 'S' else ''}{_SPACE}]"
            at += 2
            continue
        if one == "\\":
            result += two
            at += 2
            continue
        inside = one == "[" or (inside and one != "]")
        result += one
        at += 1
    return result
