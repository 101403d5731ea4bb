"""Loads checkpoint directories: weights, extra files, the model. Never runs code from a file: always `weights_only`."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from litgpt_core.checkpoint.compressed import HEAD, WTE, CompressedCheckpoint, read_compressed
from litgpt_core.checkpoint.compressed_matrices import CompressedMatrix, IntegerMatrix, LowRankMatrix, SparseMatrix
from litgpt_core.checkpoint.layout import WEIGHTS
from litgpt_core.checkpoint.search import resolve
from litgpt_core.checkpoint.verification import ANOTHER, check_archive, is_compressed, is_sharded, what_runs_code
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.torch_file import check_torch_file
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT, expect_tied
from litgpt_core.model.lora import adapters
from litgpt_core.model.low_rank import LowRankLinear
from litgpt_core.model.quantized import PackedMatrix, QuantEmbedding, QuantLinear
from litgpt_core.model.structure import structure

logger = logging.getLogger(__name__)

OUTPUT, EMBEDDING, POSITIONS = "lm_head.weight", "transformer.wte.weight", "transformer.wpe.weight"


def load_weights(path: Path, *, device: str | torch.device = "cpu", mmap: bool = True) -> dict[str, Tensor]:
    """The state dict of a checkpoint.

    Args:
        path: A path as for `resolve`, or any file written by torch.save.
        device: Target device of the tensors.
        mmap: Map the file into memory instead of copying it. Ignored on Windows, where an open mapping would prevent
            the checkpoint from being replaced.

    Raises:
        CheckpointError: The file is missing, truncated, corrupted, contains code, or is not a state dict.
    """
    file = Path(path)
    if not file.is_file():
        directory = resolve(file)
        if is_sharded(directory):
            from litgpt_core.checkpoint.sharded import read_weights

            return _moved(read_weights(directory), device)
        if is_compressed(directory):
            logger.info("%s: compressed weights, dequantized", directory)
            return _moved(read_compressed(directory).state_dict(), device)
        file = directory / WEIGHTS
    content = _load(file, mmap=mmap and sys.platform != "win32")
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        held = (
            f"dict with {', '.join(map(str, list(content)[:6]))}" if isinstance(content, dict) else str(type(content))
        )
        raise CheckpointError(
            f"{file} does not hold a state dict, but a {held}.",
            needed="{name: tensor}, or that under the key 'model'",
            fix=ANOTHER,
        )
    return _moved(content, device)


def _moved(weights: dict[str, Tensor], device: str | torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in weights.items()}


def load_extra(path: Path, name: str, *, mmap: bool = False) -> Any:
    """The object of `save_directory(extra={name: ...})`, on the CPU.

    Args:
        path: A path as for `resolve`.
        name: The file's.
        mmap: Map the file: the processes of a machine share its pages, and only what is looked at is read. For those
            who copy what they keep: a checkpoint may be deleted while it is mapped. Ignored on Windows.

    Raises:
        CheckpointError: Missing, corrupted or unsafe.
    """
    file = resolve(Path(path)) / name
    if not file.is_file():
        raise CheckpointError(
            f"{name} is missing in {file.parent}.",
            needed="a checkpoint of a training run; final checkpoints and those from elsewhere may not have it",
            fix="start from its weights instead of resuming, or use a checkpoint from checkpoints/ of the run",
        )
    return _load(file, mmap=mmap and sys.platform != "win32")


def _load(file: Path, *, mmap: bool) -> Any:
    check_archive(file)
    try:
        check_torch_file(file)
        return torch.load(file, map_location="cpu", mmap=mmap, weights_only=True)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"{file} holds more than tensors and plain values ({what_runs_code(file)}): loading it could run code.",
            needed="a file that torch.load(..., weights_only=True) accepts",
            fix="if you trust its source, load it yourself and save only its state dict",
        ) from problem
    except MemoryError:
        raise
    except Exception as problem:  # a corrupted pickle can raise any exception
        size = file.stat().st_size
        raise CheckpointError(
            f"{file} ({size:,} bytes) cannot be read: {str(problem).partition(chr(10))[0]!r}",
            needed="an uncorrupted file",
            fix=ANOTHER,
        ) from problem


def load_model(
    path: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None, dequantize: bool = False
) -> GPT:
    """The model of a checkpoint with its weights, in evaluation mode.

    The model is built on the meta device and then gets the file's tensors, so that loading takes little more time than
    reading the file. If the file stores the embedding and the output layer as one tensor, the model ties them.

    Args:
        path: A path as for `resolve`.
        device: Target device of the model.
        dtype: Dtype of the weights; None keeps the file's.
        dequantize: Give compressed matrices as ordinary weights.

    Raises:
        CheckpointError: Missing or corrupted, or the weights do not match the model config; missing and unexpected
            names are listed.
    """
    directory = resolve(Path(path))
    config = GPTConfig.from_checkpoint(directory)
    if is_compressed(directory) and not dequantize:
        return build_compressed(directory, config).to(device=device, dtype=dtype).eval()
    weights = load_weights(directory)
    if _share_storage(weights.get(OUTPUT), weights.get(EMBEDDING)):
        weights[OUTPUT] = weights[EMBEDDING]
        config = dataclasses.replace(config, tie_embeddings=True)
    model = empty_model(config)
    check_fit(weights, expected=model.state_dict(), where=directory)
    model.load_state_dict(weights, assign=True)
    leave_meta(model)
    return model.to(device=device, dtype=dtype).eval()


def leave_meta(model: GPT) -> None:
    """Recompute what no file stores, after a model on the meta device got its weights."""
    if model.transformer.rope is not None:
        model.transformer.rope.theta = torch.empty(0)  # not stored in files: move off the meta device and recompute
        model.transformer.rope.reset_parameters()


def empty_model(config: GPTConfig) -> GPT:
    """The model of a config on the meta device: names and shapes without memory."""
    with torch.device("meta"), _NoInitialisation():
        return GPT(config)


class _NoInitialisation(TorchFunctionMode):
    """Disables torch.nn.init: on the meta device it would import torch's compiler, which takes seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def load_into(model: GPT, path: Path, *, place: Callable[[Tensor, Tensor], None] | None = None) -> None:
    """Copy the weights of a checkpoint into an existing model, e.g. to continue training it.

    A model with learned positions may have a shorter `block_size` than the checkpoint; further positions are dropped.

    Args:
        model: To be changed.
        path: A path as for `resolve`.
        place: Writes a whole tensor into a parameter, for models in shards; adapters stay as they are.

    Raises:
        CheckpointError: As `load_model`; also if the model ties two weights that differ in the file.
    """
    directory = resolve(Path(path))
    weights = load_weights(directory)
    if (embedding := weights.get(POSITIONS)) is not None and len(embedding) > model.config.block_size:
        weights[POSITIONS] = embedding[: model.config.block_size]
    if place is None:
        check_fit(weights, expected=model.state_dict(), where=directory)
        model.load_state_dict(weights)
        return
    added = adapters(model)
    own = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in added}
    check_fit(weights, expected=empty_model(model.config).state_dict(), where=directory)  # `own` may be shares
    if model.config.tie_embeddings:
        expect_tied(weights)
    with torch.no_grad():
        for name, tensor in own.items():
            place(tensor, weights[name])


def is_tied(path: Path) -> bool:
    """Whether a checkpoint stores the embedding and the output layer as one tensor. Raises as `load_weights`."""
    weights = load_weights(path)
    return _share_storage(weights.get(OUTPUT), weights.get(EMBEDDING))


def _share_storage(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.data_ptr() == b.data_ptr() and a.shape == b.shape


def check_fit(weights: dict[str, Tensor], *, expected: dict[str, Tensor], where: Path) -> None:
    """Raise CheckpointError unless names and shapes of `weights` are the expected ones; `where` is for the message."""
    problems = []
    if missing := [name for name in expected if name not in weights]:
        problems.append(f"missing {_some(missing)}")
    if unexpected := [name for name in weights if name not in expected]:
        problems.append(f"unexpected {_some(unexpected)}")
    if wrong := [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]:
        problems.append(f"of another shape {_some(wrong)}")
    if problems:
        raise CheckpointError(
            f"The weights in {where} do not fit the model: {'; '.join(problems)}.",
            needed="weights and config of the same model",
            fix="use both files of the same checkpoint",
        )


def _some(names: list[str], *, limit: int = 6) -> str:
    return f"{len(names)} ({', '.join(names[:limit])}{', ...' if len(names) > limit else ''})"


# ---- compressed directories: `QuantLinear` and its relatives take the place of their matrices


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
        if not isinstance(matrix, SparseMatrix) and path != WTE:
            bias = others.pop(f"{path}.bias", None)
            _replace(model, path, _linear(matrix, packed.get(path), bias, int8=content.int8_activations))
    if (table := packed.get(HEAD if content.tied else WTE)) is not None:
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
    expected[WTE] = (config.padded_vocab_size, config.n_embd)
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
