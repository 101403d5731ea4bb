"""A sharded checkpoint as a LitGPT directory, made by one process without the others."""

from __future__ import annotations

from pathlib import Path

import yaml

from litgpt_core.checkpoint.directory import save_directory
from litgpt_core.checkpoint.layout import HYPERPARAMETERS
from litgpt_core.checkpoint.search import resolve
from litgpt_core.checkpoint.sharded import read_weights
from litgpt_core.checkpoint.verification import is_sharded, verify
from litgpt_core.core.errors import CheckpointError
from litgpt_core.model.config import GPTConfig


def consolidate(source: Path, target: Path) -> Path:
    """Gather the weights of `source` into a LitGPT directory; optimizer state and the rest of a resume stay behind.

    Args:
        source: A sharded checkpoint, or a run whose newest one is meant.
        target: The directory to make; it must not exist.

    Returns:
        `target`.

    Raises:
        CheckpointError: `source` is torn or whole already, or `target` exists or cannot be written.
    """
    directory = resolve(source)
    if not is_sharded(directory):
        raise CheckpointError(
            f"{directory} is a LitGPT directory already: its weights are not in parts",
            needed="a checkpoint that was written with trainer.sharded_checkpoints=true",
            fix=f"use it as it is: scripts/generate.py {directory}",
        )
    if target.exists():
        raise CheckpointError(f"{target} exists", needed="a name that is free", fix=f"another, or remove {target}")
    verify(directory)
    hyperparameters = yaml.safe_load((directory / HYPERPARAMETERS).read_text(encoding="utf-8"))
    config = GPTConfig.from_checkpoint(directory)
    return save_directory(
        target,
        weights=read_weights(directory),
        config=config,
        tokenizer_dir=directory,
        hyperparameters=hyperparameters,
    )
