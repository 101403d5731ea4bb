"""Builds an ONNX graph node by node; the package `onnx` is imported here alone.

Operator set 18, which onnxruntime runs everywhere, also in browsers; integer matrices use `com.microsoft`'s
MatMulNBits.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from litgpt_core.core.errors import EnvironmentProblem

OPSET = 18
INSTALL = "pip install onnx onnxruntime"
_IR_VERSION = 8
"""Of the same time as the operator set."""
_NAME = "light_compute_project"

Array = np.ndarray[Any, np.dtype[Any]]


def onnx_package() -> Any:
    """The package. Raises EnvironmentProblem if it is not installed."""
    try:
        return importlib.import_module("onnx")
    except ImportError:
        raise EnvironmentProblem(
            "An ONNX file is written by the package onnx, which is not installed.", needed="onnx", fix=INSTALL
        ) from None


class Graph:
    """Nodes in the order of computation, and constants; equal small constants are stored once."""

    def __init__(self) -> None:
        self.onnx = onnx_package()
        self._nodes: list[Any] = []
        self._stored: dict[str, Any] = {}
        self._known: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0

    def _new(self, hint: str) -> str:
        self._count += 1
        return f"{hint}_{self._count}"

    # --- constants

    def store(self, name: str, array: Array) -> str:
        """A weight; under one name only once."""
        if name not in self._stored:
            self._stored[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def _small(self, array: Array) -> str:
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._known:
            self._known[key] = self.store(self._new("constant"), array)
        return self._known[key]

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self._small(np.array(value, dtype=np.float32))

    def integers(self, *values: int) -> str:
        """(n,) int64."""
        return self._small(np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self._small(np.array(value, dtype=np.int64))

    # --- nodes

    def add(self, op: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """A node with one result; its name."""
        name = output or self._new(op)
        made = self.onnx.helper.make_node(op, list(inputs), [name], name=f"node_{name}", domain=domain, **attributes)
        self._nodes.append(made)
        return name

    def split(self, x: str, sizes: Sequence[int], *, axis: int = -1) -> list[str]:
        """Parts of `x` along an axis."""
        names = [self._new("Split") for _ in sizes]
        inputs = [x, self.integers(*sizes)]
        self._nodes.append(self.onnx.helper.make_node("Split", inputs, names, name=f"node_{names[0]}", axis=axis))
        return names

    def reshape(self, x: str, *sizes: int) -> str:
        """0 keeps a size, -1 is what remains."""
        return self.add("Reshape", x, self.integers(*sizes))

    # --- inputs, outputs, file

    def input(self, name: str, kind: type, shape: Sequence[int | str]) -> str:
        """An input of the graph; sizes that vary have names."""
        self._inputs.append(self._described(name, kind, shape))
        return name

    def output(self, name: str, kind: type, shape: Sequence[int | str]) -> None:
        """A node's result that the graph returns."""
        self._outputs.append(self._described(name, kind, shape))

    def _described(self, name: str, kind: type, shape: Sequence[int | str]) -> Any:
        number = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return self.onnx.helper.make_tensor_value_info(name, number, list(shape))

    def model(self) -> Any:
        """The complete model, checked by the package's own checker."""
        helper = self.onnx.helper
        graph = helper.make_graph(
            self._nodes, "decoder", self._inputs, self._outputs, initializer=list(self._stored.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        made = helper.make_model(graph, opset_imports=opsets, producer_name=_NAME, ir_version=_IR_VERSION)
        self.onnx.checker.check_model(made)
        return made
