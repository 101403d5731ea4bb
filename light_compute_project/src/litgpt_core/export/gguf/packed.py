"""The codes of a compressed directory as GGUF's blocks: the same numbers, nothing is rounded again.

    4 bits (2 and 3 too)   Q4_0   scale, 16 bytes: q + 8 of elements 0 to 15 in the lower half, of 16 to 31 above
    8 bits                 Q8_0   scale, 32 int8

Rows are split and reordered as those of any weights; columns stay, so a group of 32 stays a block.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litgpt_core.checkpoint.compressed import HEAD, WTE, CompressedCheckpoint, read_compressed
from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.export.gguf.architecture import Architecture
from litgpt_core.export.gguf.layout import TENSOR_TYPES, TensorType
from litgpt_core.export.gguf.quantization import Bytes, pack_halves
from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig

Packed = dict[str, tuple[TensorType, Bytes]]
"""Tensors that are blocks already, by GGUF's name: written as they are."""
TYPES = {4: "Q4_0", 8: "Q8_0"}
"""Stored bits -> GGUF's type."""
_KINDS = {kind.name: kind for kind in TENSOR_TYPES.values()}


def packed_tensors(directory: Path, architecture: Architecture, config: GPTConfig, *, rows: int) -> Packed:
    """The integer matrices of a compressed directory that one tensor of the file consists of.

    Args:
        directory: Compressed.
        architecture: Of the file.
        config: Of the model as the file has it.
        rows: Of embedding and output layer, the tokenizer's ids.
    """
    content = read_compressed(directory)
    found: Packed = {}
    for rule in architecture.rules(config):
        matrices = [_matrix(content, name) for name in rule.ours]
        whole = [matrix for matrix in matrices if matrix is not None]
        if len(whole) < len(matrices) or len({matrix.facts["bits"] for matrix in whole}) != 1:
            continue
        kept = rows if rule.ours[0] in (f"{HEAD}.weight", f"{WTE}.weight") else None
        codes, scales = zip(*(_spread(matrix, rows=kept) for matrix in whole), strict=True)
        their_codes, their_scales = rule.to_theirs(codes), rule.to_theirs(scales)
        for name, q, s in zip(rule.theirs, their_codes, their_scales, strict=True):
            q, s = (architecture.to_file(name, each, config) for each in (q, s))
            if (blocks := _blocks(q, s, bits=whole[0].facts["bits"])) is not None:
                found[name] = blocks
    return found


def main_type(packed: Packed) -> TensorType:
    """The type of most elements."""
    sizes: dict[TensorType, int] = {}
    for kind, blocks in packed.values():
        sizes[kind] = sizes.get(kind, 0) + blocks.size // kind.size * kind.block
    return max(sizes, key=lambda kind: sizes[kind])


def _matrix(content: CompressedCheckpoint, name: str) -> IntegerMatrix | None:
    path, _, kind = name.rpartition(".")
    path = HEAD if path == WTE and content.tied and HEAD in content.matrices else path
    found = content.matrices.get(path) if kind == "weight" else None
    return found if isinstance(found, IntegerMatrix) else None


def _spread(matrix: IntegerMatrix, *, rows: int | None) -> tuple[Tensor, Tensor]:
    """(O, K) codes, and scales repeated for each of them."""
    codes, scales = matrix.unpacked()
    return codes[:rows], scales.repeat_interleave(grid.GROUP, dim=1)[:rows, : matrix.columns]


def _blocks(codes: Tensor, scales: Tensor, *, bits: int) -> tuple[TensorType, Bytes] | None:
    """(..., K) codes and scales -> blocks; None where the columns of a group have not stayed together."""
    if codes.size(-1) % grid.GROUP:
        return None
    q = codes.to(torch.int8).reshape(-1, grid.GROUP).numpy()
    spread = scales.to(torch.float16).reshape(-1, grid.GROUP)
    if not bool((spread == spread[:, :1]).all()):
        return None
    d = np.ascontiguousarray(spread[:, :1].numpy()).view(np.uint8)
    body = q.view(np.uint8) if bits == 8 else pack_halves((q + 8).astype(np.uint8))
    return _KINDS[TYPES[bits]], np.concatenate((d, body), axis=1).reshape(-1)
