"""A checkpoint to be exported, and its matrices as integers with a scale for every 32 of them, for formats but GGUF.

    8 bits    GGUF's Q8_0: code * scale, codes -127 .. 127
    4 bits    GGUF's Q4_0: codes -8 .. 7

A row that is no multiple of 32 is filled with zeros. The integers of a compressed checkpoint are taken over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, locate
from litgpt_core.checkpoint.load import EMBEDDING, OUTPUT, empty_model, leave_meta
from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.gguf.layout import TENSOR_TYPES
from litgpt_core.export.gguf.quantization import quantize
from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.quantized import QuantEmbedding, QuantLinear
from litgpt_core.tokenizers import Tokenizer

BLOCK = 32
Array = np.ndarray[Any, np.dtype[Any]]
WTE, HEAD = "transformer.wte", "lm_head"
_KINDS = {kind.name: kind for kind in TENSOR_TYPES.values()}


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A matrix as integers and scales."""

    codes: Array
    """(O, G, 32) int8, without an offset: a weight is code * scale."""
    scales: Array
    """(O, G) float32."""
    bits: int
    columns: int
    """K; the last block may be longer than the row."""

    def dequantized(self) -> Tensor:
        """(O, K) float32"""
        values = self.codes.astype(np.float32) * self.scales[..., None]
        return torch.from_numpy(values.reshape(len(values), -1)[:, : self.columns].copy())

    def rows(self, count: int) -> Blocks:
        """The first `count` rows."""
        return dataclasses.replace(self, codes=self.codes[:count], scales=self.scales[:count])


def blocks_of(weight: Tensor, *, bits: int) -> Blocks:
    """(O, K) weights in blocks, rounded as GGUF's Q8_0 or Q4_0 are."""
    outputs, columns = weight.shape
    groups = -(-columns // BLOCK)
    padded = np.zeros((outputs, groups * BLOCK), dtype=np.float32)
    padded[:, :columns] = weight.float().numpy()
    raw = quantize(padded, _KINDS["Q8_0" if bits == 8 else "Q4_0"]).reshape(outputs, groups, -1)
    scales = np.ascontiguousarray(raw[..., :2]).view("<f2")[..., 0].astype(np.float32)
    if bits == 8:
        codes = np.ascontiguousarray(raw[..., 2:]).view(np.int8)
    else:
        codes = np.concatenate((raw[..., 2:] & 15, raw[..., 2:] >> 4), axis=-1).astype(np.int8) - np.int8(8)
    return Blocks(codes=codes, scales=scales, bits=bits, columns=columns)


def own_blocks(modules: Mapping[str, nn.Module]) -> dict[str, Blocks]:
    """The integer matrices of a compressed model, by module path."""
    found = {}
    for path, module in modules.items():
        if isinstance(module, QuantLinear | QuantEmbedding):
            matrix = module.matrix
            codes, scales = grid.unpack(matrix.codes, matrix.scales, outputs=matrix.rows)
            found[path] = Blocks(
                codes=codes.reshape(matrix.rows, -1, BLOCK).numpy(),
                scales=scales.float().numpy(),
                bits=matrix.bits,
                columns=matrix.columns,
            )
    return found


class BlockMatrices:
    """The matrices of a model in blocks, made when they are first asked for.

    Args:
        weights: The state dict, float32.
        own: Matrices of a compressed checkpoint, which are kept.
        tied: Whether the output layer is the embedding, and stored as it.
        bits: Of all others but embedding and output layer, which have 8.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, own: Mapping[str, Blocks], tied: bool, bits: int) -> None:
        self.weights, self.tied, self._own, self._bits = weights, tied, own, bits
        self._made: dict[str, Blocks] = {}

    def path_of(self, path: str) -> str:
        """Where a matrix is stored."""
        return WTE if path == HEAD and self.tied else path

    def __getitem__(self, path: str) -> Blocks:
        path = self.path_of(path)
        if path not in self._made:
            weight = self.weights[f"{path}.weight"]
            bits = 8 if path in (WTE, HEAD) else self._bits
            self._made[path] = self._own[path].rows(len(weight)) if path in self._own else blocks_of(weight, bits=bits)
        return self._made[path]

    def used(self) -> dict[str, Tensor]:
        """The state dict, with the matrices that were made as they are stored."""
        found = {**self.weights, **{f"{path}.weight": made.dequantized() for path, made in self._made.items()}}
        return {**found, OUTPUT: found[EMBEDDING]} if self.tied else found


@dataclass(frozen=True, kw_only=True)
class CheckpointSource:
    """A checkpoint to be exported, its vocabulary cut to the tokenizer's ids: others could be drawn."""

    directory: Path
    tokenizer: Tokenizer
    model: GPT
    """float32, with all rows."""
    weights: dict[str, Tensor]
    """Its state dict, cut."""
    config: GPTConfig
    """Of the cut weights; `tie_embeddings` is whether the two are equal."""

    @classmethod
    def read(cls, checkpoint: str | Path | None) -> CheckpointSource:
        """Raises CheckpointError or TokenizerError for what is missing or damaged."""
        directory = locate(checkpoint)
        tokenizer = tokenizers.load(directory)
        model = load_model(directory, dtype=torch.float32, dequantize=True)
        weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        rows, tied = tokenizer.vocab_size, torch.equal(weights[OUTPUT], weights[EMBEDDING])
        if rows > model.config.padded_vocab_size:
            raise CheckpointError(
                f"The tokenizer has {rows:,} ids, the embedding {model.config.padded_vocab_size:,} rows.",
                needed="a row for each id",
            )
        weights |= {name: weights[name][:rows] for name in (EMBEDDING, OUTPUT, f"{HEAD}.bias") if name in weights}
        config = dataclasses.replace(model.config, vocab_size=rows, padded_vocab_size=rows, tie_embeddings=tied)
        return cls(directory=directory, tokenizer=tokenizer, model=model, weights=weights, config=config)

    def own_blocks(self) -> dict[str, Blocks]:
        """The integer matrices of the checkpoint, if it is compressed."""
        return own_blocks(dict(load_model(self.directory).named_modules()))

    def parameters(self) -> int:
        """Number of weights; a tied one counts once."""
        tied = self.config.tie_embeddings
        return sum(weight.numel() for name, weight in self.weights.items() if name != OUTPUT or not tied)

    def model_of(self, weights: Mapping[str, Tensor]) -> GPT:
        """The model with other weights of the same names."""
        model = empty_model(self.config)
        model.load_state_dict(dict(weights), assign=True)
        leave_meta(model)
        return model.eval()
