"""A GGUF file as a checkpoint directory, for commands that are given a file: imported once, kept in the user's cache.

The folder is `$XDG_CACHE_HOME/light_compute_project/models/NAME-HASH`, by default below `~/.cache`; HASH is the file's.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from litgpt_core.checkpoint.layout import CHECKSUMS
from litgpt_core.core.files import sha256_of
from litgpt_core.export.gguf.header import read_gguf

logger = logging.getLogger(__name__)


def is_gguf(path: str | Path) -> bool:
    """Whether a path is that of an existing GGUF file, by its name."""
    return Path(path).suffix.lower() == ".gguf" and Path(path).expanduser().is_file()


def checkpoint_of(file: Path) -> Path:
    """The checkpoint directory of a GGUF file, which is imported if it is not in the cache yet.

    Raises:
        CheckpointError: The file is corrupted, unknown, or the cache cannot be written.
        TokenizerError: Its tokenizer is unknown.
    """
    file = Path(file).expanduser()
    read_gguf(file)  # a bad file is refused before it is hashed
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem)
    directory = cache_folder() / f"{stem}-{sha256_of(file)[:16]}"
    if not (directory / CHECKSUMS).is_file():
        from litgpt_core.export.gguf.importing import import_gguf

        logger.info("importing %s once, into %s", file, directory)
        import_gguf(file, directory, force=True)
    return directory


def with_gguf_imported(name: str | None) -> str | None:
    """What a command was given as its model, with the checkpoint directory in the place of a GGUF file. Errors as for
    `checkpoint_of`.
    """
    return name if name is None or not is_gguf(name) else str(checkpoint_of(Path(name)))


def cache_folder() -> Path:
    """The user's cache folder for imported models; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "light_compute_project" / "models"
