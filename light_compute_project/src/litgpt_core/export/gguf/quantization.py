"""GGUF's tensor types <-> float32, by numpy: both ways for the simple types; K-quants are read by `k_quants`.

A row is cut into blocks of 32 elements, and each block is stored as

    Q8_0   d, 32 int8                   x = d * q
    Q4_0   d, 32 numbers of 4 bits      x = d * (q - 8)        Q5_0   d, a fifth bit each     x = d * (q - 16)
    Q4_1   d, m, 32 numbers of 4 bits   x = d * q + m          Q5_1   d, m, a fifth bit each  x = d * q + m

with d and m in float16; of a byte with two numbers, the lower half belongs to elements 0 to 15, the upper to 16 to 31.
The rounding is that of ggml's reference code (ggml-quants.c), so that files are equal to llama.cpp's, bit for bit.
Types that are not described here (IQ..., TQ..., MXFP4) are read by the package `gguf` where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.packages import optional
from litgpt_core.export.gguf.k_quants import K_QUANTS
from litgpt_core.export.gguf.layout import TENSOR_TYPES, TensorType

Floats = np.ndarray[Any, np.dtype[Any]]
"""Of float32."""
Bytes = np.ndarray[Any, np.dtype[Any]]
"""Of uint8; Any, because numpy's stubs give the result of every operator a wider type."""

BLOCK = 32


def dequantize(raw: Bytes, kind: TensorType, shape: tuple[int, ...]) -> Floats:
    """The elements of a tensor as float32; F16 and BF16 without loss, F64 rounded.

    Args:
        raw: The tensor's bytes, (n_bytes,).
        kind: Its type.
        shape: Of the result.

    Raises:
        EnvironmentProblem: A rare type that the package `gguf` reads, which is not installed.
    """
    if kind.name == "F32":
        return raw.view("<f4").reshape(shape)
    if kind.name in ("F16", "F64"):
        return raw.view("<f2" if kind.name == "F16" else "<f8").astype(np.float32).reshape(shape)
    if kind.name == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    blocks = raw.reshape(-1, kind.size)
    if kind.name in _READERS:
        return _READERS[kind.name](blocks).reshape(shape)
    return _by_package(raw, kind, shape)


def quantize(values: Floats, kind: TensorType) -> Bytes:
    """The bytes of a tensor in a type of `WRITABLE`.

    Args:
        values: (..., columns) float32, columns a multiple of the type's block.

    Raises:
        CheckpointError: A value is infinite or not a number, or too large for the type.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise CheckpointError("A weight is infinite or not a number.", needed="finite weights")
    if kind.name == "F32":
        return values.reshape(-1).view(np.uint8)
    if kind.name == "BF16":
        bits = values.view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16  # to nearest, ties to even
        return rounded.astype("<u2").reshape(-1).view(np.uint8)
    with np.errstate(over="ignore"):
        raw = values.astype("<f2").reshape(-1) if kind.name == "F16" else _WRITERS[kind.name](values.reshape(-1, BLOCK))
    if kind.name == "F16" and not np.isfinite(raw).all():
        raise CheckpointError(
            f"A weight of {np.abs(values).max():.3g} is too large for float16.", needed="weights up to 65504",
            fix="--type bf16 or f32",
        )  # fmt: skip
    return raw.reshape(-1).view(np.uint8)


def _by_package(raw: Bytes, kind: TensorType, shape: tuple[int, ...]) -> Floats:
    gguf = optional(
        "gguf",
        given=f"Tensors of type {kind.name} are read by the package gguf, which is not installed.",
        needed="the package gguf, or a file of another type, such as Q8_0 or Q4_K_M",
        fix="pip install gguf",
    )
    number = next(number for number, known in TENSOR_TYPES.items() if known == kind)
    found: Floats = gguf.quants.dequantize(raw.reshape(-1, kind.size), gguf.GGMLQuantizationType(number))
    return found.reshape(shape)


# --- reading


def _halves(packed: Bytes) -> Bytes:
    """(N, 16) bytes -> (N, 32) numbers of 4 bits."""
    return np.concatenate((packed & 15, packed >> 4), axis=1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """(N, 4) bytes -> (N, 32): 16 where the element's bit is set."""
    return np.unpackbits(np.ascontiguousarray(packed), axis=1, bitorder="little") << 4


def _float16(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of every block, (N, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _read_q8_0(blocks: Bytes) -> Floats:
    return _float16(blocks, 0) * blocks[:, 2:].view(np.int8)


def _read_q4_0(blocks: Bytes) -> Floats:
    return _float16(blocks, 0) * (_halves(blocks[:, 2:]).astype(np.float32) - 8)


def _read_q4_1(blocks: Bytes) -> Floats:
    return _float16(blocks, 0) * _halves(blocks[:, 4:]) + _float16(blocks, 2)


def _read_q5_0(blocks: Bytes) -> Floats:
    numbers = _halves(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return _float16(blocks, 0) * (numbers.astype(np.float32) - 16)


def _read_q5_1(blocks: Bytes) -> Floats:
    return _float16(blocks, 0) * (_halves(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])) + _float16(blocks, 2)


_READERS: dict[str, Callable[[Bytes], Floats]] = {
    "Q8_0": _read_q8_0,
    "Q4_0": _read_q4_0,
    "Q4_1": _read_q4_1,
    "Q5_0": _read_q5_0,
    "Q5_1": _read_q5_1,
    **K_QUANTS,
}


# --- writing


def _inverse(scale: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.where(scale == 0, np.float32(0), np.float32(1) / scale)


def _half_bytes(scale: Floats) -> Bytes:
    """(N, 1) float32 -> (N, 2) bytes of float16."""
    with np.errstate(over="ignore"):
        half = scale.astype("<f2")
    if not np.isfinite(half).all():
        raise CheckpointError(
            "A block's scale is too large for float16.", needed="smaller weights", fix="--type bf16 or f32"
        )
    return half.view(np.uint8)


def pack_halves(numbers: Bytes) -> Bytes:
    """(N, 32) numbers of 4 bits -> (N, 16) bytes."""
    return numbers[:, :16] & 15 | numbers[:, 16:] << 4


def _pack_fifth(numbers: Bytes) -> Bytes:
    return np.packbits(numbers >> 4 & 1, axis=1, bitorder="little")


def _write_q8_0(x: Floats) -> Bytes:
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    scaled = x * _inverse(scale)
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))  # half away from zero
    return np.concatenate((_half_bytes(scale), rounded.astype(np.int8).view(np.uint8)), axis=1)


def _symmetric(x: Floats, middle: int) -> tuple[Floats, Bytes]:
    """Scale and numbers of 0 to 2 * middle - 1: the element of largest size becomes 0, which stands for -middle."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(axis=1, keepdims=True), axis=1)
    scale = extreme / np.float32(-middle)
    numbers = np.trunc(x * _inverse(scale) + np.float32(middle + 0.5))
    return scale, numbers.clip(0, 2 * middle - 1).astype(np.uint8)


def _ranged(x: Floats, highest: int) -> tuple[Floats, Floats, Bytes]:
    """Scale, minimum and numbers of 0 to `highest`."""
    least = x.min(axis=1, keepdims=True)
    scale = (x.max(axis=1, keepdims=True) - least) / np.float32(highest)
    numbers = np.trunc((x - least) * _inverse(scale) + np.float32(0.5))
    return scale, least, numbers.clip(0, highest).astype(np.uint8)


def _write_q4_0(x: Floats) -> Bytes:
    scale, numbers = _symmetric(x, 8)
    return np.concatenate((_half_bytes(scale), pack_halves(numbers)), axis=1)


def _write_q5_0(x: Floats) -> Bytes:
    scale, numbers = _symmetric(x, 16)
    return np.concatenate((_half_bytes(scale), _pack_fifth(numbers), pack_halves(numbers)), axis=1)


def _write_q4_1(x: Floats) -> Bytes:
    scale, least, numbers = _ranged(x, 15)
    return np.concatenate((_half_bytes(scale), _half_bytes(least), pack_halves(numbers)), axis=1)


def _write_q5_1(x: Floats) -> Bytes:
    scale, least, numbers = _ranged(x, 31)
    return np.concatenate((_half_bytes(scale), _half_bytes(least), _pack_fifth(numbers), pack_halves(numbers)), axis=1)


_WRITERS: dict[str, Callable[[Floats], Bytes]] = {
    "Q8_0": _write_q8_0,
    "Q4_0": _write_q4_0,
    "Q4_1": _write_q4_1,
    "Q5_0": _write_q5_0,
    "Q5_1": _write_q5_1,
}

WRITABLE = ("F32", "F16", "BF16", *_WRITERS)
"""Types that `quantize` writes. K-quants need llama.cpp's own llama-quantize."""
