"""Removing old runs: what would go, and only then the removal.

A run that has changed within the last minutes may still be training, and a folder with a file that no run leaves may
hold somebody's work: both stay, with the reason.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from litgpt_core.core.directories import remove as remove_folder
from litgpt_core.runs.folders import RunRecord

RECENT_S = 600.0
"""A run that changed less than so many seconds ago is left alone."""

_OWN = re.compile(
    r"config\.yaml|environment\.json|code\.diff|log\.jsonl(\.\d+)?|metrics\.jsonl|summary\.json|samples\.txt|loss\.png"
    r"|before\.json|before_after\.md|audit[\w.-]*\.(md|json)|hang-rank\d+\.txt|checkpoints|final|lora|wandb|csv"
    r"|tensorboard|\..*"
)


@dataclass(frozen=True, kw_only=True)
class Removable:
    """One run, and whether it can go."""

    run: RunRecord
    size: int
    """Bytes of its files."""
    age_s: float
    """Seconds since its last change."""
    kept_because: str = ""
    """Why it stays; empty: it can be removed."""


def removable(runs: Iterable[RunRecord], *, older_than_s: float = 0.0, now: float | None = None) -> list[Removable]:
    """The runs whose last change is longer ago, each with its size and what speaks against removing it.

    Args:
        runs: As `find` and `resolve` return them.
        older_than_s: Seconds.
        now: Seconds since the epoch; None: this moment.
    """
    moment = time.time() if now is None else now
    found = []
    for run in runs:
        files = [path for path in run.path.rglob("*") if not path.is_symlink() and path.is_file()]
        facts = [path.stat() for path in files]
        age = moment - max((fact.st_mtime for fact in facts), default=run.path.stat().st_mtime)
        if age < older_than_s:
            continue
        found.append(
            Removable(run=run, size=sum(fact.st_size for fact in facts), age_s=age, kept_because=_objection(run, age))
        )
    return found


def remove(found: Iterable[Removable]) -> list[RunRecord]:
    """Remove the runs that nothing speaks against; those that were removed."""
    gone = []
    for each in found:
        if not each.kept_because:
            remove_folder(each.run.path)
            gone.append(each.run)
    return gone


def _objection(run: RunRecord, age_s: float) -> str:
    if run.path.is_symlink():
        return "it is a link"
    if age_s < RECENT_S:
        return "it changed in the last 10 minutes and may still be training"
    foreign = sorted(entry.name for entry in run.path.iterdir() if not _OWN.fullmatch(entry.name))
    return f"it holds {foreign[0]}, which no run writes" if foreign else ""
