"""The weights of a checkpoint by name, as rows of floats, and the linear layers and norms they make up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from litgpt_core.core.errors import CheckpointError
from litgpt_core.pure.arithmetic import Rows, Vector, layer_norm, plus, rms_norm, times
from litgpt_core.pure.config import ModelConfig
from litgpt_core.pure.weights import Tensor


class Weights:
    """The weights that begin with one prefix, as rows."""

    def __init__(self, weights: Mapping[str, Tensor], prefix: str, rows_of: dict[int, list[Vector]]) -> None:
        self._weights, self._prefix, self._rows_of = weights, prefix, rows_of

    def inside(self, name: str) -> Weights:
        """The weights that begin with the prefix and `name`."""
        return Weights(self._weights, f"{self._prefix}{name}.", self._rows_of)

    def rows(self, name: str) -> list[Vector]:
        """A matrix. Raises CheckpointError if it is missing."""
        tensor = self._weights.get(self._prefix + name)
        if tensor is None:
            raise CheckpointError(
                f"The checkpoint has no {self._prefix}{name}.",
                needed="the weights that its model_config.yaml describes",
            )
        return self._rows_of.setdefault(id(tensor), tensor.rows())

    def vector(self, name: str) -> Vector | None:
        """A vector, or None if there is none."""
        return self.rows(name)[0] if self._prefix + name in self._weights else None

    def linear(self, name: str) -> Linear:
        """A linear layer with or without bias."""
        return Linear(self.rows(f"{name}.weight"), self.vector(f"{name}.bias"))


class Linear(NamedTuple):
    """y = W x + b"""

    weight: Rows
    bias: Vector | None

    def __call__(self, x: Vector) -> Vector:
        """(in) -> (out)"""
        y = times(self.weight, x)
        return y if self.bias is None else plus(y, self.bias)


def norm(weights: Weights, name: str, config: ModelConfig, *, plain: bool = False) -> Callable[[Vector], Vector]:
    """The norm of that name: RMSNorm, "Gemma" with 1 + weight, or LayerNorm, "OLMo" without weight and bias.

    `plain`: RMSNorm with its weight as it is, whatever the model has elsewhere.
    """
    weight, bias, eps = weights.vector(f"{name}.weight"), weights.vector(f"{name}.bias"), config.norm_eps
    if plain or config.norm_class_name == "RMSNorm":
        scale = weights.rows(f"{name}.weight")[0]
        if "Gemma" in config.name and not plain:
            scale = [1.0 + each for each in scale]
        return lambda x: rms_norm(x, scale, eps)

    def normed(x: Vector) -> Vector:
        return layer_norm(x, weight or [1.0] * len(x), bias or [0.0] * len(x), eps)

    return normed
