"""Merges LoRA adapters into their base model and writes a LitGPT directory. Reads the output of training with
`lora=default` or of `litgpt finetune lora`. Equivalent to `litgpt merge_lora`, but never modifies its input.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch

from litgpt_core.checkpoint.choice import locate
from litgpt_core.checkpoint.directory import save_directory
from litgpt_core.checkpoint.layout import ADAPTER, HYPERPARAMETERS
from litgpt_core.checkpoint.load import is_tied, load_into, load_weights
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.lora import add_adapters, load_adapters, merged
from litgpt_core.model.optional_settings import LoRASettings

logger = logging.getLogger(__name__)


def merge_directory(path: Path, out: Path, *, base: str | Path | None = None, force: bool = False) -> Path:
    """Write the merged model to `out`.

    Args:
        path: A directory with `lit_model.pth.lora`, or a run folder (uses its `lora/`, else `final/`).
        out: Directory to create.
        base: The base model; None: the one named in hyperparameters.yaml.
        force: Replace an existing `out` that this project wrote.

    Raises:
        CheckpointError: Something is missing, does not fit, or `out` exists.
    """
    source = find_adapters(Path(path))
    refuse_taken(Path(out), source=source, force=force)
    hyperparameters = _hyperparameters(source)
    try:
        settings = LoRASettings.from_litgpt(hyperparameters)
    except ConfigError as problem:
        raise CheckpointError(f"{source / HYPERPARAMETERS}: {problem.given}", needed=problem.needed) from problem
    directory = _base(source, base, named=hyperparameters.get("checkpoint_dir"))
    refuse_taken(Path(out), source=directory, force=force)
    weights = load_weights(source / ADAPTER)
    config = dataclasses.replace(GPTConfig.from_checkpoint(source), tie_embeddings=is_tied(directory))
    model = GPT(config).to(next(iter(weights.values())).dtype)
    load_into(model, directory)
    add_adapters(model, settings, seed=0)
    load_adapters(model, weights)
    logger.info("%s adapter weights merged into %s", len(weights), directory)
    with torch.no_grad():
        plain = merged(model)
    return save_directory(
        Path(out), weights=plain, config=config, tokenizer_dir=source, hyperparameters=hyperparameters
    )


def find_adapters(path: Path) -> Path:
    """The directory with adapters for `path`. Raises CheckpointError if there is none."""
    file = path.parent if path.name == ADAPTER else path
    file = file if file.exists() else Path("runs") / file
    candidates = [file, file / "lora", file / "final", file / "checkpoints" / "last"]
    found = next((folder for folder in candidates if (folder / ADAPTER).is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{path} holds no adapters." if path.exists() else f"{path} does not exist.",
            needed=f"a directory with {ADAPTER}, or the run folder of a training with lora=default",
            fix="lcp runs list shows the runs",
        )
    return found


def _hyperparameters(source: Path) -> dict[str, Any]:
    try:
        content = read_yaml(source / HYPERPARAMETERS)
    except (OSError, ParsingError) as problem:
        raise CheckpointError(f"{source / HYPERPARAMETERS} cannot be read: {problem}") from problem
    return content if isinstance(content, dict) else {}


def _base(source: Path, base: str | Path | None, *, named: object) -> Path:
    if base is None and not named:
        raise CheckpointError(f"{source / HYPERPARAMETERS} names no base model.", fix="--base CHECKPOINT")
    try:
        return locate(base or str(named))
    except CheckpointError as problem:
        raise CheckpointError(
            f"the base model of {source} was not found: {problem.given}",
            needed="the checkpoint that the adapters were trained on",
            fix="--base CHECKPOINT",
        ) from problem
