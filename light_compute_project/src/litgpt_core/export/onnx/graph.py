"""Builds an ONNX graph node by node; the package `onnx` is imported here alone.

Operator set 18, which onnxruntime runs everywhere, also in browsers; integer matrices use `com.microsoft`'s
MatMulNBits. A protobuf message is at most 2 GiB: the weights of a larger graph are in a second file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.packages import optional

OPSET = 18
INSTALL = "pip install onnx onnxruntime"
_IR_VERSION = 8
"""Of the same time as the operator set."""
_NAME = "light_compute_project"
MOST_BYTES = 2_000_000_000
"""Of weights in the graph's own file."""
_LEAST, _PAGE = 1024, 4096
"""Bytes of a weight that goes into a second file, and multiples of which it begins there, so that it can be mapped."""

Array = np.ndarray[Any, np.dtype[Any]]


def onnx_package() -> Any:
    """The package. Raises EnvironmentProblem if it is not installed."""
    given = "An ONNX file is written by the package onnx, which is not installed."
    return optional("onnx", given=given, needed="onnx", fix=INSTALL)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A graph, and the weights that its message does not hold; none, unless they are more than `MOST_BYTES`."""

    model: Any
    external: Mapping[str, Array]

    def write(self, file: Path, *, data: Path | None = None) -> int:
        """Write the graph, checked by the package's own checker.

        Args:
            file: What to write; a second file has `_data` at the end of its name.
            data: The second file, if it is there already, from the same weights.

        Returns:
            Bytes of both files.
        """
        onnx = onnx_package()
        second = data or file.with_name(f"{file.name}_data")
        tensors = {each.name: each for each in self.model.graph.initializer}
        offset = 0
        for name, array in self.external.items():
            offset = -(-offset // _PAGE) * _PAGE
            place = {"location": second.name, "offset": str(offset), "length": str(array.nbytes)}
            del tensors[name].external_data[:]
            tensors[name].external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in place.items())
            offset += array.nbytes
        if self.external and data is None:
            with second.open("wb") as opened:
                for array in self.external.values():
                    opened.write(b"\0" * (-opened.tell() % _PAGE))
                    array.tofile(opened)
        message = self.model.SerializeToString()
        file.write_bytes(message)
        onnx.checker.check_model(str(file))
        return len(message) + offset


class Graph:
    """Nodes in the order of computation, and constants; equal small constants are stored once."""

    def __init__(self) -> None:
        self.onnx = onnx_package()
        self._nodes: list[Any] = []
        self._stored: dict[str, Array] = {}
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
            self._stored[name] = np.ascontiguousarray(array).reshape(array.shape)
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

    def model(self) -> Built:
        """The complete graph."""
        helper = self.onnx.helper
        large = sum(array.nbytes for array in self._stored.values()) > MOST_BYTES
        external = {name: array for name, array in self._stored.items() if large and array.nbytes >= _LEAST}
        initializers = [self._initializer(name, array, name in external) for name, array in self._stored.items()]
        graph = helper.make_graph(self._nodes, "decoder", self._inputs, self._outputs, initializer=initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        made = helper.make_model(graph, opset_imports=opsets, producer_name=_NAME, ir_version=_IR_VERSION)
        return Built(model=made, external=external)

    def _initializer(self, name: str, array: Array, external: bool) -> Any:
        if not external:
            return self.onnx.numpy_helper.from_array(array, name)
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        where = self.onnx.TensorProto.EXTERNAL
        return self.onnx.TensorProto(name=name, data_type=kind, dims=array.shape, data_location=where)
