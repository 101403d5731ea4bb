"""The text that a compression reads: windows to calibrate with, and other windows to measure with, of several domains.

A run's domain is its own corpus: calibration from the training split, measurement from the validation split. Two
domains come with Python itself: `reference` (the language reference, English) and `python` (source code of the standard
library); the first 60 % of such a text calibrate, the last 30 % measure. No window may be in both.
"""

from __future__ import annotations

import hashlib
import logging
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litgpt_core.core.checkout import working_folder
from litgpt_core.core.errors import DataError, LightComputeError, TokenizerError
from litgpt_core.core.parsing import read_json, read_yaml
from litgpt_core.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

MODULES = (
    *("argparse.py", "textwrap.py", "statistics.py", "json/decoder.py", "email/message.py", "logging/__init__.py"),
    *("unittest/case.py", "tarfile.py", "fractions.py", "difflib.py", "ast.py", "pathlib.py"),
)
"""Files of the standard library that make the domain `python`, as far as this Python has them."""
LONGEST_WINDOW = 512


@dataclass(frozen=True)
class Domain:
    """One kind of text as token ids."""

    name: str
    calibration: Tensor
    """(N,) int64."""
    measurement: Tensor
    """(M,) int64."""


def find_domains(directory: Path, tokenizer: Tokenizer, *, given: Sequence[str] = ()) -> list[Domain]:
    """Two domains for a checkpoint directory, or those given.

    Args:
        directory: The checkpoint directory; a run's data is found through its records.
        tokenizer: The directory's.
        given: `NAME=FILE` each: text files.

    Raises:
        DataError: A file cannot be read or encoded, or no domain is left.
    """
    if given:
        return [_given(text, tokenizer) for text in given]
    found = [] if (own := _own_domain(directory)) is None else [own]
    for name, text in (("reference", _reference()), ("python", _python())):
        if len(found) < 2:
            try:
                found.append(_split(name, encode_lines(text, tokenizer)))
            except DataError as problem:
                logger.warning("%s is left out: %s", name, problem.given)
    if not found:
        raise DataError("No text to measure with.", needed="a text file", fix="--domain NAME=FILE")
    return found


def _given(text: str, tokenizer: Tokenizer) -> Domain:
    name, equals, file = text.partition("=")
    try:
        if not equals:
            raise OSError("there is no =")
        return _split(name, encode_lines(Path(file).expanduser().read_text(encoding="utf-8"), tokenizer))
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"--domain {text}: {problem}", needed="NAME=FILE, UTF-8 text") from problem


def _split(name: str, ids: list[int]) -> Domain:
    stream = torch.tensor(ids)
    return Domain(name, stream[: len(ids) * 6 // 10], stream[len(ids) * 7 // 10 :])


def encode_lines(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of a text; paragraphs that the tokenizer cannot represent are left out.

    Raises:
        DataError: More than half of the paragraphs cannot be represented.
    """
    try:
        return tokenizer.encode(text)
    except TokenizerError:
        pass
    ids: list[int] = []
    paragraphs, lost = text.split("\n\n"), 0
    for paragraph in paragraphs:
        try:
            ids += tokenizer.encode(paragraph + "\n\n")
        except TokenizerError:
            lost += 1
    if 2 * lost > len(paragraphs):
        raise DataError(f"the tokenizer cannot represent {lost} of {len(paragraphs)} paragraphs")
    return ids


def _reference() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def _python() -> str:
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [library / name for name in MODULES]
    return "\n\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())


def _own_domain(directory: Path) -> Domain | None:
    """The corpus that this run was trained on, if its prepared folder is still there."""
    for run in (directory.parent, directory.parent.parent, directory):
        try:
            fingerprint = read_json(run / "environment.json")["data_fingerprint"]
            cache = _cache_dir(directory)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for meta in sorted(cache.glob("*/meta.json")):
            if read_json(meta).get("fingerprint") == fingerprint:
                return _prepared(meta.parent)
    return None


def _cache_dir(directory: Path) -> Path:

    settings = read_yaml(directory / "hyperparameters.yaml")
    return working_folder() / Path(str(settings["data"]["cache_dir"])).expanduser()


def _prepared(folder: Path) -> Domain | None:
    from litgpt_core.data.prepare import open_prepared

    try:
        data = open_prepared(folder)
        parts = [data.tokens(side) for side in ("train", "val")]
    except LightComputeError:
        return None
    train, val = (torch.from_numpy(np.asarray(part[:4_000_000], dtype=np.int64)) for part in parts)
    return Domain("validation", train, val)


# --- windows


def window_length(block_size: int) -> int:
    """Tokens of a window for a model with this context."""
    return min(block_size, LONGEST_WINDOW)


def calibration_windows(domains: Sequence[Domain], *, tokens: int, length: int) -> Tensor:
    """(N, length) int64, spread over each domain's text, equally many of each.

    Raises:
        DataError: A text is shorter than one window, or fewer tokens are requested.
    """
    each = tokens // length // len(domains)
    shortest = min(domains, key=lambda domain: len(domain.calibration))
    if each < 1 or len(shortest.calibration) < length:
        raise DataError(
            f"{tokens:,} calibration tokens of {len(domains)} domains, of which {shortest.name} has "
            f"{len(shortest.calibration):,}.",
            needed=f"at least a window of {length} tokens of each domain",
            fix=f"--calibration_tokens {length * len(domains) * 8}, or a longer text",
        )
    return torch.cat([_windows(domain.calibration, n=each, length=length) for domain in domains])


def measurement_windows(domain: Domain, *, tokens: int, length: int) -> Tensor:
    """(N, length + 1) int64, spread over the text; a position's target is the next one.

    Raises:
        DataError: The text is shorter than two windows.
    """
    if len(domain.measurement) < 2 * (length + 1):
        raise DataError(
            f"The domain {domain.name} has {len(domain.measurement):,} tokens to measure with.",
            needed=f"at least {2 * (length + 1)}, two windows",
            fix="a longer text: --domain NAME=FILE",
        )
    return _windows(domain.measurement, n=max(2, tokens // length), length=length + 1)


def _windows(stream: Tensor, *, n: int, length: int) -> Tensor:
    n = min(n, len(stream) // length)
    last = len(stream) - length
    starts = [last * i // max(1, n - 1) for i in range(n)]
    return torch.stack([stream[start : start + length] for start in starts])


def fingerprints(windows: Tensor) -> list[str]:
    """SHA-256 of every 16 consecutive tokens that begin at a multiple of 16 in a window: what two texts share."""
    parts = windows[:, : windows.size(1) // 16 * 16].reshape(-1, 16).contiguous()
    return [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in parts]


def check_disjoint(calibration: Tensor, measurement: Sequence[Tensor]) -> None:
    """Raise DataError if more than a twentieth of the measured text was calibrated with."""
    known = {tuple(row) for window in calibration.tolist() for row in _spans(window)}
    for windows in measurement:
        spans = [tuple(row) for window in windows.tolist() for row in _spans(window)[::16]]
        shared = sum(span in known for span in spans)
        if shared > len(spans) / 20:
            raise DataError(
                f"{shared} of {len(spans)} segments of 16 tokens of the measured text are in the calibration text too.",
                needed="other text to measure with: a model that was fitted to it is no evidence",
                fix="--domain NAME=FILE with another file",
            )


def _spans(window: list[int]) -> list[list[int]]:
    return [window[i : i + 16] for i in range(len(window) - 15)]
