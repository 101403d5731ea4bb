"""Vectors as lists of floats: the few operations that a trained model needs, without derivatives."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import add, mul

Vector = list[float]
Rows = Sequence[Sequence[float]]

if sys.version_info >= (3, 12):
    dot: Callable[[Iterable[float], Iterable[float]], float] = math.sumprod
    """Sum of a_i * b_i: nearly all of the time goes here. In C since Python 3.12, twice as fast."""
else:

    def dot(a: Iterable[float], b: Iterable[float]) -> float:
        """Sum of a_i * b_i: nearly all of the time goes here. In C since Python 3.12, twice as fast."""
        total: float = sum(map(mul, a, b))
        return total


def times(rows: Rows, x: Vector) -> Vector:
    """A matrix times a vector."""
    return list(map(dot, rows, repeat(x)))


def plus(a: Vector, b: Vector) -> Vector:
    """a_i + b_i"""
    return list(map(add, a, b))


def rms_norm(x: Vector, weight: Vector, eps: float) -> Vector:
    """x / sqrt(mean(x^2) + eps) * weight"""
    factor = (dot(x, x) / len(x) + eps) ** -0.5
    return [each * factor * w for each, w in zip(x, weight, strict=True)]


def layer_norm(x: Vector, weight: Vector, bias: Vector, eps: float) -> Vector:
    """(x - mean) / sqrt(variance + eps) * weight + bias"""
    mean = sum(x) / len(x)
    centred = [each - mean for each in x]
    factor = (dot(centred, centred) / len(x) + eps) ** -0.5
    return [each * factor * w + b for each, w, b in zip(centred, weight, bias, strict=True)]


def softmax(x: Vector) -> Vector:
    """Positive numbers that sum to 1: e^x_i over their sum."""
    top = max(x)
    powers = [math.exp(each - top) for each in x]
    total = sum(powers)
    return [power / total for power in powers]


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)"""
    if x < 0:
        power = math.exp(x)
        return power / (1.0 + power)
    return 1.0 / (1.0 + math.exp(-x))


def silu(x: float) -> float:
    """x * sigmoid(x)"""
    return x * sigmoid(x)


def gelu(x: float) -> float:
    """x times the share of the normal distribution below x."""
    return 0.5 * x * (1.0 + math.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: float) -> float:
    """gelu, approximated by tanh (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def soft_cap(x: Vector, cap: float | None) -> Vector:
    """Each x squeezed into (-cap, cap); None changes nothing."""
    return x if cap is None else [cap * math.tanh(each / cap) for each in x]


def float32(x: float) -> float:
    """x rounded to single precision, which angles have in the core whatever the weights have."""
    rounded: float = struct.unpack("f", struct.pack("f", x))[0]
    return rounded
