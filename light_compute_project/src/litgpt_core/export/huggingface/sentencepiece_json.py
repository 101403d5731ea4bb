"""Converts one of our SentencePiece BPE models to a tokenizer.json with the same ids.

Both merge the best pair first. SentencePiece scores the piece that a pair forms; tokenizer.json ranks the pairs. So
every way to form a piece from two others becomes a merge, ranked by the score of that piece.

    text    -> normalizer: spaces become U+2581
    pieces  -> BPE with byte fallback, without pre-tokenization: our pieces span words
    ids     -> decoder: U+2581 becomes a space, byte tokens become bytes

One exception: a literal U+2581, which our encoder writes as bytes, becomes a space.
Models from elsewhere may normalise text, add a leading space, or contain user-defined pieces: `foreign_tokenizer_json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sentencepiece import SentencePieceProcessor

from litgpt_core.tokenizers.sentencepiece_bpe import SPACE_MARK


def tokenizer_json(model: bytes, *, add_bos: bool = False) -> bytes:
    """The file's content for a tokenizer.model of kind `sentencepiece`; `add_bos` begins every text with bos."""
    processor = SentencePieceProcessor(model_proto=model)
    ids = list(range(processor.vocab_size()))
    pieces: list[str] = processor.id_to_piece(ids)
    special = [place for place in ids if processor.is_control(place) or processor.is_unknown(place)]
    scores = {
        pieces[place]: float(processor.get_score(place))
        for place in ids
        if place not in special and not processor.is_byte(place)
    }
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(place, pieces[place]) for place in special],
        "normalizer": _replace(" ", SPACE_MARK),
        "pre_tokenizer": None,
        "post_processor": _begin(processor.bos_id(), pieces[processor.bos_id()]) if add_bos else None,
        "decoder": {
            "type": "Sequence",
            "decoders": [_replace(SPACE_MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[processor.unk_id()],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: place for place, piece in enumerate(pieces)},
            "merges": merges_by_score(scores),
        },
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def _begin(token_id: int, token: str) -> dict[str, Any]:
    """A template that puts one token before every text."""
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in ("A", "B")]
    return {
        "type": "TemplateProcessing",
        "single": [first, texts[0]],
        "pair": [first, *texts],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


def foreign_tokenizer_json(model: bytes, *, added: Mapping[str, int]) -> bytes | None:
    """The file's content for a `tokenizer.model` from elsewhere with more tokens; None where it cannot be expressed.

    Only for BPE models that leave text as it is but for a leading space, as Llama's and Mistral's. As in transformers,
    that space is put before a text, not after a special token in it, and not before a text that begins with one.
    Whether the ids are the same is for the caller to check.

    Args:
        model: The file's bytes.
        added: Token -> id; the ids must continue those of the model.
    """
    try:
        from sentencepiece import sentencepiece_model_pb2 as definitions
    except ImportError:  # it needs the package protobuf
        return None
    proto: Any = definitions.ModelProto.FromString(model)  # type: ignore[attr-defined]  # made at run time
    normalizer, kinds = proto.normalizer_spec, proto.SentencePiece
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE or normalizer.name != "identity":
        return None
    size = len(proto.pieces)
    if normalizer.remove_extra_whitespaces or sorted(added.values()) != list(range(size, size + len(added))):
        return None
    special = (kinds.CONTROL, kinds.UNKNOWN, kinds.USER_DEFINED)
    tokens = [
        _added(place, piece.piece, special=piece.type != kinds.USER_DEFINED)
        for place, piece in enumerate(proto.pieces)
        if piece.type in special
    ]
    tokens += [_added(place, token) for token, place in sorted(added.items(), key=lambda pair: pair[1])]
    return (json.dumps(_foreign_content(proto, tokens), indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def _foreign_content(proto: Any, tokens: Sequence[dict[str, object]]) -> dict[str, object]:
    """The values of the file: SentencePiece's pieces as a BPE model, with these added tokens."""
    normalizer, kinds = proto.normalizer_spec, proto.SentencePiece
    scores = {piece.piece: float(piece.score) for piece in proto.pieces if piece.type == kinds.NORMAL}
    after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if normalizer.add_dummy_prefix else []
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": SPACE_MARK,
            "prepend_scheme": "first" if normalizer.add_dummy_prefix else "never",
            "split": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [_replace(SPACE_MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, *after],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": next((piece.piece for piece in proto.pieces if piece.type == kinds.UNKNOWN), None),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": any(piece.type == kinds.BYTE for piece in proto.pieces),
            "ignore_merges": False,
            "vocab": {piece.piece: place for place, piece in enumerate(proto.pieces)},
            "merges": merges_by_score(scores),
        },
    }


def merges_by_score(scores: Mapping[str, float]) -> list[list[str]]:
    """Every pair of pieces that forms a piece, best piece first; for one piece, the pair with better parts first."""
    found = []
    for piece, score in scores.items():
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in scores and right in scores:
                found.append((-score, -scores[left], -scores[right], left, right))
    return [[left, right] for *_, left, right in sorted(found)]


def _replace(old: str, new: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _added(place: int, content: str, *, special: bool = True) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": place, "content": content, **flags, "special": special}
