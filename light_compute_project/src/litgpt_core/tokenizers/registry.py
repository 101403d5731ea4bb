"""`train` makes a tokenizer from settings and documents, `load` reads one from a directory. No algorithm here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from litgpt_core.core.errors import TokenizerError
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.settings import ByteSettings, CharSettings, PretrainedSettings, TokenizerSettings


def train(settings: TokenizerSettings, documents: Iterable[str]) -> Tokenizer:
    """Train the kind of tokenizer that `settings` names; `documents` is read once and may be larger than memory (it is
    not read for byte and pretrained).

    Raises TokenizerError when the documents contain no text, or when the text cannot fill (or does not fit) the
    requested vocabulary size.
    """
    if isinstance(settings, PretrainedSettings):
        if settings.path is None:
            raise TokenizerError(
                "tokenizer.path is missing.", needed="a directory with a tokenizer", fix="tokenizer.path=DIR"
            )
        return load(Path(settings.path).expanduser())
    if isinstance(settings, ByteSettings):
        from litgpt_core.tokenizers.byte_values import ByteTokenizer

        return ByteTokenizer()
    if isinstance(settings, CharSettings):
        from litgpt_core.tokenizers.characters import train_characters

        return train_characters(documents)
    if settings.kind == "sentencepiece":
        from litgpt_core.tokenizers.sentencepiece_training import train_sentencepiece

        trained = train_sentencepiece(settings, documents)
        trained.use_bos = settings.add_bos_token
        return trained
    from litgpt_core.tokenizers.huggingface_training import train_huggingface

    return train_huggingface(settings, documents)


def load(directory: Path) -> Tokenizer:
    """Read a tokenizer from a directory of ours or of LitGPT's; `tokenizer.json` is preferred to
    `tokenizer.model`, as upstream does.

    Raises TokenizerError that names the missing or damaged file.
    """
    from litgpt_core.tokenizers.directory import read_description

    description = read_description(Path(directory))
    if description.kind == "byte":
        from litgpt_core.tokenizers.byte_values import ByteTokenizer

        return ByteTokenizer.from_description(description)
    if description.kind == "char":
        from litgpt_core.tokenizers.characters import CharTokenizer

        return CharTokenizer.from_description(description)
    if description.path.name == "tokenizer.model":
        from litgpt_core.tokenizers.sentencepiece_bpe import SentencePieceTokenizer

        return SentencePieceTokenizer.from_description(description)
    from litgpt_core.tokenizers.huggingface import HuggingFaceTokenizer

    return HuggingFaceTokenizer.from_description(description)
