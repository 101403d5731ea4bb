"""Imports a GGUF file, atomically, as a LitGPT checkpoint directory.

The header, the settings, every name and shape, and the tokenizer are checked before a weight is read. Quantized weights
become what they stand for, exactly: d * q + m in float32.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litgpt_core.checkpoint import save_directory
from litgpt_core.checkpoint.load import OUTPUT, empty_model
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.export.gguf.architecture import Architecture
from litgpt_core.export.gguf.architectures import read_settings, recognise
from litgpt_core.export.gguf.header import GGUFFile, read_gguf
from litgpt_core.export.gguf.quantization import dequantize
from litgpt_core.export.gguf.vocabulary_in import write_tokenizer
from litgpt_core.export.huggingface.families import choose, write_config
from litgpt_core.export.huggingface.folder import StoredTensor
from litgpt_core.export.huggingface.importing import Imported, ImportPlan
from litgpt_core.export.huggingface.layout import CONFIG
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT

DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def import_gguf(
    file: Path, target: Path, *, force: bool = False, dtype: str = "auto", words: str | None = None
) -> Imported:
    """Create a checkpoint directory from a GGUF file.

    Args:
        file: A file of a known architecture, of any type that `quantization` reads.
        target: The directory to create.
        force: Replace an existing `target`, after the new directory is complete.
        dtype: 32, bf16, 16, or auto: the smallest of them that holds every weight exactly.
        words: How the tokenizer cuts words, instead of what the file says; see `pretokenizers`.

    Raises:
        CheckpointError: The file is corrupted, or its architecture or a setting is unknown, or `target` exists. Nothing
            is written.
        TokenizerError: The tokenizer is damaged or of an unknown kind.
        EnvironmentProblem: A tensor type needs the package gguf.
    """
    file, target = Path(file), Path(target)
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"The dtype {dtype!r} is unknown.", needed=f"auto, {', '.join(DTYPES)}")
    refuse_taken(target, source=file, force=force)
    header = read_gguf(file)
    architecture = recognise(header)
    config = read_settings(header, architecture)
    stored = GGUFWeights(header, architecture, config)
    plan = ImportPlan.make(stored, architecture, config)
    with tempfile.TemporaryDirectory(prefix="light-compute-import-") as temporary:
        folder = Path(temporary)
        n_tokens = write_tokenizer(header, folder, words=words)
        config = dataclasses.replace(plan.config, vocab_size=min(n_tokens, plan.config.padded_vocab_size))
        stored.dtype = stored.exact_dtype() if dtype == "auto" else DTYPES[dtype]
        weights = plan.read(stored)
        save_directory(
            target,
            weights=weights,
            config=config,
            tokenizer_dir=folder,
            hyperparameters={"imported_from": config.name, "gguf": _plain_metadata(header)},
            files=_config_file(config, folder),
        )
    parameters = sum(weight.numel() for name, weight in weights.items() if name != OUTPUT or not config.tie_embeddings)
    return Imported(path=target, config=config, architecture=f"GGUF {architecture.model_type}", parameters=parameters)


def read_model(file: Path) -> GPT:
    """The model of a file in float32, without its tokenizer. Raises CheckpointError as `import_gguf`."""
    header = read_gguf(Path(file))
    architecture = recognise(header)
    config = read_settings(header, architecture)
    stored = GGUFWeights(header, architecture, config)
    plan = ImportPlan.make(stored, architecture, config)
    weights = plan.read(stored)
    model = empty_model(plan.config)
    model.load_state_dict(weights, assign=True)
    if model.transformer.rope is not None:
        model.transformer.rope.theta = torch.empty(0)  # off the meta device, then computed again
        model.transformer.rope.reset_parameters()
    return model.eval()


class GGUFWeights:
    """The tensors of a file, in our layout of rows. See `huggingface.importing.StoredWeights`."""

    described_by = "its metadata"

    def __init__(self, header: GGUFFile, architecture: Architecture, config: GPTConfig) -> None:
        self.header, self.architecture, self.config = header, architecture, config
        self.path = header.path
        self.tensors: Mapping[str, StoredTensor] = {
            name: StoredTensor(file=header.path, shape=tensor.shape) for name, tensor in header.tensors.items()
        }
        self.dtype = torch.float32

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Every (name, tensor) in `dtype`."""
        for name in self.header.tensors:
            yield name, self.tensor(name).to(self.dtype)

    def tensor(self, name: str) -> Tensor:
        """One tensor in float32."""
        stored = self.header.tensors[name]
        values = dequantize(self.header.raw(stored), stored.type, stored.shape)
        if not values.flags.writeable:  # mapped
            values = values.copy()
        return self.architecture.from_file(name, torch.from_numpy(values), self.config)

    def exact_dtype(self) -> torch.dtype:
        """The smallest dtype that holds every weight exactly: norms are F32 in all files, but were often 16 bits."""
        kinds = {tensor.type.name for tensor in self.header.tensors.values() if len(tensor.shape) > 1}
        if len(kinds) != 1 or not kinds <= set(_PLAIN):
            return torch.float32
        dtype = _PLAIN[kinds.pop()]
        for name, tensor in self.header.tensors.items():
            if tensor.type.name == "F32" and dtype != torch.float32:
                values = self.tensor(name)
                if not torch.equal(values.to(dtype).float(), values):
                    return torch.float32
        return dtype


def _plain_metadata(header: GGUFFile) -> dict[str, Any]:
    """The metadata without its arrays and the chat template: for people."""
    return {
        key: value
        for key, value in header.metadata.items()
        if isinstance(value, str | int | float) and len(str(value)) < 200
    }


def _config_file(config: GPTConfig, folder: Path) -> list[Path]:
    """config.json as `litgpt evaluate` reads it, where a Hugging Face architecture computes the same."""
    try:
        family, fitting = choose(config)
    except CheckpointError:
        return []
    (folder / CONFIG).write_text(json.dumps(write_config(family, fitting), indent=2) + "\n", encoding="utf-8")
    return [folder / CONFIG]
