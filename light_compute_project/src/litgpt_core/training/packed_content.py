"""What quantization-aware training leaves as packed codes: the trained matrices, on the grid they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from litgpt_core.checkpoint.compressed import EMBEDDING, HEAD, CompressedCheckpoint
from litgpt_core.checkpoint.compressed_matrices import CompressedMatrix, IntegerMatrix
from litgpt_core.model import grid
from litgpt_core.model.fake_quant import MARK
from litgpt_core.model.grid import Grid
from litgpt_core.model.qat_settings import QatSettings
from litgpt_core.model.scale_search import search_scales


def packed_content(
    weights: Mapping[str, Tensor], *, settings: QatSettings, tied: bool, record: Mapping[str, Any]
) -> CompressedCheckpoint:
    """The content of a compressed directory, from the state dict of a model with `FakeQuantLinear`.

    Output layer and embedding, one matrix where they are tied, are rounded to `settings.head` bits. What is
    not rounded becomes bfloat16, as the engine would load it.
    """
    weights = {name: tensor.detach().cpu() for name, tensor in weights.items()}
    matrices: dict[str, CompressedMatrix] = {}
    for name in [name for name in weights if name.endswith(MARK)]:
        path = name.removesuffix(f".{MARK}")
        matrices[path] = IntegerMatrix.of(weights.pop(f"{path}.weight").float(), weights.pop(name), bits=settings.bits)
    if settings.head is not None:
        for path in (HEAD,) if tied else (HEAD, EMBEDDING):
            matrices[path] = _nearest(weights.pop(f"{path}.weight").float(), bits=settings.head)
    if tied:
        weights.pop(f"{EMBEDDING}.weight" if HEAD in matrices else f"{HEAD}.weight", None)
    others = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    return CompressedCheckpoint(matrices=matrices, others=others, tied=tied, record=record)


def _nearest(weight: Tensor, *, bits: int) -> IntegerMatrix:
    """As the step `round` of `lcp compress` rounds the head."""
    kind, units = Grid(bits), grid.grouped(weight).reshape(-1, grid.GROUP)
    scales = kind.absmax_scales(units) if bits == 8 else search_scales(units, kind)
    return IntegerMatrix.of(weight, grid.stored_scales(scales.view(weight.size(0), -1)), bits=bits)
