"""Verifies checkpoint directories: sizes and hashes if there is a `checksums.json`, else the structure."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.checkpoint.layout import (
    CHECKSUMS,
    COMPRESSED,
    COMPRESSION,
    MODEL_CONFIG,
    SHARDS,
    TOKENIZER_CONFIG,
    TOKENIZER_VOCABULARIES,
    WEIGHTS,
)
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import sha256_of
from litgpt_core.core.parsing import read_json
from litgpt_core.core.torch_file import TorchFileError, archive_entries

ANOTHER = "use another checkpoint of the run, or save (copy, download) this one again"


def verify(path: Path, *, full: bool = True) -> None:
    """Check a checkpoint directory.

    Args:
        path: A directory of ours or LitGPT's. Without `checksums.json`, only the required files and the completeness
            of the weights file (as a zip archive) are checked; changed bytes in it are not detected.
        full: Compare SHA-256 too. False compares only sizes, which detects incomplete copies in a time independent of
            the model's size.

    Raises:
        CheckpointError: Names the first file that is missing or differs, with its expected and actual size or hash.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory.", needed="a checkpoint directory", fix=ANOTHER)
    required = [SHARDS if is_sharded(path) else weights_file(path).name, MODEL_CONFIG, TOKENIZER_CONFIG]
    if is_compressed(path):
        required.append(COMPRESSION)
    if not any((path / name).is_file() for name in TOKENIZER_VOCABULARIES):
        required.append(" or ".join(TOKENIZER_VOCABULARIES))
    for name in required:
        if not (path / name).is_file():
            raise CheckpointError(f"{name} is missing in {path}.", needed="a complete LitGPT directory", fix=ANOTHER)
    if (path / CHECKSUMS).is_file():
        for name, expected in _checksums(path / CHECKSUMS).items():
            _check_file(path / name, size=expected[0], sha256=expected[1] if full else None)
    elif (path / WEIGHTS).is_file():
        check_archive(path / WEIGHTS)


def is_sharded(directory: Path) -> bool:
    """Whether the weights of this checkpoint are sharded; see `sharded.py`."""
    return (directory / SHARDS).is_file()


def is_compressed(directory: Path) -> bool:
    """Whether the weights of this checkpoint are compressed; see `compressed.py`."""
    return (directory / COMPRESSED).is_file()


def weights_file(directory: Path) -> Path:
    """The file that holds the weights of a checkpoint that is not sharded, whether it exists or not."""
    return directory / (COMPRESSED if is_compressed(directory) else WEIGHTS)


def check_listed(directory: Path, names: Sequence[str]) -> None:
    """Compare size and SHA-256 of these files with `checksums.json`, as far as there is one that lists them.

    Raises:
        CheckpointError: A file is missing or has changed.
    """
    if not (directory / CHECKSUMS).is_file():
        return
    listed = _checksums(directory / CHECKSUMS)
    for name in names:
        if name in listed:
            _check_file(directory / name, size=listed[name][0], sha256=listed[name][1])


def check_archive(file: Path) -> None:
    """Raises CheckpointError unless `file` is a complete zip archive of torch.save. Reads only the end of the file."""
    try:
        archive_entries(file)
    except (TorchFileError, OSError) as problem:
        raise CheckpointError(
            f"{file} ({_size(file)}) cannot be opened: {problem}.", needed="a file written by torch.save", fix=ANOTHER
        ) from problem


def what_runs_code(file: Path) -> str:
    """Objects of a torch.save file other than tensors and plain values, as module.name; empty if safe. Runs nothing."""
    import torch

    try:
        return ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(file))))
    except (pickle.UnpicklingError, EOFError) as problem:
        return str(problem) or "a corrupted pickle"


def _checksums(file: Path) -> dict[str, tuple[int, str]]:
    try:
        listed = read_json(file)
        return {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise CheckpointError(
            f"{file} ({_size(file)}) cannot be read: {problem!r}.",
            needed='{file: {"bytes": n, "sha256": hex}}',
            fix=ANOTHER,
        ) from problem


def _check_file(file: Path, *, size: int, sha256: str | None) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file} is missing.", needed=f"a file of {size:,} bytes", fix=ANOTHER)
    actual = file.stat().st_size
    if actual != size:
        raise CheckpointError(f"{file} has {actual:,} bytes.", needed=f"{size:,} bytes", fix=ANOTHER)
    if sha256 is not None and (found := sha256_of(file)) != sha256:
        raise CheckpointError(f"{file} has changed: its SHA-256 is {found}.", needed=f"SHA-256 {sha256}", fix=ANOTHER)


def _size(file: Path) -> str:
    return f"{file.stat().st_size:,} bytes" if file.exists() else "absent"
