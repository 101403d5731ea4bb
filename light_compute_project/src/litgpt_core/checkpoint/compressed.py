"""Checkpoint directories with compressed matrices: `compressed.safetensors` and `compression.yaml`.

    NAME-int4/
      model_config.yaml, tokenizer files, hyperparameters.yaml, checksums.json    as in every checkpoint directory
      compressed.safetensors     W.codes and W.scales | W.down and W.up | W.values and W.places; all others as they are
      compression.yaml           format, the kind of every matrix, and how it was made
      lit_model.pth              only if requested: the dequantized weights, for LitGPT

Without `lit_model.pth` LitGPT reports a missing file instead of reading something else. `load_model` builds
`QuantLinear` and `LowRankLinear` from such a directory; `load_weights` gives the dequantized state dict. A tied head is
stored once. The SHA-256 of the file is compared before it is used, because a changed byte is still a valid code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor

from litgpt_core.checkpoint.compressed_matrices import PARTS, CompressedMatrix, matrix_of
from litgpt_core.checkpoint.directory import save_directory
from litgpt_core.checkpoint.layout import COMPRESSED, COMPRESSION
from litgpt_core.checkpoint.verification import ANOTHER, check_listed
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import sha256_of
from litgpt_core.core.huge_pages import huge_page_memory
from litgpt_core.core.parsing import MAX_JSON_BYTES, ParsingError, parse_json, read_yaml

if TYPE_CHECKING:
    from litgpt_core.model.config import GPTConfig

FORMAT = 1
"""Of `compression.yaml`; readers refuse a larger one."""
HEAD, WTE = "lm_head", "transformer.wte"


@dataclass(frozen=True, kw_only=True)
class CompressedCheckpoint:
    """The content of a directory."""

    matrices: Mapping[str, CompressedMatrix]
    """Module path (`lm_head`, `transformer.h.0.attn.qkv`) -> its matrix."""
    others: Mapping[str, Tensor]
    """Every other weight by its name in the state dict."""
    tied: bool
    """The token embedding is the matrix of the head."""
    record: Mapping[str, Any]
    """How it was made: plain values."""
    int8_activations: bool = True
    """The CPU kernel rounds activations to 8 bits where it multiplies by integers; so does PyTorch then."""

    def state_dict(self) -> dict[str, Tensor]:
        """The dequantized weights under LitGPT's names, in the dtype of the uncompressed ones; tied names share one."""
        floats = [tensor.dtype for tensor in self.others.values() if tensor.is_floating_point()]
        dtype = floats[0] if floats else torch.float32
        weights = dict(self.others)
        weights |= {f"{path}.weight": matrix.dense().to(dtype) for path, matrix in self.matrices.items()}
        names = (f"{HEAD}.weight", f"{WTE}.weight")
        if self.tied:
            weights |= dict.fromkeys(names, weights[next(name for name in names if name in weights)])
        return weights


def save_compressed(
    path: Path,
    content: CompressedCheckpoint,
    *,
    config: GPTConfig,
    tokenizer_dir: Path,
    hyperparameters: Mapping[str, Any],
    with_dequantized: bool = False,
    files: tuple[Path, ...] = (),
) -> Path:
    """Write a compressed directory atomically; see `directory.save_directory`.

    Args:
        path: The directory to create or replace.
        content: What to store.
        config: Becomes `model_config.yaml`.
        tokenizer_dir: Folder of the tokenizer's files.
        hyperparameters: For `hyperparameters.yaml`.
        with_dequantized: Also write `lit_model.pth`, which LitGPT reads.
        files: Other files to copy.

    Raises:
        CheckpointError: It cannot be written; what was there is unchanged.
    """
    description = {
        "format": FORMAT,
        "tied": content.tied,
        "activations": "int8" if content.int8_activations else "none",
        "matrices": {name: matrix.facts for name, matrix in content.matrices.items()},
        **content.record,
    }

    def fill(folder: Path) -> dict[str, dict[str, int | str]]:
        _write_tensors(folder / COMPRESSED, content)
        _write_flushed(folder / COMPRESSION, yaml.safe_dump(description, sort_keys=False))
        names = (COMPRESSED, COMPRESSION)
        return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}

    return save_directory(
        path,
        weights=content.state_dict() if with_dequantized else None,
        config=config,
        tokenizer_dir=tokenizer_dir,
        hyperparameters=hyperparameters,
        files=files,
        fill=fill,
    )


def _write_tensors(file: Path, content: CompressedCheckpoint) -> None:
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in content.others.items()}
    for path, matrix in content.matrices.items():
        tensors |= {f"{path}.{name}": tensor.contiguous() for name, tensor in matrix.tensors().items()}
    save_file(tensors, file, metadata={"format": "pt"})
    with file.open("rb+") as written:
        os.fsync(written.fileno())
    file.chmod(0o644)  # safetensors creates files that only the user can read


def _write_flushed(file: Path, text: str) -> None:
    with file.open("x", encoding="utf-8") as written:
        written.write(text)
        written.flush()
        os.fsync(written.fileno())


def read_compressed(directory: Path) -> CompressedCheckpoint:
    """The content of a compressed directory.

    Raises:
        CheckpointError: A newer format, a changed or truncated file, or a file without what compression.yaml lists.
    """
    description = read_description(directory)
    check_listed(directory, [COMPRESSED, COMPRESSION])
    tensors = _read_tensors(directory / COMPRESSED)
    try:
        matrices = {
            path: matrix_of(facts, {name: tensors.pop(f"{path}.{name}") for name in PARTS[facts["kind"]]})
            for path, facts in description["matrices"].items()
        }
        tied, activations = bool(description["tied"]), description["activations"]
    except (KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(
            f"{directory / COMPRESSION} and {COMPRESSED} do not fit: {problem!r}.",
            needed="both files of one compression",
            fix=ANOTHER,
        ) from problem
    record = {key: value for key, value in description.items() if key not in _OWN}
    return CompressedCheckpoint(
        matrices=matrices, others=tensors, tied=tied, record=record, int8_activations=activations == "int8"
    )


_OWN = ("format", "tied", "activations", "matrices")


def read_description(directory: Path) -> dict[str, Any]:
    """`compression.yaml`. Raises CheckpointError if it is missing, unreadable or of a newer format."""
    file = directory / COMPRESSION
    try:
        found = read_yaml(file)
    except (OSError, ValueError, ParsingError) as problem:
        raise CheckpointError(
            f"{file} cannot be read: {problem}", needed="the description of the compressed weights", fix=ANOTHER
        ) from problem
    version = found.get("format") if isinstance(found, dict) else None
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f"{file} has format {version!r}.",
            needed=f"format {FORMAT} or older",
            fix="a newer version of this program, or compress the source again with this one",
        )
    return dict(found)


_DTYPES = {"U8": torch.uint8, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "I64": torch.int64}


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, read once into huge pages: mapped pages would count as memory a second time.

    The first tensor of codes begins at a cache line, and so do all others, whose sizes are multiples of 64 bytes.
    """
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = parse_json(opened.read(min(size, MAX_JSON_BYTES + 1)))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            codes = [entry["data_offsets"][0] for name, entry in entries.items() if name.endswith(".codes")]
            first, length = -min(codes, default=0) % 64, file.stat().st_size - 8 - size
            memory = huge_page_memory(first + length)
            if opened.readinto(memoryview(memory)[first : first + length]) != length:
                raise OSError("the file ends early")
        block = torch.frombuffer(memory, dtype=torch.uint8)
        return {name: _tensor(block, entry, first) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as problem:
        raise CheckpointError(f"{file} cannot be read: {problem!r}", needed="a complete file", fix=ANOTHER) from problem


def _tensor(block: Tensor, entry: Mapping[str, Any], first: int) -> Tensor:
    begin, end = entry["data_offsets"]
    data, dtype = block[first + begin : first + end], _DTYPES[entry["dtype"]]
    if (first + begin) % dtype.itemsize:
        data = data.clone()
    return data.view(dtype).view(entry["shape"])
