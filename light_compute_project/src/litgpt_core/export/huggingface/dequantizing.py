"""Quantized Hugging Face folders as folders of plain weights: every matrix becomes the numbers that it stands for.

Those numbers are not the model's before it was quantized: what rounding lost is lost. All weights are returned in
float32, in which codes times scales are exact to its last digit. Methods that are not listed are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.huggingface.folder import AGAIN, QUANTIZED_ITEM_BYTES, StoredTensor, WeightFolder, open_weights
from litgpt_core.export.huggingface.settings import ConfigFile

if TYPE_CHECKING:
    from torch import Tensor

    from litgpt_core.export.huggingface.quantized_layouts import Layout

METHODS = ("gptq", "awq", "compressed-tensors", "bitsandbytes")
"""Values of `quant_method`."""
_FIX = "use the unquantised folder of the model, or a GGUF file of it, which is dequantised"


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What config.json says about how weights are stored."""

    method: str
    settings: Mapping[str, Any]
    path: Path

    @classmethod
    def of(cls, file: ConfigFile) -> Quantization | None:
        """None for plain weights. Raises CheckpointError for a method that is not known."""
        settings = file.content.get("quantization_config")
        if not settings:
            return None
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        if (
            method is None
            and isinstance(settings, dict)
            and (settings.get("load_in_4bit") or settings.get("load_in_8bit"))
        ):
            method = "bitsandbytes"
        if method not in METHODS:
            raise CheckpointError(
                f"{file.path} says that the weights are quantised{f' by {method}' if isinstance(method, str) else ''}.",
                needed=f"plain 16- or 32-bit weights, or quant_method {', '.join(METHODS)}",
                fix=_FIX,
            )
        if file.content.get("model_type") == "gpt2":
            raise CheckpointError(f"{file.path} is a GPT-2 quantised by {method}.", needed="a plain GPT-2", fix=_FIX)
        return cls(method=method, settings=settings, path=file.path)

    def layouts(self) -> list[Layout]:
        """How its matrices may be stored. Raises CheckpointError for a variant that is not known."""
        from litgpt_core.export.huggingface import quantized_layouts as known

        if self.method == "bitsandbytes":
            return [known.bitsandbytes_4("nf4"), known.bitsandbytes_4("fp4"), known.bitsandbytes_8()]
        if self.method == "awq":
            self._setting("version", "gemm", ("gemm", "GEMM"))
            self._setting("bits", 4, (4,))
            return [known.awq(group=int(self.settings.get("group_size", 128)))]
        if self.method == "gptq":
            bits = self._setting("bits", 4, (2, 4, 8))
            version = self._setting("checkpoint_format", "gptq", ("gptq", "gptq_v2"))
            return [known.gptq(bits=bits, added=1 if version == "gptq" else 0)]
        formats = ("pack-quantized", "int-quantized", "naive-quantized", "float-quantized")
        if self._setting("format", "pack-quantized", formats) == "pack-quantized":
            return [known.pack_quantized(bits_of=_packed_bits)]
        return [known.plain_codes()]

    def _setting(self, key: str, default: Any, allowed: tuple[Any, ...]) -> Any:
        value = self.settings.get(key, default)
        if value not in allowed:
            raise CheckpointError(
                f"{self.path} says {self.method} with {key}={value!r}.",
                needed=f"{key} {' or '.join(map(str, allowed))}",
                fix=_FIX,
            )
        return value

    def said(self) -> str:
        """One sentence about what importing does to the weights."""
        return (
            f"{self.method}: matrices become the numbers that their integers stand for, in float32; "
            "what quantizing them lost is lost"
        )


def _packed_bits(shapes: Mapping[str, tuple[int, ...]], shape: tuple[int, ...]) -> int:
    """Bits of a code from how many words a row has."""
    words = shapes[".weight_packed"][1]
    fitting = [bits for bits in (8, 4, 2) if -(-shape[1] // (32 // bits)) == words]
    if not fitting:
        raise ValueError(f"{words} words hold no {shape[1]} codes of 2, 4 or 8 bits")
    return fitting[0]


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    layout: Layout
    names: Mapping[str, str]
    """Ending -> stored name, of the parts that are there."""
    shape: tuple[int, ...]


class DequantizedFolder:
    """A folder of quantized weights, seen as one of plain weights: `StoredWeights` of an import."""

    described_by = "config.json"

    def __init__(self, stored: WeightFolder, quantization: Quantization) -> None:
        """Raises CheckpointError if no matrix is quantized, or one is incomplete."""
        self.path, self._stored, self._quantization = stored.path, stored, quantization
        self._matrices = dict(self._found(quantization.layouts()))
        if not self._matrices:
            raise CheckpointError(
                f"{quantization.path} says that the weights are quantised by {quantization.method}, but none is.",
                needed="weights as config.json describes them",
                fix=AGAIN,
            )
        used = {name for matrix in self._matrices.values() for name in matrix.names.values()}
        plain = {name: tensor for name, tensor in stored.tensors.items() if name not in used}
        made = {
            f"{layer}.weight": StoredTensor(file=stored.tensors[next(iter(m.names.values()))].file, shape=m.shape)
            for layer, m in self._matrices.items()
        }
        self.tensors: Mapping[str, StoredTensor] = {**plain, **made}
        self._plain = plain

    def _found(self, layouts: list[Layout]) -> Iterator[tuple[str, _Matrix]]:
        names = self._stored.tensors
        for layout in layouts:
            for name in names:
                layer = name.removesuffix(layout.main)
                if layer == name or not all(layer + each in names for each in layout.needed):
                    continue
                there = [each for each in layout.optional if layer + each in names]
                parts = {each: layer + each for each in (layout.main, *layout.needed, *there)}
                small = {each: self._read(layer + each) for each in layout.small}
                try:
                    shape = layout.shape({each: names[part].shape for each, part in parts.items()}, small)
                except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as problem:
                    raise self._damaged(layer, problem) from problem
                yield layer, _Matrix(layout=layout, names=parts, shape=shape)

    def _read(self, name: str) -> Tensor:
        return next(tensor for _, tensor in self._stored.read([name]))

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Every (stored name, tensor) in float32, one matrix in memory at a time."""
        for name, tensor in self._stored.read(list(self._plain)):
            yield name, tensor.float() if tensor.is_floating_point() else tensor
        for layer, matrix in self._matrices.items():
            parts = {ending: self._read(name) for ending, name in matrix.names.items()}
            try:
                dense = matrix.layout.dense(parts, matrix.shape)
                if tuple(dense.shape) != matrix.shape:
                    raise ValueError(f"{tuple(dense.shape)} numbers instead of {matrix.shape}")
            except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as problem:
                raise self._damaged(layer, problem) from problem
            yield f"{layer}.weight", dense.contiguous()

    def _damaged(self, layer: str, problem: Exception) -> CheckpointError:
        return CheckpointError(
            f"The parts of {layer} in {self.path} do not fit together: {str(problem)[:200]}.",
            needed=f"weights as {self._quantization.method} stores them",
            fix=AGAIN,
        )


def open_folder(folder: Path, quantization: Quantization | None) -> WeightFolder | DequantizedFolder:
    """The weights of a folder, dequantized if they are quantized."""
    if quantization is None:
        return open_weights(folder)
    return DequantizedFolder(open_weights(folder, items=QUANTIZED_ITEM_BYTES), quantization)
