"""GGUF's tensor types: bytes equal to ggml's own where the package gguf is installed, and by the formula everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.gguf.k_quants import K_QUANTS
from litgpt_core.export.gguf.layout import TENSOR_TYPES
from litgpt_core.export.gguf.quantization import WRITABLE, dequantize, quantize

BY_NAME = {kind.name: (number, kind) for number, kind in TENSOR_TYPES.items()}


@pytest.fixture
def values() -> np.ndarray:
    """(64, 256), with rows of zeros, of one value, and of one sign."""
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    x[0], x[1], x[2] = 0, 1.5, np.abs(x[2])
    x[3, :32] = -0.25
    return x


def blocks(name: str) -> np.ndarray:
    """Random bytes in which every float16 is finite."""
    kind = BY_NAME[name][1]
    raw = np.random.default_rng(1).integers(0, 256, (200, kind.size), dtype=np.uint8)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(dequantize(raw.reshape(-1), kind, (200, kind.block))).all(axis=1)
    assert finite.sum() > 100
    return np.ascontiguousarray(raw[finite])


@pytest.mark.parametrize("name", WRITABLE)
def test_written_bytes_are_ggmls(name: str, values: np.ndarray):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType(BY_NAME[name][0]))
    assert quantize(values, BY_NAME[name][1]).tobytes() == np.ascontiguousarray(theirs).tobytes()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16", *K_QUANTS, "IQ4_NL", "TQ2_0"])
def test_read_values_are_ggmls(name: str):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    number, kind = BY_NAME[name]
    raw = blocks(name)
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(number))
    assert np.array_equal(dequantize(raw.reshape(-1), kind, theirs.shape), theirs)


@pytest.mark.parametrize(("name", "levels"), [("Q4_0", 8), ("Q4_1", 15), ("Q5_0", 16), ("Q5_1", 31), ("Q8_0", 127)])
def test_the_error_is_at_most_one_step(name: str, levels: int, values: np.ndarray):
    kind = BY_NAME[name][1]
    back = dequantize(quantize(values, kind), kind, values.shape).reshape(-1, 32)
    x = values.reshape(-1, 32)
    spread = np.ptp(x, axis=1, keepdims=True) if name.endswith("1") else np.abs(x).max(axis=1, keepdims=True)
    assert (np.abs(back - x) <= spread / levels + 2e-3).all()
    again = dequantize(quantize(back.reshape(values.shape), kind), kind, values.shape)
    assert np.abs(again.reshape(-1, 32) - back).max() < 4e-3


def test_bfloat16_rounds_to_even_as_torch_does(values: np.ndarray):
    import torch

    kind = BY_NAME["BF16"][1]
    assert np.array_equal(
        dequantize(quantize(values, kind), kind, values.shape), torch.from_numpy(values).bfloat16().float().numpy()
    )


def test_a_q4_k_block_by_hand():
    """One block from its formula: d = 0.5, dmin = 0.25; group 5: scale 0b101011, minimum 0b110001, all numbers 9."""
    block = np.zeros(144, np.uint8)
    block[:4] = np.array([0.5, 0.25], "<f2").view(np.uint8)
    block[4 + 1] = 0b10 << 6  # upper bits of scale 5
    block[4 + 5] = 0b11 << 6  # upper bits of minimum 5
    block[4 + 9] = 0b1011 | 0b0001 << 4
    block[16 + 64 : 16 + 96] = 9 << 4  # groups 4 and 5 share bytes; 5 has the upper halves
    found = dequantize(block, BY_NAME["Q4_K"][1], (8, 32))
    assert (found[5] == 0.5 * 0b101011 * 9 - 0.25 * 0b110001).all()
    assert (found[[0, 2, 3, 4, 6, 7]] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_infinite_weights_are_refused(bad: float):
    with pytest.raises(CheckpointError, match="not a number"):
        quantize(np.array([[bad] * 32], np.float32), BY_NAME["Q8_0"][1])


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_1"])
def test_weights_too_large_for_float16_are_refused(name: str):
    with pytest.raises(CheckpointError, match="too large"):
        quantize(np.array([[1e8] * 32], np.float32), BY_NAME[name][1])
