"""A checkpoint directory without some of its heads or MLPs: their weights are set to zero, all else stays.

A head's columns of `attn.proj`, an MLP's projection with its bias (of every expert): what zero ablation computes, made
to last. LitGPT and every command here read the result as any other checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from litgpt_core.checkpoint.choice import locate
from litgpt_core.checkpoint.directory import save_directory
from litgpt_core.checkpoint.layout import HYPERPARAMETERS
from litgpt_core.checkpoint.load import load_weights
from litgpt_core.core.parsing import table_in
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.interpret.names import Component, parse_component
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.structure import layer_structure


def save_without(model: str | Path | None, parts: Sequence[str], out: Path, *, force: bool = False) -> Path:
    """Write a checkpoint without `parts` to `out`, in the weights' own dtype.

    Args:
        model: As for `locate`.
        parts: As `L2H3` or `L2M`.
        out: Directory to create.
        force: Replace an existing one that this project wrote.

    Raises:
        ConfigError: The model has no such layer or head.
        CheckpointError: The checkpoint cannot be read, or `out` exists or cannot be written.
    """
    directory = locate(model)
    refuse_taken(Path(out), source=directory, force=force)
    config = GPTConfig.from_checkpoint(directory)
    chosen = [parse_component(part, config) for part in parts]
    weights = {name: tensor.clone() for name, tensor in load_weights(directory, mmap=False).items()}
    for part in chosen:
        remove(weights, part, config)
    if (head := weights.get("lm_head.weight")) is not None and torch.equal(head, weights["transformer.wte.weight"]):
        weights["lm_head.weight"] = weights["transformer.wte.weight"]  # stored once, as before
    hyperparameters = table_in(directory / HYPERPARAMETERS) | {"ablated": [str(part) for part in chosen]}
    return save_directory(
        Path(out), weights=weights, config=config, tokenizer_dir=directory, hyperparameters=hyperparameters
    )


def remove(weights: dict[str, torch.Tensor], part: Component, config: GPTConfig) -> None:
    """Set the weights by which one part writes into the residual stream to zero, in place."""
    prefix = f"transformer.h.{part.layer}"
    if part.head is not None:
        size = config.v_head_dim
        weights[f"{prefix}.attn.proj.weight"][:, part.head * size : (part.head + 1) * size] = 0
        return
    for linear in layer_structure(config, part.layer).linears:
        if linear.role == "mlp" and linear.adds_to_residual:
            for parameter in linear.parameters():
                weights[f"{prefix}.{parameter.name}"].zero_()
