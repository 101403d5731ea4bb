"""Runs as somebody watches them: a list, one run in detail, and curves of a bounded number of points.

What has not changed is not read again: of a `metrics.jsonl` that grows only what was appended, and the other small
files of a run when their size or time changed. A name is a path below the watched folder, and only names that the
search found are looked at. Neither torch nor a checkpoint is loaded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.core.redaction import redact_values
from litgpt_core.core.text import nearest
from litgpt_core.runs.folders import X_AXES, RunRecord, comparable_loss, find, number_of
from litgpt_core.runs.growing import GrowingRows
from litgpt_core.training.run_folder import RunFolder

MOST_RUNS = 500
"""Runs of a list; the most recently started ones."""
MOST_CURVES = 48
"""Curves of one answer: runs times keys."""
MOST_POINTS = 2_000
"""Points of one curve."""
MOST_SAMPLE_CHARS = 100_000
RUNNING_S = 120.0
"""An unfinished run that wrote something so recently counts as running."""

VALUES = (
    *("step", "tokens", "train_loss", "val_loss", "val_bpb", "best_val_loss", "best_val_bpb", "tokens_per_s"),
    *("n_params", "train_s", "started", "device"),
)
"""What a list says of a run besides its name and state, by the short names of `RunRecord.get`."""
_NOT_DRAWN = ("step", "tokens", "elapsed_s")

Signature = tuple[tuple[int, int, int] | None, ...]


class UnknownRun(LightComputeError):
    """No run of that name lies in the watched folder."""


class RunWatch:
    """The runs of one folder, those of its sweeps and studies included. Not for use by several threads at once.

    Args:
        folder: As `run.dir`; it may be absent, and then has no runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = GrowingRows()
        self._records: dict[Path, tuple[Signature, RunRecord]] = {}

    def runs(self) -> dict[str, RunRecord]:
        """Name -> run, the most recently started first; a run whose files did not change is the same object."""
        if not self._folder.is_dir():
            return {}
        paths = [run.path for run in find(self._folder) if _shown(run.path)]
        paths = sorted(paths, key=_time_of_start, reverse=True)[:MOST_RUNS]
        self._records = {path: self._records[path] for path in paths if path in self._records}
        return {path.relative_to(self._folder).as_posix(): self._record(path) for path in paths}

    def _record(self, path: Path) -> RunRecord:
        signature = _signature(path)
        known = self._records.get(path)
        if known is None or known[0] != signature:
            known = self._records[path] = (signature, RunRecord(path, read=self._rows.read))
        return known[1]

    def listed(self) -> list[dict[str, Any]]:
        """One plain dictionary for each run: `name`, `state` (running, finished, unfinished), `max_steps`, seconds
        since its last change (`idle_s`), and `VALUES`, each None where it is not known.
        """
        now = time.time()
        return [_facts(name, run, now=now) for name, run in self.runs().items()]

    def described(self, name: str) -> dict[str, Any]:
        """One run: what the list says, its `config` (without secrets), its `samples`, the `command` that started it.

        Raises:
            UnknownRun: There is no such run.
        """
        run = _named(name, self.runs())
        return _facts(name, run, now=time.time()) | {
            "config": redact_values(run.config),
            "samples": _text_of(RunFolder(run.path).samples),
            "command": str(run.get("command") or ""),
        }

    def path_of(self, name: str) -> Path:
        """The folder of a run; raises UnknownRun if there is none of that name."""
        return _named(name, self.runs()).path

    def curves(
        self, names: Sequence[str], *, keys: Sequence[str] = (), x: str = "steps", points: int = 400
    ) -> dict[str, Any]:
        """Curves of some runs.

        Args:
            names: Of runs; those that are no longer there are left out.
            keys: Of `metrics.jsonl`; none: the loss in which these runs compare.
            x: An axis of `runs.folders.X_AXES`.
            points: At most so many of each curve; of the rest the extremes stay.

        Returns:
            `x`, `keys` (those drawn), `known` (those that could be), and `curves`: `name`, `key` and `points`, a list
            of (x, y); a run without a value has no curve.

        Raises:
            ConfigError: No such axis, or too many curves.
        """
        if x not in X_AXES:
            raise ConfigError(f"there is no x axis {x!r}{nearest(x, X_AXES)}")
        every = self.runs()
        chosen = {name: every[name] for name in dict.fromkeys(names) if name in every}
        drawn = list(dict.fromkeys(keys)) or [comparable_loss(list(chosen.values()))]
        if len(chosen) * len(drawn) > MOST_CURVES:
            raise ConfigError(f"{len(chosen) * len(drawn)} curves", needed=f"at most {MOST_CURVES} at once")
        known = {key for run in chosen.values() for row in run.metrics[-50:] for key in row if key not in _NOT_DRAWN}
        curves = []
        for name, run in chosen.items():
            for key in drawn:
                found = _points(run, key=key, x=x)
                if found:
                    curves.append({"name": name, "key": key, "points": thinned(found, most=min(points, MOST_POINTS))})
        return {"x": x, "keys": drawn, "known": sorted(known), "curves": curves}

    def version(self, names: Iterable[str] | None = None) -> str:
        """Changes when a file changes that an answer about these runs (None: about all) is made of, and with the state
        of a run that no longer writes.
        """
        every, now = self.runs(), time.time()
        chosen = every if names is None else {name: every[name] for name in names if name in every}
        facts = [(name, self._records[run.path][0], state_of(run, now=now)) for name, run in chosen.items()]
        return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def state_of(run: RunRecord, *, now: float) -> str:
    """`finished`, `running` (it wrote something within `RUNNING_S`), or `unfinished`."""
    if run.state == "finished":
        return "finished"
    return "running" if _idle_s(run.path, now=now) < RUNNING_S else "unfinished"


def thinned(points: Sequence[tuple[float, float]], *, most: int) -> list[tuple[float, float]]:
    """At most `most` of the points, in order: the first, the last, the lowest and highest of each range between."""
    if len(points) <= most:
        return list(points)
    if most < 4:
        return [points[0], points[-1]][: max(1, most)]
    inner, ranges = points[1:-1], (most - 2) // 2
    kept = {0, len(points) - 1}
    for place in range(ranges):
        indices = range(place * len(inner) // ranges, (place + 1) * len(inner) // ranges)
        kept |= {1 + min(indices, key=lambda i: inner[i][1]), 1 + max(indices, key=lambda i: inner[i][1])}
    return [points[index] for index in sorted(kept)]


def _points(run: RunRecord, *, key: str, x: str) -> list[tuple[float, float]]:
    factor = run.flops_per_token if x == "flops" else 1.0
    if factor is None:
        return []
    pairs = ((number_of(row.get(X_AXES[x])), number_of(row.get(key))) for row in run.metrics)
    return [(a * factor, b) for a, b in pairs if a is not None and b is not None]


def _facts(name: str, run: RunRecord, *, now: float) -> dict[str, Any]:
    trainer = run.config.get("trainer")
    max_steps = number_of(trainer.get("max_steps")) if isinstance(trainer, dict) else None
    values = {key: _plain(run.get(key)) for key in VALUES}
    facts = {"name": name, "state": state_of(run, now=now), "max_steps": max_steps}
    return facts | {"idle_s": round(max(0.0, _idle_s(run.path, now=now)), 1)} | values


def _plain(value: Any) -> Any:
    """A number or a short text; None for anything else, infinities included: JSON has no word for them."""
    return value[:200] if isinstance(value, str) else number_of(value)


def _named(name: str, runs: dict[str, RunRecord]) -> RunRecord:
    if name not in runs:
        raise UnknownRun(f"there is no run {name!r}{nearest(name, runs)}")
    return runs[name]


def _shown(path: Path) -> bool:
    """Whether a name can be shown and sent back: nothing hidden, no bytes that are not UTF-8."""
    return path.name.isprintable() and not path.name.startswith(".")


def _files(path: Path) -> tuple[Path, ...]:
    folder = RunFolder(path)
    return (folder.config, folder.environment, folder.summary, folder.metrics, folder.samples)


def _signature(path: Path) -> Signature:
    return tuple(_facts_of(file) for file in _files(path))


def _facts_of(file: Path) -> tuple[int, int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _idle_s(path: Path, *, now: float) -> float:
    written = [facts[2] for file in (*_files(path), RunFolder(path).log) if (facts := _facts_of(file)) is not None]
    return now - max(written, default=0) / 1e9


def _time_of_start(path: Path) -> float:
    facts = _facts_of(RunFolder(path).config)
    return 0.0 if facts is None else facts[2] / 1e9


def _text_of(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MOST_SAMPLE_CHARS)
    except OSError:
        return ""
