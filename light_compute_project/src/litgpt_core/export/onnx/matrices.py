"""How the matrices of an ONNX graph are stored, and how the graph multiplies by them.

    f32    as they are; the output layer reads the embedding's if the two are one
    int8   GGUF's Q8_0: 32 integers of 8 bits, one scale
    int4   GGUF's Q4_0, but embedding and output layer Q8_0

A compressed checkpoint's own integers are taken over. MatMulNBits stores integers without sign, so 128 or 8 is added,
which it subtracts again; a row that is no multiple of 32 is filled with zeros. A tied embedding is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from litgpt_core.export.blocks import BLOCK, WTE, Array, BlockMatrices, Blocks
from litgpt_core.export.onnx.graph import Graph

TYPES = ("f32", "int8", "int4")
SUFFIXES = {"f32": "", "int8": "_int8", "int4": "_q4"}
"""Of the file name, by which transformers.js finds a type."""


def packed(blocks: Blocks) -> Array:
    """(O, G, 32 or 16) uint8; of a byte, the lower half is the earlier element."""
    if blocks.bits == 8:
        return (blocks.codes.astype(np.int16) + 128).astype(np.uint8)
    halves = (blocks.codes + 8).astype(np.uint8)
    return np.asarray(halves[..., 0::2] | halves[..., 1::2] << 4)


class Matrices:
    """Multiplies by the matrices of a model, and stores them in a graph.

    Args:
        weights: The state dict, float32.
        kind: One of `TYPES`.
        own: Blocks of a compressed checkpoint, which are kept whatever `kind` is, unless it is f32.
        tied: Whether the output layer is the embedding.

    Attributes:
        rounded: Let products by integers round activations to 8 bits: six to fifteen times as fast, less exact.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, kind: str, own: Mapping[str, Blocks], tied: bool) -> None:
        self.weights, self.kind, self.rounded = weights, kind, True
        self.blocks = BlockMatrices(weights, own=own, tied=tied, bits=8 if kind == "int8" else 4)

    def used(self) -> dict[str, Tensor]:
        """The state dict with the matrices as they are stored."""
        return self.blocks.used()

    # --- nodes

    def linear(self, graph: Graph, x: str, path: str) -> str:
        """(..., K) -> (..., O): W x + b"""
        y = self._float_product(graph, x, path) if self.kind == "f32" else self._block_product(graph, x, path)
        bias = self.weights.get(f"{path}.bias")
        return y if bias is None else graph.add("Add", y, graph.store(f"{path}.bias", bias.numpy()))

    def _float_product(self, graph: Graph, x: str, path: str) -> str:
        stored = self.blocks.path_of(path)
        name, weight = f"{stored}.weight", self.weights[f"{stored}.weight"].numpy()
        if stored == WTE:
            return graph.add("MatMul", x, graph.add("Transpose", graph.store(name, weight), perm=[1, 0]))
        return graph.add("MatMul", x, graph.store(name, weight.T))

    def _stored_blocks(self, graph: Graph, path: str) -> tuple[Blocks, str, str]:
        blocks, stored = self.blocks[path], self.blocks.path_of(path)
        codes = graph.store(f"{stored}.codes", packed(blocks))
        return blocks, codes, graph.store(f"{stored}.scales", blocks.scales)

    def _block_product(self, graph: Graph, x: str, path: str) -> str:
        blocks, codes, scales = self._stored_blocks(graph, path)
        sizes: dict[str, Any] = {"K": blocks.columns, "N": len(blocks.codes), "bits": blocks.bits, "block_size": BLOCK}
        level = 4 if self.rounded else 0
        return graph.add("MatMulNBits", x, codes, scales, domain="com.microsoft", accuracy_level=level, **sizes)

    def embedded(self, graph: Graph, ids: str) -> str:
        """(B, T) ids -> (B, T, C)"""
        if self.kind == "f32":
            name = f"{WTE}.weight"
            return graph.add("Gather", graph.store(name, self.weights[name].numpy()), ids, axis=0)
        blocks, codes, scales = self._stored_blocks(graph, WTE)
        groups = blocks.scales.shape[1]
        values = self._unpacked(graph, graph.add("Gather", codes, ids, axis=0), blocks)
        chosen = graph.add("Unsqueeze", graph.add("Gather", scales, ids, axis=0), graph.integers(-1))
        wide = graph.reshape(graph.add("Mul", values, chosen), 0, 0, groups * BLOCK)
        if groups * BLOCK == blocks.columns:
            return wide
        return graph.split(wide, [blocks.columns, groups * BLOCK - blocks.columns])[0]

    @staticmethod
    def _unpacked(graph: Graph, codes: str, blocks: Blocks) -> str:
        """(B, T, G, 32 or 16) uint8 -> (B, T, G, 32) float32"""
        plain = graph.add("Cast", codes, to=1)
        if blocks.bits == 8:
            return graph.add("Sub", plain, graph.number(128))
        high = graph.add("Floor", graph.add("Div", plain, graph.number(16)))
        low = graph.add("Sub", plain, graph.add("Mul", high, graph.number(16)))
        axes = graph.integers(-1)
        pairs = graph.add("Concat", graph.add("Unsqueeze", low, axes), graph.add("Unsqueeze", high, axes), axis=-1)
        shape = graph.integers(0, 0, blocks.scales.shape[1], BLOCK)
        return graph.add("Sub", graph.add("Reshape", pairs, shape), graph.number(8))
