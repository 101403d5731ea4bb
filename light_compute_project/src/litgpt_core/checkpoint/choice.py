"""Which model is meant: one resolver for every command and for `Engine`, of a name, a path, or nothing.

A name is a run's, or as `discovery.py` lists models; a path is a run folder, a checkpoint directory or its weights
file; nothing is the best candidate: models to chat with before base models, then the most recent. No torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.checkpoint.discovery import ROOTS, Discovery, FoundModel, discover, facts_of
from litgpt_core.checkpoint.layout import COMPRESSED, WEIGHTS
from litgpt_core.checkpoint.search import resolve
from litgpt_core.checkpoint.verification import is_sharded, verify
from litgpt_core.core.command_line import shown_command
from litgpt_core.core.directories import find_existing
from litgpt_core.core.errors import CheckpointError, LightComputeError
from litgpt_core.core.text import close_names, count
from litgpt_core.prompts import load_style

_TRAIN = f"train one: {shown_command('train', '+experiment=smoke')}"


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A model, and why it is this one."""

    found: FoundModel
    reasons: list[str]
    """Lines that explain the choice."""


def choose(name: str | Path | None = None, roots: Sequence[Path] | None = None) -> ModelChoice:
    """The model that is meant, with the reasons.

    Args:
        name: A name or path, as for `find_model`; None: the best candidate.
        roots: As for `discover`.

    Raises:
        CheckpointError: No model was found.
    """
    if name is not None:
        found = find_model(name, roots)
        return ModelChoice(found=found, reasons=[f"Model: {describe(found)}."])
    discovered = discover(roots)
    searched = "; ".join(discovered.searched)
    skipped = [f"  skipped {line}" for line in discovered.skipped]
    if not discovered.models:
        raise CheckpointError(
            "\n".join([f"No model was found. Searched {searched}.", *skipped]),
            needed="a trained or downloaded model",
            fix=_TRAIN,
        )
    best, n = best_first(discovered.models)[0], len(discovered.models)
    chats = sum(is_chat_model(model.directory) for model in discovered.models)
    kind = f"the most recent of {count(chats, 'chat model')}" if 0 < chats < n else f"the most recent of {n}"
    reason = "the only model found" if n == 1 else "the only chat model found" if chats == 1 else kind
    return ModelChoice(found=best, reasons=[f"Model: {describe(best)}: {reason}. Searched {searched}.", *skipped])


def locate(name: str | Path | None = None, roots: Sequence[Path] | None = None) -> Path:
    """The checkpoint directory that is meant, which may be a sharded one; arguments and errors as for `choose`."""
    if name is None or not str(name):
        return choose(None, roots).found.directory
    path = Path(name).expanduser()
    below = [Path(root) / path for root in (ROOTS if roots is None else roots)]
    places = [path, *below] if _is_path(name) else [*below, path]  # a name is a run's before it is a folder's
    problems = []
    for place in places:
        if find_existing(place) is not None:
            try:
                return resolve(place)
            except CheckpointError as problem:
                problems.append(problem)
    if problems:
        raise problems[0]
    return find_model(name, roots).directory


def find_model(name: str | Path, roots: Sequence[Path] | None = None) -> FoundModel:
    """Find a model by name or path.

    Args:
        name: A name as in `discover` or its last part, a path below a root, or any path: a run folder, a checkpoint
            directory, a weights file.
        roots: As for `discover`.

    Raises:
        CheckpointError: There is none (suggests similar names), several models have that last part, or the model is
            corrupted or incomplete.
    """
    text = str(name)
    path = Path(text).expanduser()
    if _is_path(name) and find_existing(path) is not None:
        return _at(path)
    found = discover(roots)
    by_name = {model.name: model for model in found.models}
    if text in by_name:
        return by_name[text]
    for place in (path, *(Path(root) / path for root in (ROOTS if roots is None else roots))):
        if text and place.exists():
            return _at(place)
    key = text.rstrip("/").lower()
    matches = [model for model in found.models if key in (model.name.lower(), model.name.lower().rpartition("/")[2])]
    if len(matches) == 1:
        return matches[0]
    if not matches and len(path.parts) > 1 and path.parent.is_dir():
        resolve(path)  # raises an error that lists the folder
    raise _not_found(text, found, matches)


def best_first(models: Iterable[FoundModel]) -> list[FoundModel]:
    """Models to chat with before base models, then the most recent first."""
    return sorted(models, key=lambda model: (not is_chat_model(model.directory), -model.modified, model.name))


def is_chat_model(directory: Path) -> bool:
    """Whether a checkpoint directory names a prompt style that can be read."""
    try:
        return load_style(directory) is not None
    except LightComputeError:
        return False


def describe(found: FoundModel) -> str:
    """Name, directory, age and size in a few words."""
    return f"{found.name} ({found.directory}, {_ago(time.time() - found.modified)}, {found.n_bytes / 1e6:,.1f} MB)"


def _ago(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{count(int(seconds // size), name)} ago"
    return "saved just now"


def _is_path(name: str | Path) -> bool:
    """Whether more than a name was given: `runs/base`, `./base`, `/some/base`."""
    return "/" in str(name) or len(Path(name).expanduser().parts) > 1


def _at(path: Path) -> FoundModel:
    directory = resolve(path)
    verify(directory, full=False)
    own = path.parent if path.name in (WEIGHTS, COMPRESSED) else path
    own = own.resolve()
    name = own.parent.name if own.name == "final" else own.name
    if is_sharded(directory):
        raise CheckpointError(
            f"{directory} is a sharded checkpoint.",
            needed="one LitGPT directory",
            fix=shown_command("consolidate", str(directory), f"{own.name}-consolidated"),
        )
    return facts_of(directory, name=name, root=own.parent)


def _not_found(text: str, found: Discovery, several: list[FoundModel]) -> CheckpointError:
    if several:
        listed = " or ".join(model.name for model in several)
        return CheckpointError(f"{text!r} could be {listed}.", needed="one of them", fix=several[0].name)
    if not found.models:
        reasons = "".join(f"; skipped {line}" for line in found.skipped)
        return CheckpointError(
            f"There is no model {text!r}, nor any other model ({'; '.join(found.searched)}){reasons}.",
            needed="a trained or downloaded model",
            fix=_TRAIN,
        )
    names: dict[str, str] = {}
    for model in found.models:
        names.setdefault(model.name, model.name)
        names.setdefault(model.name.rpartition("/")[2], model.name)
    near = [names[match] for match in close_names(text, names, cutoff=0.5)]
    skipped = [line for line in found.skipped if text and text in line]
    listed = ", ".join(model.name for model in found.models[:8])
    more = f", and {len(found.models) - 8} more" if len(found.models) > 8 else ""
    return CheckpointError(
        f"There is no model {text!r}." + "".join(f" Skipped: {line}" for line in skipped[:3]),
        needed=f"one of {listed}{more}, or a path",
        fix=f"did you mean {' or '.join(dict.fromkeys(near))}?"
        if near
        else f"use the most recent: {found.models[0].name}",
    )
