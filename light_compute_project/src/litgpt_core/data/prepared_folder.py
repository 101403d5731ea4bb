"""A prepared folder on disk: made once under a lock, written under a temporary name, renamed, and found again.

The folder is `<cache_dir>/<name>-<first 12 digits of the fingerprint>/`. The fingerprint covers everything that decides
the content, so changed settings make another folder and never a mixed one; a folder that exists is complete; several
processes may prepare the same data at once. What is in it: `text_prepare` and `chat_prepare`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import DataError
from litgpt_core.core.lock import exclusive
from litgpt_core.core.replaceable import refuse_foreign
from litgpt_core.data.prepared import canonical_json, checked_meta, folder_problem, meta_sha256
from litgpt_core.data.recorded_settings import LATER_SETTINGS, LOCATIONS, USES
from litgpt_core.data.settings import DataSettings, cache_folder
from litgpt_core.tokenizers.base import Tokenizer
from litgpt_core.tokenizers.directory import FOREIGN, copy_companions
from litgpt_core.tokenizers.registry import train as train_tokenizer
from litgpt_core.tokenizers.settings import PretrainedSettings, TokenizerSettings

logger = logging.getLogger(__name__)
_NEVER = object()

_OURS = ("meta.json", "manifest.json", "train*", "val*", "held-*", "chunk-*", "rows-*", ".rows-*", "tokenizer/*")


def find_or_make(data: DataSettings, *, fingerprint: str, build: Callable[[Path], None]) -> Path:
    """The folder with this fingerprint if it exists and is complete; else `build` writes one.

    Raises:
        DataError: The folder cannot be written.
    """
    folder = cache_folder(data)
    target = folder / f"{data.name}-{fingerprint[:12]}"
    if target.exists() and not (problem := folder_problem(target, fingerprint=fingerprint)):
        return _reuse(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / f".{target.name}.lock", purpose=f"preparing {target.name}") as held:
            if target.exists():
                if not (problem := folder_problem(target, fingerprint=fingerprint)):
                    return _reuse(target)
                logger.warning("data: preparing %s again: %s", target, problem)
            if held:
                _remove_leftovers(folder, target.name)
            work = folder / f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(3)}"
            try:
                work.mkdir()
                build(work)
                publish(work, target, fingerprint=fingerprint)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write prepared data to {folder}: {error.strerror or error}",
            needed="a writable folder with free space for about half the size of the text",
            fix="data.cache_dir=/another/folder",
        ) from error
    return target


def find_folder(data: DataSettings, *, fingerprint: str) -> Path | None:
    """The complete folder with this fingerprint, if it exists; the corpus is not read."""
    target = cache_folder(data) / f"{data.name}-{fingerprint[:12]}"
    if not target.exists() or folder_problem(target, fingerprint=fingerprint):
        return None
    return _reuse(target)


def _reuse(target: Path) -> Path:
    sides = checked_meta(target)["splits"]
    logger.info(
        "data: using %s, %s train and %s val tokens",
        target,
        f"{sides['train']['tokens']:,}",
        f"{sides['val']['tokens']:,}",
    )
    return target


# ---- what text and chat write alike


def fingerprint_of(content: dict[str, Any]) -> str:
    """SHA-256 (hex) of everything that decides a folder's content."""
    return hashlib.sha256(canonical_json(content)).hexdigest()


def tokenizer_identity(settings: TokenizerSettings) -> dict[str, Any]:
    """What decides the token ids: the settings of a tokenizer to train, or the fingerprint of an existing one."""
    if isinstance(settings, PretrainedSettings):
        tokenizer = train_tokenizer(settings, ())
        return {"kind": settings.kind, "fingerprint": tokenizer.fingerprint(), **window_start(tokenizer)}
    later = {("add_bos_token", False), ("words", "light")}  # what earlier folders do not have, with what it was then
    return {key: value for key, value in dataclasses.asdict(settings).items() if (key, value) not in later}


def window_start(tokenizer: Tokenizer) -> dict[str, int]:
    """`bos_id` of a tokenizer of ours whose windows begin with it; nothing for any other, also for those from
    elsewhere, whose models expect it at the beginning of documents alone.
    """
    if tokenizer.kind == FOREIGN or not tokenizer.use_bos or tokenizer.bos_id is None:
        return {}
    return {"bos_id": tokenizer.bos_id}


def content_settings(data: DataSettings) -> dict[str, Any]:
    """The settings that decide what is in a prepared folder."""
    settings = {key: value for key, value in dataclasses.asdict(data).items() if key not in (*LOCATIONS, *USES)}
    return {key: value for key, value in settings.items() if LATER_SETTINGS.get(key, _NEVER) != value}


def save_tokenizer(work: Path, settings: TokenizerSettings, texts: Iterable[str]) -> Tokenizer:
    """Train or load the tokenizer and write its files, and those that accompany it, below `work`."""
    tokenizer = train_tokenizer(settings, texts)
    tokenizer.save(work / "tokenizer")
    if isinstance(settings, PretrainedSettings) and settings.path is not None:
        copy_companions(Path(settings.path).expanduser(), work / "tokenizer")
    return tokenizer


def write_meta(work: Path, meta: dict[str, Any], *, settings: TokenizerSettings, fingerprint: str) -> None:
    """Complete and write meta.json; last of all, because it lists the hashes of the tokenizer's files."""
    files = sorted(path for path in (work / "tokenizer").iterdir() if path.is_file())
    meta["tokenizer"] |= {"files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}}
    finish_meta(work, meta | {"fingerprint": fingerprint, "tokenizer_settings": dataclasses.asdict(settings)})


def finish_meta(work: Path, meta: dict[str, Any]) -> None:
    """Write meta.json with its own hash."""
    meta = meta | {"meta_sha256": meta_sha256(meta)}
    (work / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def tokenizer_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer's entry in meta.json, before its files are listed."""
    return {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "fingerprint": tokenizer.fingerprint(),
        **window_start(tokenizer),
    }


# ---- publishing


def publish(work: Path, target: Path, *, fingerprint: str) -> None:
    """Rename the finished folder to its final name, unless another process has published a complete one first."""
    if target.exists():
        if not folder_problem(target, fingerprint=fingerprint):
            return
        refuse_foreign(target, ours=_OURS)
        discarded = work.with_name(work.name + ".old")
        target.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)
    try:
        work.rename(target)
    except OSError:
        if folder_problem(target, fingerprint=fingerprint):
            raise
    else:
        logger.info("data: wrote %s", target)


def _remove_leftovers(folder: Path, name: str) -> None:
    """Remove unfinished folders of processes that died; only the holder of the lock may do this."""
    for leftover in folder.glob(f".{name}.tmp-*"):
        logger.info("data: removing %s, left by an interrupted preparation", leftover)
        shutil.rmtree(leftover, ignore_errors=True)
