"""How quantized weights are stored in Hugging Face folders, and the numbers that they stand for.

O outputs, K inputs, G groups of inputs; several codes are packed into one int32, the first in its lowest bits.

    gptq           qweight (K / n, O), n codes of one column a word; scales (G, O); qzeros (G, O / n), stored minus 1
                   ("gptq_v2": as they are); g_idx (K,) group of each input          w = s * (q - z)
    awq            qweight (K, O / 8), scales (G, O), qzeros (G, O / 8); the eight codes of a word in the order
                   0 2 4 6 1 3 5 7                                                    w = s * (q - z)
    pack           weight_packed (O, K / n), weight_scale (O, G), weight_shape; codes plus 2^(bits - 1)   w = s * q
    int, float     weight (O, K) int8 or float8, weight_scale (O, G), (O, 1) or (1,)                      w = s * q
    bnb 8          weight (O, K) int8, SCB (O,)                                                w = q * SCB / 127
    bnb 4          weight, two codes a byte, the upper half first; quant_map: the 16 values; absmax: a scale for
                   every 64 weights, itself stored in 8 bits where it is nested                w = map[q] * absmax

Published by AutoGPTQ, AutoAWQ, compressed-tensors and bitsandbytes; the code here is this project's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from litgpt_core.core.parsing import parse_json

Shape = tuple[int, ...]
Parts = Mapping[str, Tensor]
"""Ending of a name -> tensor."""
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to store a matrix."""

    main: str
    """Ending of the name of the tensor with the codes; what is before it is the layer's name."""
    needed: tuple[str, ...]
    """Endings of the others."""
    optional: tuple[str, ...] = ()
    small: tuple[str, ...] = ()
    """Endings of those that are read to know the shape."""
    shape: Callable[[Mapping[str, Shape], Parts], Shape]
    """(O, K) from the shapes of the parts and the small ones."""
    dense: Callable[[Parts, Shape], Tensor]
    """(O, K) float32. Raises ValueError, RuntimeError or IndexError for parts that do not fit together."""


def unpacked(words: Tensor, *, bits: int, axis: int) -> Tensor:
    """int32 words -> codes without sign, along an axis, the lowest bits first."""
    shifts = torch.arange(0, 32, bits)
    codes: Tensor = (words.long().unsqueeze(-1) >> shifts) & (2**bits - 1)
    return codes.movedim(-1, axis + 1).flatten(axis, axis + 1)


# --- gptq


def gptq(*, bits: int, added: int) -> Layout:
    """`added` is 1 for the first format, whose zeros are stored minus 1."""
    per_word = 32 // bits

    def read(parts: Parts, shape: Shape) -> Tensor:
        codes = unpacked(parts[".qweight"], bits=bits, axis=0)  # (K, O)
        scales = parts[".scales"].float()
        zeros = (unpacked(parts[".qzeros"], bits=bits, axis=1)[:, : shape[0]] + added) & (2**bits - 1)
        size = math.ceil(len(codes) / len(scales))
        groups = parts[".g_idx"].long() if ".g_idx" in parts else torch.arange(len(codes)) // size
        dense: Tensor = scales[groups] * (codes - zeros[groups]).float()
        return dense.T

    return Layout(
        main=".qweight",
        needed=(".qzeros", ".scales"),
        optional=(".g_idx",),
        shape=lambda shapes, _: (shapes[".qweight"][1], shapes[".qweight"][0] * per_word),
        dense=read,
    )


# --- awq


def awq(*, group: int) -> Layout:
    """AutoAWQ's "gemm" layout, 4 bits."""

    def in_order(words: Tensor) -> Tensor:
        codes = unpacked(words, bits=4, axis=1).view(len(words), -1, 8)
        return codes[..., torch.tensor(AWQ_ORDER).argsort()].flatten(1)

    def read(parts: Parts, shape: Shape) -> Tensor:
        groups = torch.arange(shape[1]) // (group if group > 0 else shape[1])
        codes, zeros, scales = in_order(parts[".qweight"]), in_order(parts[".qzeros"]), parts[".scales"].float()
        dense: Tensor = scales[groups] * (codes - zeros[groups]).float()
        return dense.T

    return Layout(
        main=".qweight",
        needed=(".qzeros", ".scales"),
        shape=lambda shapes, _: (shapes[".qweight"][1] * 8, shapes[".qweight"][0]),
        dense=read,
    )


# --- compressed-tensors


def _scaled(codes: Tensor, scale: Tensor, groups: Tensor | None) -> Tensor:
    """(O, K) codes times scales (O, G), (O, 1), (O,) or (1,)."""
    scale = scale.float()
    if scale.dim() < 2:
        return codes * scale.reshape(-1, 1)
    if groups is None:
        groups = torch.arange(codes.size(1)) // math.ceil(codes.size(1) / scale.size(1))
    return codes * scale[:, groups]


def pack_quantized(*, bits_of: Callable[[Mapping[str, Shape], Shape], int]) -> Layout:
    """`bits_of` finds the bits from the shapes, because layers may differ."""

    def dense(parts: Parts, shape: Shape) -> Tensor:
        bits = bits_of({key: tuple(part.shape) for key, part in parts.items()}, shape)
        codes = unpacked(parts[".weight_packed"], bits=bits, axis=1)[:, : shape[1]].float() - 2 ** (bits - 1)
        groups = parts[".weight_g_idx"].long() if ".weight_g_idx" in parts else None
        if (stored := parts.get(".weight_zero_point")) is not None:
            zeros = unpacked(stored, bits=bits, axis=0)[: shape[0]].float() - 2 ** (bits - 1)  # (O, G)
            where = torch.arange(shape[1]) // math.ceil(shape[1] / zeros.size(1)) if groups is None else groups
            codes = codes - zeros[:, where]
        return _scaled(codes, parts[".weight_scale"], groups)

    return Layout(
        main=".weight_packed",
        needed=(".weight_scale", ".weight_shape"),
        optional=(".weight_zero_point", ".weight_g_idx"),
        small=(".weight_shape",),
        shape=lambda _, small: tuple(int(size) for size in small[".weight_shape"]),
        dense=dense,
    )


def plain_codes() -> Layout:
    """Codes as int8 or float8 numbers."""

    def dense(parts: Parts, shape: Shape) -> Tensor:
        codes = parts[".weight"].float()
        if (zero := parts.get(".weight_zero_point")) is not None:
            where = torch.arange(shape[1]) // math.ceil(shape[1] / zero.reshape(shape[0], -1).size(1))
            codes = codes - zero.float().reshape(shape[0], -1)[:, where]
        return _scaled(codes, parts[".weight_scale"], None)

    return Layout(
        main=".weight",
        needed=(".weight_scale",),
        optional=(".weight_zero_point", ".input_scale", ".input_zero_point"),
        shape=lambda shapes, _: shapes[".weight"],
        dense=dense,
    )


# --- bitsandbytes


def bitsandbytes_8() -> Layout:
    """LLM.int8()'s weights."""
    return Layout(
        main=".weight",
        needed=(".SCB",),
        optional=(".weight_format",),
        shape=lambda shapes, _: shapes[".weight"],
        dense=lambda parts, _: parts[".weight"].float() * (parts[".SCB"].float() / 127).unsqueeze(-1),
    )


def bitsandbytes_4(kind: str) -> Layout:
    """`kind`: nf4 or fp4."""
    state = f".weight.quant_state.bitsandbytes__{kind}"

    def settings(parts: Parts) -> dict[str, Any]:
        found = parse_json(bytes(parts[state].tolist()), max_bytes=10_000)
        if not isinstance(found, dict):
            raise ValueError("its quant_state is no JSON object")
        return found

    def dense(parts: Parts, shape: Shape) -> Tensor:
        values, own = parts[".weight"].flatten(), settings(parts)
        codes = torch.stack((values >> 4, values & 15), dim=-1).flatten().long()[: math.prod(shape)]
        scales = parts[".weight.absmax"]
        if ".weight.nested_absmax" in parts:
            nested = torch.arange(len(scales)) // int(own["nested_blocksize"])
            table = parts[".weight.nested_quant_map"].float()
            scales = table[scales.long()] * parts[".weight.nested_absmax"].float()[nested] + float(own["nested_offset"])
        blocks = torch.arange(len(codes)) // int(own["blocksize"])
        return (parts[".weight.quant_map"].float()[codes] * scales.float()[blocks]).view(shape)

    return Layout(
        main=".weight",
        needed=(".weight.absmax", ".weight.quant_map", state),
        optional=(".weight.nested_absmax", ".weight.nested_quant_map"),
        small=(state,),
        shape=lambda _, small: tuple(int(size) for size in settings(small)["shape"]),
        dense=dense,
    )
