"""A `GPT` from a compressed directory: the modules of its matrices are replaced by `QuantLinear` and its relatives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from litgpt_core.checkpoint.compressed import EMBEDDING, HEAD, CompressedCheckpoint, read_compressed
from litgpt_core.checkpoint.compressed_matrices import CompressedMatrix, IntegerMatrix, LowRankMatrix, SparseMatrix
from litgpt_core.checkpoint.load import check_fit, empty_model, leave_meta
from litgpt_core.checkpoint.verification import ANOTHER
from litgpt_core.core.errors import CheckpointError
from litgpt_core.model.low_rank import LowRankLinear
from litgpt_core.model.quantized import PackedMatrix, QuantEmbedding, QuantLinear
from litgpt_core.model.structure import structure

if TYPE_CHECKING:
    from litgpt_core.model.config import GPTConfig
    from litgpt_core.model.gpt import GPT


def build_compressed(directory: Path, config: GPTConfig) -> GPT:
    """The model of a compressed directory. Sparse matrices are expanded.

    Raises:
        CheckpointError: As `read_compressed`, or the weights do not fit the config.
    """
    return model_of(read_compressed(directory), config, where=directory)


def model_of(content: CompressedCheckpoint, config: GPTConfig, *, where: Path) -> GPT:
    """The model with these weights; `where` is for errors."""
    config = dataclasses.replace(config, tie_embeddings=content.tied and HEAD not in content.matrices)
    model = empty_model(config)
    others = dict(content.others)
    sparse = {path: matrix.dense() for path, matrix in content.matrices.items() if isinstance(matrix, SparseMatrix)}
    others |= {f"{path}.weight": weight for path, weight in sparse.items()}
    _check_shapes(content, config, where=where)
    packed: dict[str, PackedMatrix] = {}
    dtype = next((tensor.dtype for tensor in others.values() if tensor.is_floating_point()), torch.float32)
    for path, matrix in content.matrices.items():
        if isinstance(matrix, IntegerMatrix):
            packed[path] = _packed(matrix).to(dtype)
        if not isinstance(matrix, SparseMatrix) and path != EMBEDDING:
            bias = others.pop(f"{path}.bias", None)
            _replace(model, path, _linear(matrix, packed.get(path), bias, int8=content.int8_activations))
    if (table := packed.get(HEAD if content.tied else EMBEDDING)) is not None:
        model.transformer.wte = QuantEmbedding(table)  # type: ignore[assignment]
    if content.tied and HEAD not in content.matrices:
        others["lm_head.weight"] = others["transformer.wte.weight"]
    own = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_meta}
    check_fit(others, expected=own, where=where)
    model.load_state_dict(others, assign=True, strict=False)
    leave_meta(model)
    return model


def _linear(matrix: CompressedMatrix, packed: PackedMatrix | None, bias: Tensor | None, *, int8: bool) -> nn.Module:
    if isinstance(matrix, LowRankMatrix):
        return LowRankLinear(matrix.down, matrix.up, bias=bias)
    assert packed is not None
    return QuantLinear(packed, bias=bias, int8_activations=int8)


def _packed(matrix: IntegerMatrix) -> PackedMatrix:
    return PackedMatrix(matrix.codes, matrix.scales, rows=matrix.rows, columns=matrix.columns)


def _replace(model: GPT, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _check_shapes(content: CompressedCheckpoint, config: GPTConfig, *, where: Path) -> None:
    expected = {path: (part.rows, part.columns) for path, part in structure(config).linears()}
    expected[EMBEDDING] = (config.padded_vocab_size, config.n_embd)
    for path, matrix in content.matrices.items():
        if (found := _shape(matrix)) != expected.get(path):
            raise CheckpointError(
                f"{path} in {where} has shape {found}; the model config says {expected.get(path, 'there is none')}.",
                needed="weights and config of the same model",
                fix=ANOTHER,
            )


def _shape(matrix: CompressedMatrix) -> tuple[int, int]:
    if isinstance(matrix, IntegerMatrix):
        return matrix.rows, matrix.columns
    if isinstance(matrix, LowRankMatrix):
        return matrix.up.size(0), matrix.down.size(1)
    return matrix.values.size(0), matrix.values.size(1) * matrix.m // matrix.n
