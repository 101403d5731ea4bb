"""The version of LitGPT that this project is written against, and the one that is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.upstream.refusal import SyncRefused

PACKAGE = "litgpt"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The installed distribution."""

    version: str
    folder: Path
    """The package's folder, which holds `__init__.py`."""
    origin: str
    """The URL or folder it was installed from, if not from a package index; else empty."""


def pinned_version(root: Path) -> str:
    """The version in pyproject.toml, such as 0.5.13. Raises SyncRefused if LitGPT is not pinned exactly there."""
    try:
        content = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        lines = [*content["project"].get("dependencies", ()), *_constraints(content)]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise SyncRefused(f"pyproject.toml cannot be read: {error}", needed="the project's own") from error
    for line in lines:
        if found := re.fullmatch(rf"{PACKAGE}\s*==\s*([\w.+!-]+)", line.split(";")[0].strip()):
            return found[1]
    raise SyncRefused(
        f"pyproject.toml does not pin {PACKAGE} to one version.",
        needed="an exact pin: behaviour and names are tested against one version",
        fix='make upgrade PACKAGES="litgpt==0.5.13"',
    )


def _constraints(content: dict[str, Any]) -> list[str]:
    """The versions that this repository pins for uv; the package's own dependencies may be ranges."""
    return list(content.get("tool", {}).get("uv", {}).get("constraint-dependencies", ()))


def pinned_tag(root: Path) -> str:
    """Upstream's tag of the pinned version, such as v0.5.13."""
    return f"v{pinned_version(root)}"


def installed_package() -> Installed:
    """The installed package, without importing it. Raises EnvironmentProblem if it is not installed."""
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise EnvironmentProblem("The package litgpt is not installed.", needed="litgpt", fix="uv sync") from None
    folder = Path(str(distribution.locate_file(PACKAGE)))
    source = json.loads(distribution.read_text("direct_url.json") or "{}").get("url", "")
    if not folder.is_dir() and (taken := import_folder()) is not None:
        folder = taken  # an editable install is elsewhere
    return Installed(version=distribution.version, folder=folder, origin=source)


def import_folder() -> Path | None:
    """The folder that `import litgpt` would use in this process."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None
