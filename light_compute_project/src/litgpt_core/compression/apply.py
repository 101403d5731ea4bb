"""A checkpoint directory and a recipe -> a compressed directory: the table of contents of this package."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, resolve, save_directory
from litgpt_core.checkpoint.compressed import save_compressed
from litgpt_core.checkpoint.layout import HYPERPARAMETERS
from litgpt_core.checkpoint.verification import is_compressed, weights_file
from litgpt_core.compression.methods import run_steps
from litgpt_core.compression.recipe import CompressionRecipe
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.texts import Domain, calibration_windows, find_domains, window_length
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import sha256_of
from litgpt_core.core.parsing import table_in
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.model.gpt import GPT

logger = logging.getLogger(__name__)

CALIBRATION_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True)
class Made:
    """What `compress` wrote."""

    directory: Path
    seconds: float
    record: dict[str, Any]


def default_target(source: Path, recipe: str) -> Path:
    """Where a compressed model goes without `--out`: `NAME-RECIPE` in the folder of the run or the directory."""
    directory = resolve(source)
    if directory.name == "final":
        directory = directory.parent
    elif directory.parent.name == "checkpoints" and (directory.parent.parent / "config.yaml").is_file():  # a run's step
        directory = directory.parent.parent
    return directory.with_name(f"{directory.name}-{recipe}")


def refuse_compressed(directory: Path) -> None:
    """Raise CheckpointError for a source that is compressed already."""
    if is_compressed(directory):
        raise CheckpointError(
            f"{directory} is compressed already.",
            needed="the checkpoint that it was made from: rounding twice adds both errors",
            fix=f"the source that {directory / 'compression.yaml'} names",
        )


def compress(
    source: Path,
    recipe: CompressionRecipe,
    target: Path,
    *,
    domains: Sequence[Domain] | None = None,
    calibration_tokens: int = CALIBRATION_TOKENS,
    with_dequantized: bool = False,
    force: bool = False,
) -> Made:
    """Write the directory that the recipe makes of a checkpoint: a plain LitGPT one where all steps are structural.

    Args:
        source: A checkpoint directory or a run folder.
        recipe: What to do.
        target: The directory to make.
        domains: Text to calibrate with; None: see `texts.find_domains`.
        calibration_tokens: How many tokens of it.
        with_dequantized: Also write `lit_model.pth`.
        force: Replace what is at `target`, if this project wrote all of it.

    Raises:
        LightComputeError: The source is compressed, damaged or too narrow, the text too short, the target taken or not
            writable. Nothing is left at `target` then, and what was there before stays.
    """
    began = time.perf_counter()
    directory = resolve(Path(source))
    refuse_compressed(directory)
    refuse_taken(target, source=directory, force=force)
    stored = load_model(directory)
    dtype = _compute_dtype(stored)
    work = WorkingModel(stored.float())
    windows = None
    if recipe.needs_text:
        tokenizer = tokenizers.load(directory)
        domains = find_domains(directory, tokenizer) if domains is None else domains
        length = window_length(stored.config.block_size)
        windows = calibration_windows(domains, tokens=calibration_tokens, length=length)
    run_steps(work, recipe.steps, windows=windows, domains=domains or ())
    record = _record(directory, recipe, work, windows, domains)
    _write(work, target, directory, dtype=dtype, record=record, with_dequantized=with_dequantized)
    return Made(directory=target, seconds=time.perf_counter() - began, record=record)


def _compute_dtype(model: GPT) -> torch.dtype:
    """Of what is not compressed: bfloat16, because the engine loads float32 weights as bfloat16 too."""
    return torch.bfloat16 if model.dtype == torch.float32 else model.dtype


def _record(
    directory: Path,
    recipe: CompressionRecipe,
    work: WorkingModel,
    windows: Tensor | None,
    domains: Sequence[Domain] | None,
) -> dict[str, Any]:
    calibration = None
    if windows is not None and domains is not None:
        calibration = {
            "domains": [domain.name for domain in domains],
            "windows": list(windows.shape),
            "sha256": _digest(windows),
        }
    return {
        "recipe": recipe.name,
        "steps": recipe.plain(),
        "calibration": calibration,
        "source": {"directory": str(directory), "weights_sha256": sha256_of(weights_file(directory))},
        "notes": work.notes,
    }


def _digest(windows: Tensor) -> str:
    import hashlib

    return hashlib.sha256(windows.contiguous().numpy().tobytes()).hexdigest()


def _write(
    work: WorkingModel,
    target: Path,
    source: Path,
    *,
    dtype: torch.dtype,
    record: dict[str, Any],
    with_dequantized: bool,
) -> None:
    hyperparameters = table_in(source / HYPERPARAMETERS)
    config = work.model.config
    if not work.matrices:
        save_directory(
            target,
            weights=work.weights(dtype),
            config=config,
            tokenizer_dir=source,
            hyperparameters={**hyperparameters, "compression": record},
        )
        return
    save_compressed(
        target,
        work.content(dtype=dtype, record=record),
        config=dataclasses.replace(config),
        tokenizer_dir=source,
        hyperparameters=hyperparameters,
        with_dequantized=with_dequantized,
    )
