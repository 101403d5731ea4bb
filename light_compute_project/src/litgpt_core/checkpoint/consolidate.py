"""Consolidates a sharded checkpoint into a LitGPT directory, in a single process."""

from __future__ import annotations

from pathlib import Path

from litgpt_core.checkpoint.choice import locate
from litgpt_core.checkpoint.directory import save_directory
from litgpt_core.checkpoint.layout import HYPERPARAMETERS
from litgpt_core.checkpoint.sharded import read_weights
from litgpt_core.checkpoint.verification import is_sharded, verify
from litgpt_core.core.command_line import shown_command
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.model.config import GPTConfig


def consolidate(source: str | Path, target: Path) -> Path:
    """Consolidate the weights of `source` into a LitGPT directory, without optimizer and other training state.

    Args:
        source: A sharded checkpoint, or a run, by name or folder, for its most recent one.
        target: The directory to create; it must not exist.

    Returns:
        `target`.

    Raises:
        CheckpointError: `source` is corrupted, incomplete or not sharded, or `target` exists or cannot be written.
    """
    directory = locate(source)
    if not is_sharded(directory):
        raise CheckpointError(
            f"{directory} is already a LitGPT directory: its weights are not sharded",
            needed="a checkpoint that was written with trainer.sharded_checkpoints=true",
            fix=f"use it directly: {shown_command('generate', str(directory))}",
        )
    if target.exists():
        raise CheckpointError(f"{target} exists", needed="a new directory", fix=f"another name, or remove {target}")
    verify(directory)
    try:
        hyperparameters = read_yaml(directory / HYPERPARAMETERS)
    except (OSError, ParsingError) as problem:
        raise CheckpointError(f"{directory / HYPERPARAMETERS} cannot be read: {problem}") from problem
    config = GPTConfig.from_checkpoint(directory)
    return save_directory(
        target,
        weights=read_weights(directory),
        config=config,
        tokenizer_dir=directory,
        hyperparameters=hyperparameters,
    )
