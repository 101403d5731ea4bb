"""From a path to a `Subject`: checkpoint in float32, tokenizer, held-out text, and the run's other checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litgpt_core.checkpoint.load import load_model
from litgpt_core.checkpoint.retention import step_of
from litgpt_core.checkpoint.search import resolve
from litgpt_core.core.checkout import working_folder
from litgpt_core.core.errors import DataError
from litgpt_core.data.dataset import TokenFile
from litgpt_core.data.prepare import open_prepared
from litgpt_core.data.text_data import TextData
from litgpt_core.interpret.subject import TEXT_TOKENS, Subject
from litgpt_core.runs.folders import RunRecord
from litgpt_core.tokenizers import load as load_tokenizer
from litgpt_core.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

LONGEST = 256
"""Tokens of a window of held-out text."""
COUNTED = 1 << 22
"""Tokens of the training text that frequencies are counted on."""


def load_subject(path: str | Path, *, text: str | Path | None = None, **options: Any) -> Subject:
    """Everything that the analyses need.

    Args:
        path: A run folder, a checkpoint directory, or its weights file.
        text: A text file as held-out text; None: the validation split of the run's prepared data, if it is found.
        options: Fields of `Subject`: prompt, against, seed, layer, effort.

    Raises:
        CheckpointError: There is no checkpoint, or its tokenizer is another model's.
        DataError: The text cannot be read, is too short, or the prepared data is of another tokenizer.
        ConfigError: A prompt is too long for the model, or there is no such layer.
    """
    directory = resolve(Path(path))
    model = load_model(directory, dtype=torch.float32)
    tokenizer = load_tokenizer(directory)
    run = _run_of(Path(path), directory)
    found: dict[str, Any] = {}
    if text is not None:
        found = _of_file(Path(text), tokenizer, model.config.block_size)
    elif run is not None:
        found = _of_run(run, tokenizer, model.config.block_size)
    return Subject(
        model=model,
        tokenizer=tokenizer,
        name=directory.name if run is None else run.name,
        directory=directory,
        checkpoints=[] if run is None else _checkpoints(run.path),
        **found,
        **options,
    )


def _run_of(path: Path, directory: Path) -> RunRecord | None:
    """The run whose folder, final model or checkpoint this is."""
    for folder in (path, directory.parent, directory.parent.parent):
        if (folder / "config.yaml").is_file() and ((folder / "final").is_dir() or (folder / "checkpoints").is_dir()):
            return RunRecord(folder)
    return None


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    folders = (run / "checkpoints").glob("step-*") if (run / "checkpoints").is_dir() else ()
    found = [(step, folder) for folder in folders if (step := step_of(folder)) is not None]
    return sorted(found)


def _of_run(run: RunRecord, tokenizer: Tokenizer, block_size: int) -> dict[str, Any]:
    """Windows of the validation split, and counts of the training split; nothing where the data is not at hand."""
    data, used = run.config.get("data") or {}, run.environment.get("data") or {}
    name, fingerprint = used.get("name"), used.get("fingerprint")
    if not name or not fingerprint:
        return {}
    folder = working_folder() / Path(str(data.get("cache_dir", "data"))).expanduser() / f"{name}-{fingerprint[:12]}"
    if not folder.is_dir():
        logger.warning("The prepared data of %s is not at %s: no held-out text", run.name, folder)
        return {}
    prepared = open_prepared(folder)
    if not isinstance(prepared, TextData):
        logger.warning("%s was trained on conversations: give a text file as held-out text", run.name)
        return {}
    own = tokenizer.fingerprint()
    if (theirs := str(prepared.meta["tokenizer"].get("fingerprint", own))) != own:
        raise DataError(
            f"{folder} was prepared with another tokenizer than that of the checkpoint",
            needed=f"the fingerprint {own[:12]}, not {theirs[:12]}",
            fix="--text FILE, which is tokenized anew",
        )
    validation = TokenFile(prepared.val_path, dtype=prepared.dtype).array()
    training = TokenFile(prepared.train_path, dtype=prepared.dtype).array()
    return {
        "windows": windows_of(np.asarray(validation), block_size),
        "bytes_per_token": prepared.val_bytes / prepared.val_tokens,
        "counts": np.bincount(training[:COUNTED], minlength=tokenizer.vocab_size),
    }


def _of_file(path: Path, tokenizer: Tokenizer, block_size: int) -> dict[str, Any]:
    """Windows and counts of a text file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise DataError(
            f"{path} cannot be read: {problem.strerror}", needed="a text file", fix="--text FILE"
        ) from problem
    ids = np.array(tokenizer.encode(text[: 8 * TEXT_TOKENS]), dtype=np.int64)
    if len(ids) < 3:
        raise DataError(f"{path} has {len(ids)} tokens", needed="a text of some thousand tokens", fix="a longer text")
    return {
        "windows": windows_of(ids, block_size),
        "bytes_per_token": len(tokenizer.decode(ids.tolist()).encode()) / len(ids),
        "counts": np.bincount(ids, minlength=tokenizer.vocab_size),
    }


def windows_of(ids: np.ndarray[Any, Any], block_size: int) -> Tensor:
    """(M,) ids -> (N, T + 1) windows spread evenly over the text that overlap by no target; T is at most 256."""
    length = min(block_size, LONGEST, max(1, (len(ids) - 1) // 2))
    every = (len(ids) - 1) // length
    count = min(every, max(2, TEXT_TOKENS // length))
    starts = (np.arange(count) * every // count) * length
    return torch.from_numpy(np.stack([ids[start : start + length + 1] for start in starts]).astype(np.int64))
