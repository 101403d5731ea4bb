"""What the tests of datatrove share: small corpora, their settings, everything that is written of them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.data.prepare import PreparedData
from litgpt_core.data.stream.datatrove_engine import PINS, VARIABLE, datatrove_python
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.settings import SubwordSettings

TOKENIZER = SubwordSettings(kind="bpe", vocab_size=400)


@contextmanager
def datatrove_installed(folder: Path, pins: Path = PINS) -> Iterator[Path]:
    """Its environment, made once for the tests of a file; without a package index they are skipped."""
    given = os.environ.get(VARIABLE)
    try:
        python = datatrove_python(folder, pins)
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    os.environ[VARIABLE] = str(python)
    try:
        yield python
    finally:
        del os.environ[VARIABLE]
        if given is not None:
            os.environ[VARIABLE] = given


def text(rng: random.Random, words: int) -> str:
    """Words of no language."""
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=rng.randrange(2, 9))) for _ in range(words))


def write_corpus(folder: Path, texts: list[str], *, files: int = 4) -> Path:
    """As JSONL."""
    folder.mkdir()
    for number in range(files):
        rows = [json.dumps({"text": each}) for each in texts[number::files]]
        (folder / f"{number}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def settings(folder: Path, cache: str, **changes: Any) -> RowsSettings:
    """Chunks of 30 kB, two workers."""
    values = {"path": str(folder), "cache_dir": str(folder.parent / cache), "chunk_bytes": 30_000, "workers": 2}
    return RowsSettings(**{"val_fraction": 0.05, **values, **changes})


def script(data: RowsSettings) -> str:
    """A program that makes these data, for a process that is killed."""
    fields = ", ".join(f"{key}={value!r}" for key, value in vars(data).items())
    return (
        "from litgpt_core.data.prepare import prepare\nfrom litgpt_core.data.stream_settings import RowsSettings\n"
        "from litgpt_core.tokenizers.settings import SubwordSettings\n"
        f"prepare(RowsSettings({fields}), SubwordSettings(kind='bpe', vocab_size=400))\n"
    )


def contents(prepared: PreparedData) -> dict[str, bytes]:
    """Every file of the prepared folder but meta.json, which has times."""
    names = ("*.ds", "*.index", "manifest.json", "tokenizer/*")
    return {file.name: file.read_bytes() for name in names for file in prepared.directory.glob(name)}
