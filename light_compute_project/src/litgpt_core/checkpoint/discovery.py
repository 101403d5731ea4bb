"""Searches for models below some folders; `choice.py` finds one by name or path. Does not import torch.

A folder with `lit_model.pth` or `compressed.safetensors` is a model; a run folder is one model, however many
checkpoints it has. The search is breadth-first, with a limited depth and number of folders; corrupted or incomplete
checkpoints are skipped and reported.
"""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litgpt_core.checkpoint.layout import COMPRESSED, MODEL_CONFIG, WEIGHTS
from litgpt_core.checkpoint.retention import BEST, LAST, step_of
from litgpt_core.checkpoint.search import resolve
from litgpt_core.checkpoint.verification import verify, weights_file
from litgpt_core.core.errors import CheckpointError

ROOTS = ("runs", "checkpoints", "trained_models", "models", ".")
"""Folders to search, relative to the current folder."""

MAX_DEPTH = 4
"""Levels below a root: `checkpoints/org/name` is 2."""
MAX_FOLDERS = 20_000
"""Maximum number of folders that are read below one root."""

_NOT_ENTERED = {"node_modules", "site-packages", "__pycache__", "venv", "wandb"}


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A checkpoint directory whose files are complete, judging by their names and sizes."""

    name: str
    """The run's name, or the path below the root; unique in one search."""
    directory: Path
    """The checkpoint directory; for a run `final/`, else its last checkpoint."""
    modified: float
    """Modification time of its weights, seconds since the epoch."""
    root: Path
    """The root under which it was found."""
    n_bytes: int
    """Size of its weights."""


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """The result of a search."""

    models: list[FoundModel] = field(default_factory=list)
    """Most recent first."""
    searched: list[str] = field(default_factory=list)
    """One line per root: the number of models, or that it does not exist."""
    skipped: list[str] = field(default_factory=list)
    """Checkpoints that cannot be used, and why."""


def discover(roots: Sequence[Path] | None = None) -> Discovery:
    """Search for models below `roots` (None: `ROOTS`); unusable checkpoints are listed in the result, not raised."""
    places = [Path(root) for root in (ROOTS if roots is None else roots)]
    found = Discovery()
    names: set[str] = set()
    directories: set[Path] = set()
    real_roots = {place.resolve() for place in places}
    for root in places:
        if not root.is_dir():
            found.searched.append(f"{root}: does not exist")
            continue
        if root.name == "checkpoints" and _folder(root.parent).is_run:  # the current folder is a run folder
            found.searched.append(f"{root}: part of the run in {root.parent}")
            continue
        walk = _Walk(root, others=real_roots - {root.resolve()}, skipped=found.skipped)
        before = len(found.models)
        for folder in walk:
            model = _model_in(folder, root=root, skipped=found.skipped)
            if model is None or (real := model.directory.resolve()) in directories:
                continue
            directories.add(real)
            name = _free_name(folder, root=root, taken=names)
            names.add(name)
            found.models.append(_named(model, name))
        limit = f", stopped after {MAX_FOLDERS:,} folders" if walk.stopped else ""
        found.searched.append(f"{root}: {_count(len(found.models) - before)}{limit}")
    found.models.sort(key=lambda model: (-model.modified, model.name))
    return found


# ---- one folder


def _model_in(folder: _Folder, *, root: Path, skipped: list[str]) -> FoundModel | None:
    """The model in this folder, if there is one; unusable ones are added to `skipped`."""
    candidates = (
        [folder.path] if folder.has_weights or not folder.is_run else [folder.path, folder.path / "checkpoints"]
    )
    if not (folder.has_weights or folder.is_run):
        if MODEL_CONFIG in folder.files:
            skipped.append(f"{folder.path}: {WEIGHTS} is missing")
        return None
    for candidate in candidates:
        try:
            directory = resolve(candidate)
            verify(directory, full=False)
            return facts_of(directory, name="", root=root)
        except CheckpointError as problem:
            skipped.append(f"{candidate}: {problem.given}")
        except OSError as problem:
            skipped.append(f"{candidate}: {problem.strerror or problem}")
        except Exception as problem:  # one hostile folder never ends the search
            skipped.append(f"{candidate}: {type(problem).__name__}: {problem}")
    return None


def facts_of(directory: Path, *, name: str, root: Path) -> FoundModel:
    """What is known of a checkpoint directory from the outside."""
    facts = weights_file(directory).stat()
    return FoundModel(name=name, directory=directory, modified=facts.st_mtime, root=root, n_bytes=facts.st_size)


def _named(model: FoundModel, name: str) -> FoundModel:
    return dataclasses.replace(model, name=name)


def _free_name(folder: _Folder, *, root: Path, taken: set[str]) -> str:
    below = folder.path.relative_to(root).as_posix()
    own = root.resolve().name if below == "." else below
    return next(name for name in (own, folder.path.as_posix(), str(folder.path.resolve())) if name not in taken)


def _count(n: int) -> str:
    return "1 model" if n == 1 else f"{n or 'no'} models"


# ---- the walk


@dataclass(kw_only=True)
class _Folder:
    path: Path
    files: set[str]
    folders: list[Path]

    @property
    def has_weights(self) -> bool:
        return WEIGHTS in self.files or COMPRESSED in self.files

    @property
    def is_run(self) -> bool:
        """Whether it is a run folder: has `final/`, or `checkpoints/` with steps."""
        for folder in self.folders:
            if folder.name == "final" and weights_file(folder).exists():
                return True
            if folder.name == "checkpoints":
                return any(step_of(entry) is not None or entry.name in (LAST, BEST) for entry in _entries(folder)[1])
        return False


class _Walk:
    """Folders below a root, breadth-first, real ones before links; does not descend into the folders of a model.

    Links are followed within the roots. One directly below a root may lead elsewhere, to a model or a run, whose
    neighbours and subfolders are not looked at.
    """

    def __init__(self, root: Path, *, others: set[Path], skipped: list[str]) -> None:
        self._root, self._others, self._skipped = root, others, skipped
        self._real_root = root.resolve()
        self.stopped = False

    def __iter__(self) -> Iterator[_Folder]:
        waiting = deque([(self._root, 0)])
        seen: set[Path] = set()
        while waiting:
            path, depth = waiting.popleft()
            real = path.resolve()
            if real in seen or (depth and real in self._others):
                continue
            inside = any(real.is_relative_to(place) for place in (self._real_root, *self._others))
            if depth > 1 and not inside:  # a link; one directly below a root may lead anywhere, to one model
                continue
            if len(seen) == MAX_FOLDERS:
                self.stopped = True
                return
            seen.add(real)
            folder = _folder(path, odd=self._skipped)
            yield folder
            if depth < MAX_DEPTH and inside and not (folder.has_weights or folder.is_run):
                waiting.extend((child, depth + 1) for child in folder.folders)


def _folder(path: Path, *, odd: list[str] | None = None) -> _Folder:
    files, folders = _entries(path, odd=odd)
    return _Folder(path=path, files=files, folders=folders)


def _is_printable_utf8(name: str) -> bool:
    """Whether a name can be shown, typed and sent: no control characters, and no bytes that are not UTF-8."""
    return not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in name)


def _entries(path: Path, *, odd: list[str] | None = None) -> tuple[set[str], list[Path]]:
    """File names, and the folders to descend into: not hidden, real ones before links, sorted by name.

    Folders whose name cannot be shown are left out; `odd` receives a line for each.
    """
    files: set[str] = set()
    folders: list[tuple[bool, str]] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not _is_printable_utf8(entry.name):
                    if odd is not None and entry.is_dir():
                        reason = "its name is not UTF-8, or has control characters: rename it"
                        odd.append(f"{path}/{ascii(entry.name)[1:-1]}: {reason}")
                    continue
                if entry.is_dir():
                    if entry.name not in _NOT_ENTERED:
                        folders.append((entry.is_symlink(), entry.name))
                else:
                    files.add(entry.name)
    except OSError:  # not readable, or removed meanwhile
        return set(), []
    return files, [path / name for _, name in sorted(folders)]
