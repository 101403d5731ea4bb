"""Writes checkpoint directories atomically: weights, config, tokenizer, hyperparameters, extra files, checksums.

`load.py` reads them and `verification.py` checks them. In a run of several processes only one of them calls
`save_directory`.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import torch
import yaml
from torch import Tensor

from litgpt_core.checkpoint.layout import (
    CHECKSUMS,
    HYPERPARAMETERS,
    MODEL_CONFIG,
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    TOKENIZER_VOCABULARIES,
    WEIGHTS,
)
from litgpt_core.checkpoint.verification import what_runs_code
from litgpt_core.core.directories import new_directory, write_problem
from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.files import HashedFile
from litgpt_core.core.links import refuse_leading_out

if TYPE_CHECKING:
    from litgpt_core.model.config import GPTConfig

_COMPILED_PREFIX = "_orig_mod."


def save_directory(
    path: Path,
    *,
    weights: Mapping[str, Tensor] | None,
    config: GPTConfig,
    tokenizer_dir: Path,
    hyperparameters: Mapping[str, Any],
    extra: Mapping[str, object] | None = None,
    files: Sequence[Path] = (),
    weights_name: str = WEIGHTS,
    fill: Callable[[Path], Mapping[str, dict[str, int | str]]] | None = None,
) -> Path:
    """Write a LitGPT directory atomically, replacing an existing one at `path`.

    Args:
        path: The directory to create, e.g. `checkpoints/step-00000020`. Parents are created.
        weights: The model's state dict, on any device; tied weights under both names. None writes no weights file.
        config: Its `to_yaml_dict()` becomes `model_config.yaml`.
        tokenizer_dir: Folder that holds the tokenizer's files; they are copied.
        hyperparameters: Plain values (dict, list, str, int, float, bool, None) for `hyperparameters.yaml`.
        extra: `{file name: object}`, each saved with torch.save, e.g. `{"resume.pt": {...}}`: tensors and plain values
            only.
        files: Other files to copy.
        weights_name: Name of the weights file; `layout.ADAPTER` for adapters alone.
        fill: Writes and flushes more files in the folder that it is given; returns their sizes and hashes.

    Returns:
        `path`.

    Raises:
        CheckpointError: The disk is full, `path` is not writable, or the tokenizer is incomplete. An existing directory
            is then unchanged, and no partial one remains.
        TypeError: `hyperparameters` or `extra` hold an object that could not be loaded without running code.
    """
    path, extra = Path(path), dict(extra or {})
    copied = [*_tokenizer_files(Path(tokenizer_dir)), *files]
    texts = {
        MODEL_CONFIG: yaml.safe_dump(config.to_yaml_dict(), sort_keys=False),
        HYPERPARAMETERS: _plain_yaml(hyperparameters),
    }
    weights = None if weights is None else portable_weights(weights)
    needed = _tensor_bytes([weights, extra]) + sum(file.stat().st_size for file in copied) + 100_000
    try:
        with new_directory(path) as folder:
            listed = {} if fill is None else dict(fill(folder))
            if weights is not None:
                listed[weights_name] = _write_torch(folder / weights_name, weights)
            for name, text in texts.items():
                listed[name] = _write_text(folder / name, text)
            for source in copied:
                listed[source.name] = _copy(source, folder / source.name)
            for name, content in extra.items():
                listed[name] = _write_torch(folder / name, content)
            _write_text(folder / CHECKSUMS, json.dumps(listed, indent=1))
    except OSError as problem:
        raise write_problem(path, problem, needed_bytes=needed) from problem
    return path


def portable_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict to be saved: on the CPU, contiguous, without unused storage, without torch.compile's prefix.

    Names that share one tensor (tied weights) still share it, so that the file holds it once.
    """
    portable: dict[str, Tensor] = {}
    seen: dict[tuple[object, ...], Tensor] = {}
    for name, tensor in weights.items():
        plain_name = name.replace(_COMPILED_PREFIX, "")
        if plain_name in portable:
            raise ValueError(f"two weights would be named {plain_name}")
        tensor = tensor.detach()
        identity = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if identity not in seen or tensor.numel() == 0:
            moved = tensor.cpu().contiguous()
            seen[identity] = moved.clone() if moved.untyped_storage().nbytes() > moved.nbytes else moved
        portable[plain_name] = seen[identity]
    return portable


def _tokenizer_files(folder: Path) -> list[Path]:
    files = [refuse_leading_out(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()]
    names = {file.name for file in files}
    if TOKENIZER_CONFIG not in names or not names.intersection(TOKENIZER_VOCABULARIES):
        raise CheckpointError(
            f"The tokenizer in {folder} is incomplete: found {sorted(names) or 'none of its files'}.",
            needed=f"{' or '.join(TOKENIZER_VOCABULARIES)}, and {TOKENIZER_CONFIG}",
            fix="pass the folder written by Tokenizer.save",
        )
    return files


def _plain_yaml(values: Mapping[str, Any]) -> str:
    try:
        return yaml.safe_dump(dict(values), sort_keys=False)
    except yaml.representer.RepresenterError as problem:
        raise TypeError(f"hyperparameters must hold plain values only: {problem}") from problem


def _tensor_bytes(value: object) -> int:
    """Bytes of all tensors in nested containers; duplicates are counted each time."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_tensor_bytes(item) for item in value.values())
    return sum(_tensor_bytes(item) for item in value) if isinstance(value, list | tuple) else 0


def _write(path: Path, write: Callable[[HashedFile], object]) -> dict[str, int | str]:
    file = HashedFile(path)
    try:
        write(file)
        return file.finish()
    except RuntimeError as problem:  # torch reports a failed write as an internal error without its cause
        raise file.error or problem from problem
    finally:
        file.close()


def _write_text(path: Path, text: str) -> dict[str, int | str]:
    return _write(path, lambda file: file.write(text.encode()))


def _write_torch(path: Path, content: object) -> dict[str, int | str]:
    facts = _write(path, lambda file: torch.save(content, cast("IO[bytes]", file)))
    if unsafe := what_runs_code(path):
        raise TypeError(f"{path.name} must hold tensors and plain values only, not {unsafe}")
    return facts


def _copy(source: Path, target: Path) -> dict[str, int | str]:
    with source.open("rb") as original:
        return _write(target, lambda file: shutil.copyfileobj(original, cast("io.BufferedIOBase", file)))
