"""From a path to a `Subject`: checkpoint in float32, tokenizer, held-out text, and the run's other checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litgpt_core.checkpoint.choice import locate
from litgpt_core.checkpoint.load import load_model
from litgpt_core.checkpoint.retention import step_of
from litgpt_core.core.errors import DataError
from litgpt_core.evaluate.run_data import RunData, data_of, run_folder_of
from litgpt_core.interpret.subject import TEXT_TOKENS, Subject
from litgpt_core.tokenizers import load as load_tokenizer
from litgpt_core.tokenizers.base import Tokenizer

LONGEST = 256
"""Tokens of a window of held-out text."""
COUNTED = 1 << 22
"""Tokens of the training text that frequencies are counted on."""


def load_subject(model: str | Path | None = None, *, text: str | Path | None = None, **options: Any) -> Subject:
    """Everything that the analyses need.

    Args:
        model: A run's name, a run folder, a checkpoint directory or its weights file; None: the best candidate.
        text: A text file as held-out text; None: the validation split of the run's prepared data, if it is found.
        options: Fields of `Subject`: prompt, against, seed, layer, effort.

    Raises:
        CheckpointError: There is no checkpoint, or its tokenizer is another model's.
        DataError: The text cannot be read, is too short, or the prepared data is of another tokenizer.
        ConfigError: A prompt is too long for the model, or there is no such layer.
    """
    directory = locate(model)
    gpt = load_model(directory, dtype=torch.float32, dequantize=True)
    tokenizer = load_tokenizer(directory)
    run = run_folder_of(directory)
    found: dict[str, Any] = {}
    if text is not None:
        found = _of_file(Path(text), tokenizer, gpt.config.block_size)
    elif run is not None and (data := data_of(directory)) is not None:
        found = _of_run(data, tokenizer, gpt.config.block_size)
    return Subject(
        model=gpt,
        tokenizer=tokenizer,
        name=directory.resolve().name if run is None else run.path.resolve().name,
        directory=directory,
        trained_tokens=None if run is None else (run.read_summary().get("final") or {}).get("tokens"),
        checkpoints=[] if run is None else _checkpoints(run.checkpoints),
        **found,
        **options,
    )


def report_folder(subject: Subject) -> Path:
    """Where a report goes: `analysis/` of the run (with the step's name for one of its checkpoints), else a folder of
    that name in the current one, because nothing is added to a checkpoint directory.
    """
    assert subject.directory is not None
    run = run_folder_of(subject.directory)
    if run is None:
        return Path(f"{subject.name}-analysis")
    real = subject.directory.resolve()
    whole = real == run.final.resolve() or not run.final.is_dir()
    folder = run.path / "analysis" if whole else run.path / "analysis" / real.name
    here = Path.cwd().resolve()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    folders = folder.glob("step-*") if folder.is_dir() else ()
    return sorted((step, each) for each in folders if (step := step_of(each)) is not None)


def _of_run(data: RunData, tokenizer: Tokenizer, block_size: int) -> dict[str, Any]:
    """Windows of the validation split, and counts of the training split."""
    prepared, own = data.prepared, tokenizer.fingerprint()
    if (theirs := str(prepared.meta["tokenizer"].get("fingerprint", own))) != own:
        raise DataError(
            f"{prepared.directory} was prepared with another tokenizer than that of the checkpoint",
            needed=f"the fingerprint {own[:12]}, not {theirs[:12]}",
            fix="--text FILE, which is tokenized anew",
        )
    validation = prepared.tokens("val")
    return {
        "windows": windows_of(np.asarray(validation), block_size),
        "bytes_per_token": prepared.val_bytes / prepared.val_tokens,
        "counts": np.bincount(data.train[:COUNTED], minlength=tokenizer.vocab_size),
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
