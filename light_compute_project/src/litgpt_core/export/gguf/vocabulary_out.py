"""A checkpoint's tokenizer as the fields `tokenizer.ggml.*`, for llama.cpp to return the same ids.

    sentencepiece    llama: tokens and scores; both merge the pair with the best score, then the leftmost
    char             llama without anything to merge: each character is a token, a space is written U+2581
    byte             gpt2: the 256 letters of the bytes, and one merge that no text has, because llama.cpp wants one
    bpe, foreign     gpt2 by merges, if llama.cpp knows how the words are cut; llama for BPE with byte fallback

wordpiece and unigram are refused: llama.cpp has nothing that computes the same. The flags that llama.cpp would guess (a
space before the text, bos before it) are always written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import TokenizerError
from litgpt_core.core.parsing import read_json
from litgpt_core.export.gguf.layout import BYTE, CONTROL, NO_MERGE, NORMAL, TOKENIZER, UNKNOWN, UNUSED, USER_DEFINED
from litgpt_core.export.gguf.pretokenizers import PRETOKENIZERS
from litgpt_core.tokenizers import Tokenizer
from litgpt_core.tokenizers.byte_alphabet import BYTE_TO_CHARACTER
from litgpt_core.tokenizers.directory import MAX_DEFINITION_BYTES
from litgpt_core.tokenizers.sentencepiece_bpe import SPACE_MARK

_OTHERS = "sentencepiece, byte, char, or a byte-level BPE that cuts words as GPT-2, SmolLM, Llama 3 or Qwen 2 do"


def vocabulary_fields(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """The metadata of a directory's tokenizer, without the chat template.

    Raises:
        TokenizerError: llama.cpp would return other ids.
    """
    makers = {"sentencepiece": _scored, "char": _characters, "byte": _bytes, "bpe": _json, "foreign": _json}
    if tokenizer.kind not in makers:
        raise TokenizerError(
            f"A {tokenizer.kind} tokenizer cannot be written to a GGUF file: llama.cpp would return other ids.",
            needed=_OTHERS,
            fix="train with one of them, or --format huggingface, which keeps every tokenizer",
        )
    fields = makers[tokenizer.kind](directory, tokenizer)
    ends = _end_ids(directory, tokenizer)
    ids: dict[str, Any] = {"eos_token_id": ends[0]}
    if tokenizer.bos_id is not None:
        ids["bos_token_id"] = tokenizer.bos_id
    if len(ends) > 1:
        ids["eot_token_id"] = ends[1]
    flags = {"add_bos_token": tokenizer.use_bos, "add_eos_token": False}
    return {TOKENIZER + key: value for key, value in {**fields, **ids, **flags}.items()}


def _end_ids(directory: Path, tokenizer: Tokenizer) -> list[int]:
    """eos, and the second id that ends a turn, if generation_config.json has one."""
    try:
        given = read_json(directory / "generation_config.json")["eos_token_id"]
    except (OSError, ValueError, KeyError, TypeError):
        given = []
    listed = given if isinstance(given, list) else [given]
    others = [each for each in listed if isinstance(each, int) and 0 <= each < tokenizer.vocab_size]
    return list(dict.fromkeys([tokenizer.eos_id, *others]))


def _characters(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    tokens, types = [], []
    for place in range(tokenizer.vocab_size):
        data = tokenizer.token_bytes(place)
        assert data is not None
        types.append(NORMAL if data else CONTROL)
        tokens.append(data.decode("utf-8").replace(" ", SPACE_MARK) if data else "<|endoftext|>")
    if len(set(tokens)) != len(tokens):
        raise TokenizerError(
            "The vocabulary has both a space and U+2581, which GGUF cannot distinguish.", needed=_OTHERS
        )
    return _llama(tokens, types, [0.0] * len(tokens))


def _llama(tokens: list[str], types: list[int], scores: list[float], *, leading: bool = False) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": "llama", "pre": "default", "tokens": tokens, "scores": scores}
    flags = {"add_space_prefix": leading, "remove_extra_whitespaces": False}
    unknown = next((place for place, kind in enumerate(types) if kind == UNKNOWN), None)
    ids = {} if unknown is None else {"unknown_token_id": unknown}
    return {**fields, "token_type": types, **flags, **ids}


def _bytes(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    types = [CONTROL if place == tokenizer.eos_id else NORMAL for place in range(256)]
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": list(BYTE_TO_CHARACTER),
        "token_type": types,
        "merges": [NO_MERGE],
        "add_space_prefix": False,
    }


def _scored(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=(directory / "tokenizer.model").read_bytes())
    ids = list(range(processor.vocab_size()))
    types = [
        UNKNOWN if processor.is_unknown(place)
        else CONTROL if processor.is_control(place)
        else BYTE if processor.is_byte(place)
        else UNUSED if processor.is_unused(place)
        else NORMAL
        for place in ids
    ]  # fmt: skip
    return _llama(processor.IdToPiece(ids), types, [float(processor.get_score(place)) for place in ids])


# --- tokenizer.json


def _json(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    if not (directory / "tokenizer.json").is_file():
        raise TokenizerError(
            f"{directory} has a tokenizer.model from elsewhere, which may normalise text in its own way.",
            needed="a tokenizer.json",
            fix="AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers writes one",
        )
    content = read_json(directory / "tokenizer.json", max_bytes=MAX_DEFINITION_BYTES)
    model = content["model"]
    if model.get("type") != "BPE":
        raise TokenizerError(
            f"The tokenizer of {directory} is of the type {model.get('type')}: llama.cpp would return other ids.",
            needed="BPE",
            fix="--format huggingface, which keeps every tokenizer",
        )
    tokens, types = tokens_of(content, tokenizer.vocab_size)
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    if model.get("byte_fallback"):
        return _json_scored(content, tokens, types, merges)
    name = _words_name(content, directory)
    joined = [f"{left} {right}" for left, right in merges] or [NO_MERGE]
    fields: dict[str, Any] = {"model": "gpt2", "pre": name, "tokens": tokens, "token_type": types, "merges": joined}
    return {**fields, "add_space_prefix": False}


def tokens_of(content: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every id's token and type; ids without a token are unused."""
    names = {place: token for token, place in content["model"]["vocab"].items()}
    kinds: dict[int, int] = {}
    for added in content.get("added_tokens", []):
        names[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added.get("special") else USER_DEFINED
    tokens = [names.get(place, f"[PAD{place}]") for place in range(size)]
    types = [kinds.get(place, NORMAL if place in names else UNUSED) for place in range(size)]
    return tokens, types


def _words_name(content: Mapping[str, Any], directory: Path) -> str:
    """llama.cpp's name for the way in which a byte-level tokenizer.json cuts words."""
    if content.get("normalizer") is None:
        ignores = bool(content["model"].get("ignore_merges"))
        given = _essence(content.get("pre_tokenizer"))
        for name, known in PRETOKENIZERS.items():
            if _essence(known.json) == given and known.ignore_merges == ignores:
                return name
    raise TokenizerError(
        f"The tokenizer of {directory} cuts text into words in a way that llama.cpp does not know.",
        needed=_OTHERS,
        fix="train with tokenizer.words=qwen2 (or gpt2, llama3), or --format huggingface, which keeps every tokenizer",
    )


def _essence(value: Any) -> Any:
    """A pre-tokenizer without what does not change ids; equal ones are equal as JSON."""
    if isinstance(value, dict):
        kept = {key: _essence(each) for key, each in value.items() if key not in ("trim_offsets", "invert")}
        if kept.get("type") == "Sequence":
            steps = [step for step in kept["pretokenizers"] if step is not None]
            return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
        return kept
    return [_essence(each) for each in value] if isinstance(value, list) else value


def _json_scored(
    content: Mapping[str, Any], tokens: list[str], types: list[int], merges: list[list[str]]
) -> dict[str, Any]:
    """SentencePiece's BPE in a tokenizer.json: a token's score is the rank of the first merge that forms it."""
    steps = json.dumps(content.get("normalizer") or {})
    leading = '"Prepend"' in steps or '"prepend_scheme": "first"' in json.dumps(content.get("pre_tokenizer") or {})
    if content.get("pre_tokenizer") is not None and "Metaspace" not in json.dumps(content["pre_tokenizer"]):
        allowed = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
        if _essence(content["pre_tokenizer"]) != allowed:
            raise TokenizerError(
                "The tokenizer cuts text before it merges characters, which llama.cpp does not.", needed=_OTHERS
            )
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    scores = [-float(ranks.get(token, len(merges))) for token in tokens]
    unknown = content["model"].get("unk_token")
    for place, token in enumerate(tokens):
        if token == unknown:
            types[place] = UNKNOWN
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            types[place] = BYTE
    return _llama(tokens, types, scores, leading=leading)
