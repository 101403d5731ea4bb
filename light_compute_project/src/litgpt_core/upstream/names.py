"""The names of LitGPT that we use: a committed snapshot of their signatures, and a comparison of two versions.

The snapshot `light_compute_project/upstream/names-<tag>.json` holds the signature, in the pinned version, of every name
that our code or tests use. Tests compare the installed package with it, so that a release that changes one fails with
the changed line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.upstream.imported_names import imported_names
from litgpt_core.upstream.refusal import SyncRefused
from litgpt_core.upstream.remote import MANIFESTS
from litgpt_core.upstream.signatures import Definition, Sources, canonical, compare, define

STATES = ("gone", "signature changed", "body changed", "new", "same")
"""Most severe first."""


@dataclass(frozen=True, kw_only=True)
class NameChange:
    """One name in two versions."""

    name: str
    state: str
    """One of `STATES`."""
    old: tuple[str, ...]
    """Lines of the signature only in the old version."""
    new: tuple[str, ...]
    """Lines of the signature only in the new version."""
    places: tuple[str, ...]
    """Places in our code that use it."""


def used_names(root: Path, *, old: Sources, new: Sources | None = None) -> dict[str, tuple[str, ...]]:
    """Names that our code uses and the places of use, without trailing attributes of objects.

    A name found only as an attribute and missing in both versions is left out, because it does not belong to a module.
    """
    result: dict[str, list[str]] = {}
    for name, places in imported_names(root).items():
        known = canonical(name, old) or (canonical(name, new) if new else None) or name
        result.setdefault(known, []).extend(places)
    return {name: tuple(dict.fromkeys(places)) for name, places in sorted(result.items())}


def compare_names(root: Path, *, old: Sources, new: Sources) -> list[NameChange]:
    """Every name that our code uses, compared in two versions of LitGPT's sources, most severe changes first."""
    names = used_names(root, old=old, new=new)
    before = {name: define(name, old) for name in names}
    return compare_definitions(before, {name: define(name, new) for name in names}, places=names)


def compare_definitions(
    old: Mapping[str, Definition | None],
    new: Mapping[str, Definition | None],
    *,
    places: Mapping[str, tuple[str, ...]],
) -> list[NameChange]:
    """The names of `old`, most severe changes first."""
    changes = []
    for name, before in old.items():
        after = new.get(name)
        lost = tuple(line for line in (before.signature if before else ()) if line not in _lines(after))
        gained = tuple(line for line in _lines(after) if before is None or line not in before.signature)
        state = compare(before, after)
        changes.append(NameChange(name=name, state=state, old=lost, new=gained, places=places.get(name, ())))
    return sorted(changes, key=lambda change: (STATES.index(change.state), change.name))


def _lines(definition: Definition | None) -> tuple[str, ...]:
    return definition.signature if definition else ()


def render_changes(changes: Iterable[NameChange]) -> str:
    """A text table: one line per name; below it, the changes of its signature and the places that use it."""
    lines = []
    for change in changes:
        lines.append(f"  {change.state:<18}{change.name}")
        if change.state in ("gone", "signature changed"):
            lines += [f"    - {line}" for line in change.old] if change.state != "gone" else []
            lines += [f"    + {line}" for line in change.new]
            lines += [f"    used in {place}" for place in change.places[:4]]
            if len(change.places) > 4:
                lines.append(f"    and in {len(change.places) - 4} more places")
    return "\n".join(lines)


def snapshot_path(root: Path, tag: str) -> Path:
    """Path of the snapshot of a tag in a checkout."""
    return root / MANIFESTS / f"names-{tag}.json"


def render_snapshot(definitions: Mapping[str, Definition]) -> str:
    """The text of a snapshot."""
    rows = {name: {"signature": d.signature, "body": d.body} for name, d in sorted(definitions.items())}
    return json.dumps(rows, indent=1) + "\n"


def read_snapshot(path: Path) -> dict[str, Definition]:
    """The definitions in a snapshot. Raises SyncRefused if it cannot be read."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SyncRefused(
            f"{path.name} cannot be read: {error}",
            needed="a snapshot of the names that our code uses, for the pinned version",
            fix="uv run lcp sync --record_names",
        ) from error
    return {name: Definition(signature=tuple(row["signature"]), body=row["body"]) for name, row in rows.items()}


def take_snapshot(root: Path, *, sources: Sources) -> dict[str, Definition]:
    """The definitions of every name that our code uses. Raises SyncRefused if one is missing in the sources."""
    found = {name: define(name, sources) for name in used_names(root, old=sources)}
    absent = [name for name, definition in found.items() if definition is None]
    if absent:
        raise SyncRefused(f"LitGPT does not have what our code imports: {', '.join(absent)}")
    return {name: definition for name, definition in found.items() if definition is not None}
