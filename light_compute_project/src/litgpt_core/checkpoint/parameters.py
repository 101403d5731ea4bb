"""The number of parameters of a checkpoint, without building a model or reading a weight."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from pathlib import Path

from litgpt_core.checkpoint.layout import WEIGHTS
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import block_kinds, count_parameters
from litgpt_core.model.structure import block_parameters, outer_parameters

_STORAGE = re.compile(r"[^/]+/data/\d+")


def parameters_of(directory: Path, config: GPTConfig) -> int:
    """Trained numbers of a model, a tied output layer counted once.

    `model_config.yaml` does not say whether it is tied; the weights file does: torch.save stores one storage for both.

    Args:
        directory: A checkpoint directory.
        config: Its config.
    """
    return count_parameters(dataclasses.replace(config, tie_embeddings=has_tied_output(directory, config)))


def has_tied_output(directory: Path, config: GPTConfig) -> bool:
    """Whether the weights file has one storage less than the model has parameters; False if it cannot be read."""
    try:
        with zipfile.ZipFile(directory / WEIGHTS) as archive:
            stored = sum(bool(_STORAGE.fullmatch(name)) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        return False
    untied = dataclasses.replace(config, tie_embeddings=False)
    blocks = sum(n * len(block_parameters(untied, layer)) for layer, n in block_kinds(untied))
    expected = len(outer_parameters(untied)) + blocks
    return stored == expected - 1
