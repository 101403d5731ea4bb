"""Reads K-quants: blocks of 256 elements, cut into groups with scales of their own, which are numbers of 4 to 8 bits.

    Q2_K   16 groups of 16   x = d * scale * q - dmin * minimum        scale, minimum 4 bits, q 2 bits
    Q3_K   16 groups of 16   x = d * scale * q                         scale 6 bits, q 3 bits, signed
    Q4_K    8 groups of 32   x = d * scale * q - dmin * minimum        scale, minimum 6 bits, q 4 bits
    Q5_K    8 groups of 32   x = d * scale * q - dmin * minimum        scale, minimum 6 bits, q 5 bits
    Q6_K   16 groups of 16   x = d * scale * q                         scale 8 bits, q 6 bits, signed

The order of bits is ggml's (ggml-quants.c). Writing them needs a search for good scales: llama.cpp's llama-quantize.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[Any]]
"""Of float32."""
Bytes = np.ndarray[Any, np.dtype[Any]]
"""Of uint8; Any, because numpy's stubs give the result of every operator a wider type."""


def _float16(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of every block, (N, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _shifted(packed: Bytes, shifts: tuple[int, ...], mask: int) -> Bytes:
    """(N, P, L) bytes -> (N, P * len(shifts) * L): of each run of L bytes all lowest bits first, then the next ones."""
    parts = packed[:, :, None, :] >> np.array(shifts, np.uint8)[None, None, :, None] & mask
    return parts.reshape(len(packed), -1)


def _grouped(scale: Floats, numbers: Floats) -> Floats:
    """(N, groups) scales times (N, 256) numbers."""
    n, groups = scale.shape
    return (scale[:, :, None] * numbers.reshape(n, groups, -1)).reshape(n, -1)


def _scales_and_minima(packed: Bytes) -> tuple[Bytes, Bytes]:
    """(N, 12) bytes -> two of (N, 8): 6 bits each. The upper 2 bits of groups 4 to 7 are in the bytes of 0 to 3."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate((first & 63, third & 15 | first >> 6 << 4), axis=1)
    minima = np.concatenate((second & 63, third >> 4 | second >> 6 << 4), axis=1)
    return scales, minima


def _read_q2_k(blocks: Bytes) -> Floats:
    scales, packed = blocks[:, :16], blocks[:, 16:80].reshape(-1, 2, 32)
    numbers = _shifted(packed, (0, 2, 4, 6), 3).astype(np.float32)
    minima = np.repeat(_float16(blocks, 82) * (scales >> 4), 16, axis=1)
    values: Floats = _grouped(_float16(blocks, 80) * (scales & 15), numbers) - minima
    return values


def _read_q3_k(blocks: Bytes) -> Floats:
    high, packed, stored = blocks[:, :32], blocks[:, 32:96].reshape(-1, 2, 32), blocks[:, 96:108]
    low = np.concatenate((stored[:, :8] & 15, stored[:, :8] >> 4), axis=1)
    top = _shifted(stored[:, None, 8:], (0, 2, 4, 6), 3)
    scales = (low | top << 4).astype(np.float32) - 32
    bits = _shifted(high[:, None, :], tuple(range(8)), 1)
    numbers = _shifted(packed, (0, 2, 4, 6), 3).astype(np.float32) - 4 * (1 - bits.astype(np.float32))
    return _grouped(_float16(blocks, 108) * scales, numbers)


def _read_q4_k(blocks: Bytes) -> Floats:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    numbers = _shifted(blocks[:, 16:].reshape(-1, 4, 32), (0, 4), 15).astype(np.float32)
    offsets = np.repeat(_float16(blocks, 2) * minima, 32, axis=1)
    values: Floats = _grouped(_float16(blocks, 0) * scales, numbers) - offsets
    return values


def _read_q5_k(blocks: Bytes) -> Floats:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    fifth = _shifted(blocks[:, None, 16:48], tuple(range(8)), 1) << 4
    numbers = (_shifted(blocks[:, 48:].reshape(-1, 4, 32), (0, 4), 15) | fifth).astype(np.float32)
    offsets = np.repeat(_float16(blocks, 2) * minima, 32, axis=1)
    values: Floats = _grouped(_float16(blocks, 0) * scales, numbers) - offsets
    return values


def _read_q6_k(blocks: Bytes) -> Floats:
    low = _shifted(blocks[:, :128].reshape(-1, 2, 64), (0, 4), 15)
    high = _shifted(blocks[:, 128:192].reshape(-1, 2, 32), (0, 2, 4, 6), 3)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return _grouped(_float16(blocks, 208) * scales, (low | high << 4).astype(np.float32) - 32)


K_QUANTS: dict[str, Callable[[Bytes], Floats]] = {
    "Q2_K": _read_q2_k,
    "Q3_K": _read_q3_k,
    "Q4_K": _read_q4_k,
    "Q5_K": _read_q5_k,
    "Q6_K": _read_q6_k,
}
"""Name of a type -> its reader, (N, bytes of a block) -> (N, 256)."""
