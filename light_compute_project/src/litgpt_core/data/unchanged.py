"""Which files a prepared folder was made from: their sizes and times, so that a later start need not read them.

Reading, hashing and splitting a corpus takes seconds, and a finished folder needs none of it. Next to the folder a
record keeps size, times of change and file number of every input. If all are the same, and the settings too, the folder
is used without reading a byte of the corpus. `data.verify=full` reads in any case.

A file that was changed less than `SETTLED_S` before it was read is not recorded: a second change could have the same
time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.core.files import write_json
from litgpt_core.data.files import document_name, kind_of, matching_files
from litgpt_core.data.prepared import FORMAT_VERSION, canonical_json
from litgpt_core.data.prepared_folder import find_folder, tokenizer_identity
from litgpt_core.data.settings import DataSettings, PythonSourceSettings, TextSettings, cache_folder
from litgpt_core.data.stream.inputs import State, list_inputs, state_of
from litgpt_core.data.stream.remote import is_address
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.settings import TokenizerSettings

logger = logging.getLogger(__name__)

READING_RULE = 1
"""Raise this when the same files and settings would give another corpus or another split."""

SETTLED_S = 2.0


def inputs_state(data: DataSettings) -> State | None:
    """The inputs as they are now; None for sources that are not files at known places."""
    try:
        if isinstance(data, RowsSettings) or (isinstance(data, TextSettings) and is_address(data.path)):
            return state_of(list_inputs(data.path, data.glob, report=False))
        if isinstance(data, TextSettings):
            return _of_text(data)
        if isinstance(data, PythonSourceSettings):
            return _of_packages(data)
    except (OSError, DataError, importlib.metadata.PackageNotFoundError):
        pass  # reading says what is wrong
    return None


def find_unchanged(data: DataSettings, tokenizer: TokenizerSettings, state: State) -> Path | None:
    """The prepared folder that was made from exactly these inputs, if it exists and is complete."""
    fingerprint, inputs = _record(data, tokenizer)
    if fingerprint is None or inputs != state:
        return None
    found = find_folder(data, fingerprint=fingerprint)
    if found is not None:
        logger.info(
            "data %s: %s file(s) unchanged since they were read (data.verify=full reads them again)",
            data.name,
            f"{len(state):,}",
        )
    return found


def recorded_fingerprint(data: DataSettings, tokenizer: TokenizerSettings) -> str | None:
    """The fingerprint that the inputs of these settings gave last time, whether they have changed or not."""
    return _record(data, tokenizer)[0]


def _record(data: DataSettings, tokenizer: TokenizerSettings) -> tuple[str | None, Any]:
    """(fingerprint, inputs) of the last time."""
    try:
        record = json.loads(_record_path(data, tokenizer).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    if not isinstance(record, dict) or not isinstance(record.get("fingerprint"), str):
        return None, None
    return record["fingerprint"], record.get("inputs")


def remember(data: DataSettings, tokenizer: TokenizerSettings, state: State, *, began: float, fingerprint: str) -> None:
    """Record that these inputs gave the folder with this fingerprint; nothing if one changed just before `began`.

    Args:
        began: `time.time()` before the inputs were looked at.
    """
    newest = max((max(int(changed), int(touched)) for _, changed, touched, _ in state.values()), default=0)
    path = _record_path(data, tokenizer)
    try:
        if newest / 1e9 > began - SETTLED_S:
            path.unlink(missing_ok=True)
        else:
            write_json(path, {"fingerprint": fingerprint, "inputs": state}, indent=None)
    except OSError as error:
        logger.info("data %s: %s was not written: %s", data.name, path.name, error.strerror)


def _of_text(data: TextSettings) -> State:
    path = Path(data.path).expanduser()
    folder = kind_of(path) == "folder"
    files = matching_files(path, data.glob, report=False) if folder else [path]
    root = path if folder else path.parent
    return {document_name(file, root): _facts(file) for file in files}


def _of_packages(data: PythonSourceSettings) -> State:
    state: State = {}
    for package, version in sorted(data.packages.items()):
        distribution = importlib.metadata.distribution(package)
        files = distribution.files
        if distribution.version != version or files is None:
            return {}
        for entry in files:
            if entry.suffix == ".py" and ".." not in entry.parts:
                state[f"{package} {version} {entry.as_posix()}"] = _facts(Path(str(distribution.locate_file(entry))))
    return state


def _facts(file: Path) -> list[int | str]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _record_path(data: DataSettings, tokenizer: TokenizerSettings) -> Path:
    """A hidden file in the cache folder, one for each combination of settings and place."""
    settings: dict[str, Any] = dataclasses.asdict(data)
    for key in (
        "verify",
        "workers",
        "order",
        "packing",
        "stream_above",
        "engine",
        "executor",
        "slurm",
        "ray",
        "fast_tokenizer",
    ):
        settings.pop(key, None)
    if settings.get("near_duplicates") == "keep":
        del settings["near_duplicates"]  # as before there was this setting
    if isinstance(data, TextSettings | RowsSettings) and not is_address(data.path):
        settings["path"] = str(Path(data.path).expanduser().absolute())
    content = {
        "rules": [FORMAT_VERSION, READING_RULE],
        "data": settings,
        "tokenizer": tokenizer_identity(tokenizer),
    }
    digest = hashlib.sha256(canonical_json(content)).hexdigest()
    return cache_folder(data) / f".{data.name}-{digest[:12]}.inputs.json"
