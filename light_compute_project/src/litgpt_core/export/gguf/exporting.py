"""Exports a checkpoint as a GGUF file: written under a temporary name, read back, compared, then put in place.

    matrices                          the requested type, if a row is a multiple of its block; else F16
    integers of a compressed model    their own codes, unless a type is requested (packed.py); its other matrices BF16
    embedding, output layer           the same, but Q8_0 where it would be a type of 4 or 5 bits
    norms, biases, positions, router  F32

Rows of the embedding beyond the tokenizer's ids are left out: llama.cpp could choose them.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litgpt_core import tokenizers
from litgpt_core.checkpoint import load_model, locate
from litgpt_core.checkpoint.load import EMBEDDING, OUTPUT
from litgpt_core.checkpoint.verification import is_compressed
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.core.files import write_atomically
from litgpt_core.core.replaceable import refuse_foreign_file
from litgpt_core.export.gguf.architecture import Architecture
from litgpt_core.export.gguf.architectures import EMBEDDING_NAME, ROPE_FREQUENCIES
from litgpt_core.export.gguf.chat_template import modelfile, template_of
from litgpt_core.export.gguf.checking import check_file
from litgpt_core.export.gguf.choosing import choose, has_divisors
from litgpt_core.export.gguf.layout import CHAT_TEMPLATE, FILE_TYPES, MAGIC, TENSOR_TYPES, TOKENIZER, TensorType
from litgpt_core.export.gguf.packed import Packed, main_type, packed_tensors
from litgpt_core.export.gguf.quantization import WRITABLE, Bytes, quantize
from litgpt_core.export.gguf.rope_divisors import divisors_of
from litgpt_core.export.gguf.vocabulary_out import vocabulary_fields
from litgpt_core.export.gguf.writing import NewTensor, write_gguf
from litgpt_core.export.huggingface.exporting import add_zero_biases
from litgpt_core.export.parity import Parity
from litgpt_core.export.writing import export_file, refuse_used
from litgpt_core.model.config import GPTConfig
from litgpt_core.prompts import PromptStyle, load_style
from litgpt_core.tokenizers import Tokenizer

logger = logging.getLogger(__name__)

TYPES = {name.lower(): name for name in WRITABLE}
"""Values of `--type` -> GGUF's name."""
_KINDS = {kind.name: kind for kind in TENSOR_TYPES.values()}
_SMALL = ("Q4_0", "Q4_1", "Q5_0", "Q5_1")


@dataclass(frozen=True, kw_only=True)
class ExportedGGUF:
    """The result of `export_gguf`."""

    path: Path
    architecture: str
    type: str
    n_bytes: int
    parameters: int
    other_types: tuple[str, ...]
    """Matrices that could not be stored in the requested type."""
    modelfile: Path
    parity: Parity | None
    """None if the check was left out."""


def export_gguf(
    checkpoint: str | Path | None,
    target: Path,
    *,
    type: str | None = None,
    force: bool = False,
    check: bool = True,
    packed: Packed | None = None,
) -> ExportedGGUF:
    """Write a checkpoint as a GGUF file, with a Modelfile for Ollama and a record of the comparison alongside.

    Args:
        checkpoint: A name or path as for `litgpt_core.checkpoint.choose`; None: the best candidate.
        target: The file to create.
        type: A key of `TYPES`; None: F16, or of a compressed directory the codes that it has.
        force: Replace an existing `target`.
        check: Read the file back and compare.
        packed: Quantized tensors to be written without change, instead of quantizing the checkpoint's.

    Raises:
        CheckpointError: No architecture is equivalent, the file does not compute the same, or cannot be written.
        TokenizerError: llama.cpp would return other ids.
        ConfigError: The type is unknown or needs llama.cpp's own tools.
    """
    kind = _known_type(type or "f16")
    directory, target = locate(checkpoint), Path(target)
    ollama = target.with_name(f"{target.stem}.Modelfile")
    refuse_used(target, source=directory, force=force, contains=MAGIC)
    refuse_foreign_file(ollama, contains=b"FROM ./", what="a Modelfile of this project")
    tokenizer, style = tokenizers.load(directory), load_style(directory)
    weights, tied, architecture, config = _loaded(directory, rows=(rows := tokenizer.vocab_size))
    if packed is None and type is None and is_compressed(directory):
        packed, kind = packed_tensors(directory, architecture, config, rows=rows), _KINDS["BF16"]
    lossy = main_type(packed) if packed else kind
    planned = list(_planned(architecture, config, weights, tied=tied, rows=rows, kind=kind, packed=packed))
    metadata = _metadata(directory, tokenizer, style, config=config, architecture=architecture, kind=lossy)
    parity = export_file(
        target,
        lambda path: write_gguf(path, metadata, planned),
        check=(lambda path: check_file(path, directory, tokenizer, kind=lossy, architecture=architecture))
        if check
        else None,
        n_bytes=sum(each.n_bytes for each in planned),
    )
    write_atomically(ollama, modelfile(target, style, context=config.block_size))
    return ExportedGGUF(
        path=target,
        architecture=architecture.model_type,
        type=lossy.name,
        n_bytes=target.stat().st_size,
        parameters=sum(int(np.prod(each.shape)) for each in planned if each.name != ROPE_FREQUENCIES),
        other_types=_other_types(planned, kind),
        modelfile=ollama,
        parity=parity,
    )


def _other_types(planned: list[NewTensor], kind: TensorType) -> tuple[str, ...]:
    """Matrices whose rows do not divide into the type's blocks."""
    return tuple(each.name for each in planned if len(each.shape) > 1 and each.type.name == "F16" != kind.name)


def _loaded(directory: Path, *, rows: int) -> tuple[dict[str, Tensor], bool, Architecture, GPTConfig]:
    """Weights with the biases that the architecture expects, whether the head is the embedding, and the model's kind.

    CheckpointError if the embedding has fewer than `rows`, the tokenizer's ids.
    """
    model = load_model(directory, dequantize=True)
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    tied = torch.equal(weights[OUTPUT], weights[EMBEDDING])
    architecture, config = choose(dataclasses.replace(model.config, tie_embeddings=tied))
    if rows > config.padded_vocab_size:
        raise CheckpointError(
            f"The tokenizer has {rows:,} ids, the embedding {config.padded_vocab_size:,} rows.",
            needed="a row for each id",
        )
    add_zero_biases(weights, architecture, config)
    return weights, tied, architecture, config


def _metadata(
    directory: Path,
    tokenizer: Tokenizer,
    style: PromptStyle | None,
    *,
    config: GPTConfig,
    architecture: Architecture,
    kind: TensorType,
) -> dict[str, Any]:
    """The file's keys and values."""
    fields, template = vocabulary_fields(directory, tokenizer), template_of(style, tokenizer)
    return {
        "general.architecture": architecture.model_type,
        "general.type": "model",
        "general.name": _title(config, tokens=fields[f"{TOKENIZER}tokens"]),
        "general.file_type": FILE_TYPES[kind.name],
        "general.quantization_version": 2,
        **architecture.write(_stored_config(config, tokenizer)),
        **fields,
        **({} if template is None else {CHAT_TEMPLATE: template}),
    }


def _known_type(type: str) -> TensorType:
    if type.lower() not in TYPES:
        k_quant = type.lower().startswith(("q2", "q3", "q4_k", "q5_k", "q6", "iq"))
        raise ConfigError(
            f"--type {type} is unknown." if not k_quant else f"--type {type} needs llama.cpp's own llama-quantize.",
            needed=f"one of {', '.join(TYPES)}",
            fix=f"--type f16, then llama-quantize FILE.gguf OUT.gguf {type.upper()}" if k_quant else "--type q8_0",
        )
    return _KINDS[TYPES[type.lower()]]


def _title(config: GPTConfig, *, tokens: list[str]) -> str:
    """The model's name. llama.cpp looks for special tokens of models named phi-3, and fails where it finds none."""
    name = config.name or "model"
    return name if "</s>" in tokens else re.sub(r"(?i)(phi)-?3", r"\1_3", name)


def _stored_config(config: GPTConfig, tokenizer: Tokenizer) -> GPTConfig:
    """The config as the file has it: rows cut to the ids, llama 3's rotation in a tensor."""
    plain: dict[str, Any] = {"rope_adjustments": None} if has_divisors(config) else {}
    return dataclasses.replace(config, vocab_size=tokenizer.vocab_size, padded_vocab_size=tokenizer.vocab_size, **plain)


def _planned(
    architecture: Architecture,
    config: GPTConfig,
    weights: Mapping[str, Tensor],
    *,
    tied: bool,
    rows: int,
    kind: TensorType,
    packed: Packed | None,
) -> Iterator[NewTensor]:
    """Every tensor of the file."""
    if has_divisors(config):
        divisors = divisors_of(config.rope_adjustments or {}, base=config.rope_base, size=config.rope_n_elem)
        data = divisors.astype(np.float32)
        yield NewTensor(name=ROPE_FREQUENCIES, shape=data.shape, type=_KINDS["F32"], make=lambda: data.view(np.uint8))
    left_out = tied and not architecture.head_required
    for rule in architecture.rules(config):
        if left_out and OUTPUT in rule.ours:
            continue
        ours = [
            weights[name][:rows] if name in (EMBEDDING, OUTPUT, "lm_head.bias") else weights[name] for name in rule.ours
        ]
        with torch.device("meta"):
            shapes = [tuple(each.shape) for each in rule.to_theirs([torch.empty(part.shape) for part in ours])]
        for index, (name, shape) in enumerate(zip(rule.theirs, shapes, strict=True)):
            if packed is not None and name in packed:
                own, blocks = packed[name]
                yield NewTensor(name=name, shape=shape, type=own, make=lambda blocks=blocks: blocks)  # type: ignore[misc]
                continue
            chosen = _type_of(name, shape, kind)
            make = _maker(architecture, config, rule, ours, index=index, kind=chosen)
            yield NewTensor(name=name, shape=shape, type=chosen, make=make)


def _maker(
    architecture: Architecture, config: GPTConfig, rule: Any, ours: list[Tensor], *, index: int, kind: TensorType
) -> Callable[[], Bytes]:
    def make() -> Bytes:
        tensor = architecture.to_file(rule.theirs[index], rule.to_theirs(ours)[index], config)
        return quantize(tensor.float().contiguous().numpy(), kind)

    return make


def _type_of(name: str, shape: tuple[int, ...], kind: TensorType) -> TensorType:
    if len(shape) < 2 or name in ("position_embd.weight",) or name.endswith("ffn_gate_inp.weight"):
        return _KINDS["F32"]
    if name in (EMBEDDING_NAME, "output.weight") and kind.name in _SMALL:
        kind = _KINDS["Q8_0"]
    return _KINDS["F16"] if shape[-1] % kind.block else kind
