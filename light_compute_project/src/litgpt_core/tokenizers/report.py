"""What `scripts/train_tokenizer.py` does: read text files, train, save, and describe the result in a few lines.

No algorithm here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from litgpt_core.core.command_line import shown_command
from litgpt_core.core.errors import DataError, TokenizerError
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.directory import holds_tokenizer, refuse_foreign
from litgpt_core.tokenizers.registry import load, train
from litgpt_core.tokenizers.settings import (
    MAX_TRAIN_BYTES,
    UNIGRAM_MAX_TRAIN_BYTES,
    ByteSettings,
    CharSettings,
    SubwordSettings,
    TokenizerSettings,
)

DEFAULT_PATTERNS = ("*.txt", "*.md", "*.py")
_SAMPLE_TOKENS = 16


def settings_for(kind: str, *, vocab_size: int, max_train_bytes: int | None, seed: int) -> TokenizerSettings:
    """The settings of `kind`; char and byte have no vocabulary size to choose.

    Raises ConfigError for an unknown kind.
    """
    if kind == "char":
        return CharSettings()
    if kind == "byte":
        return ByteSettings()
    if max_train_bytes is None:
        max_train_bytes = UNIGRAM_MAX_TRAIN_BYTES if kind == "unigram" else MAX_TRAIN_BYTES
    return SubwordSettings(kind=kind, vocab_size=vocab_size, max_train_bytes=max_train_bytes, seed=seed)  # type: ignore[arg-type]


def find_text_files(paths: Sequence[Path], *, patterns: Sequence[str] = DEFAULT_PATTERNS) -> list[Path]:
    """Files as given, folders searched with `patterns` in sorted order.

    DataError for a missing path or an empty folder.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_file():
            files.append(path)
        elif path.is_dir():
            found = sorted({file for pattern in patterns for file in path.rglob(pattern) if file.is_file()})
            if not found:
                raise DataError(f"{path} contains no file that matches {' '.join(patterns)}.", fix="--glob '*.text'")
            files += found
        else:
            raise DataError(f"{path} does not exist.", needed="text files or folders", fix="check the path")
    return files


def read_documents(files: Sequence[Path]) -> Iterator[str]:
    """The text of each file, without a byte-order mark, line ends untouched.

    DataError names a file that is not UTF-8 or not readable, and where.
    """
    for file in files:
        try:
            yield file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file} is not UTF-8: byte offset {error.start} ({error.reason}).",
                needed="UTF-8 text",
                fix="repair it, convert it from its encoding (iconv -f ENCODING -t utf-8), or leave it out with --glob",
            ) from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.", fix="check its permissions") from None


def train_and_report(
    settings: TokenizerSettings,
    files: Sequence[Path],
    *,
    directory: Path,
    force: bool = False,
    max_report_bytes: int = 20_000_000,
) -> str:
    """Train on `files`, save into `directory`, load it back and return the lines to show.

    TokenizerError if `directory` holds a model, a tokenizer made elsewhere, or, without `force`, one made here.
    """
    refuse_foreign(directory)
    if holds_tokenizer(directory) and not force:
        raise TokenizerError(f"{directory} holds a tokenizer.", needed="a new folder", fix="another --out, or --force")
    started = time.perf_counter()
    train(settings, read_documents(files)).save(directory)
    seconds = time.perf_counter() - started
    return "\n".join(_lines(load(directory), files, directory=directory, seconds=seconds, max_bytes=max_report_bytes))


def _lines(
    tokenizer: Tokenizer, files: Sequence[Path], *, directory: Path, seconds: float, max_bytes: int
) -> Iterator[str]:
    documents, total = [], 0
    for document in read_documents(files):
        documents.append(document)
        total += len(document.encode("utf-8"))
        if total >= max_bytes:
            break
    try:
        tokens = sum(map(len, tokenizer.encode_batch(documents)))
    except TokenizerError as error:
        raise TokenizerError(
            f"The tokenizer was saved, but cannot encode its own text: {error.given}", fix=error.fix
        ) from None
    override = f" tokenizer.vocab_size={tokenizer.vocab_size}" if tokenizer.kind not in ("char", "byte") else ""
    yield f"{'tokenizer':<18}{tokenizer.kind}"
    yield f"{'vocabulary size':<18}{tokenizer.vocab_size}"
    yield f"{'bytes per token':<18}{total / max(1, tokens):.3f} on {total:,} bytes of {len(documents)} files"
    yield f"{'sample':<18}{_segments(tokenizer, documents)}"
    yield f"{'training seconds':<18}{seconds:.1f}"
    yield f"{'saved to':<18}{directory}"
    yield f"{'next':<18}{shown_command('train', f'tokenizer={tokenizer.kind}')}{override}"


def _segments(tokenizer: Tokenizer, documents: Sequence[str]) -> str:
    """The first tokens of the middle of the first long document, between bars, with invisible characters escaped."""
    document = max(documents[:20], key=len, default="")
    start = document.find("\n", len(document) // 2) + 1
    ids = tokenizer.encode(document[start : start + 200])[:_SAMPLE_TOKENS]
    return "|".join(
        (tokenizer.token_bytes(token_id) or b"").decode("utf-8", "replace").encode("unicode_escape").decode()
        for token_id in ids
    )
