"""Converts one of our SentencePiece BPE models to a tokenizer.json with the same ids.

Both merge the best pair first. SentencePiece scores the piece that a pair forms; tokenizer.json ranks the pairs. So
every way to form a piece from two others becomes a merge, ranked by the score of that piece.

    text    -> normalizer: spaces become U+2581
    pieces  -> BPE with byte fallback, without pre-tokenization: our pieces span words
    ids     -> decoder: U+2581 becomes a space, byte tokens become bytes

One exception: a literal U+2581, which our encoder writes as bytes, becomes a space.
Not for models from elsewhere, which may normalise text, add a leading space, or contain user-defined pieces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from sentencepiece import SentencePieceProcessor

from litgpt_core.tokenizers.sentencepiece_bpe import SPACE_MARK


def tokenizer_json(model: bytes) -> bytes:
    """The file's content for a tokenizer.model of kind `sentencepiece`."""
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
        "post_processor": None,
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


def _added(place: int, content: str) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": place, "content": content, **flags, "special": True}
