"""Installed packages: versions, a hash of what each brought, and those that an extra brings."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Mapping
from typing import Any

from litgpt_core.core.errors import EnvironmentProblem

REPORTED_PACKAGES = (
    "torch",
    "lightning",
    "litgpt",
    "hydra-core",
    "omegaconf",
    "numpy",
    "tokenizers",
    "sentencepiece",
    "wandb",
)

_WRITTEN_BY_INSTALLERS = re.compile(
    r"\.dist-info/(?:INSTALLER|REQUESTED|RECORD|direct_url\.json|provenance_url\.json|uv_cache\.json|uv_build\.json),"
    r"|\.pyc,"
)
_OUTSIDE = ("../", "..\\", "/", '"../')
"""Scripts in the interpreter's folder: their first line names the interpreter, so they differ between environments."""


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes; `absent` where one is not installed."""
    versions = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def installed_packages() -> dict[str, dict[str, str | None]]:
    """Distributions that Python finds, by normalised name: `{"version": ..., "sha256": ...}`.

    The hash is over the lines of the package's RECORD, which hold the hash of each of its files, without what an
    installer adds: equal on two machines that installed the same wheel, by pip or by uv. It is null for packages
    without a RECORD. Files that were changed after the installation are not noticed: only RECORD is read.
    """
    found: dict[str, dict[str, str | None]] = {}
    for distribution in importlib.metadata.distributions():
        head = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        name, version = (re.search(rf"^{key}: *(\S+)", head, re.MULTILINE) for key in ("Name", "Version"))
        if name is None:
            continue
        key = re.sub(r"[-_.]+", "-", name[1]).lower()
        if key not in found:  # the first on the path is the one that is imported
            record = distribution.read_text("RECORD")
            found[key] = {
                "version": version[1] if version else None,
                "sha256": record_sha256(record.splitlines()) if record else None,
            }
    return dict(sorted(found.items()))


def record_sha256(lines: Iterable[str]) -> str:
    """SHA-256 (hex) of the lines of a RECORD that come from the package itself, whatever their order."""
    own = sorted(
        line for line in lines if line and not line.startswith(_OUTSIDE) and not _WRITTEN_BY_INSTALLERS.search(line)
    )
    return hashlib.sha256("\n".join(own).encode()).hexdigest()


def packages_sha256(packages: Mapping[str, Mapping[str, Any]]) -> str:
    """One SHA-256 (hex) for the whole list."""
    return hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()


def optional(
    package: str,
    *,
    given: str = "",
    needed: str = "the packages that read such files",
    fix: str = "pip install 'light-compute-project[data]', or uv sync --extra data",
) -> Any:
    """A package that this project can do without, by default one of the extra `data`.

    Args:
        package: What is imported.
        given: Why it is needed, for the error.
        needed, fix: Of the error.

    Raises:
        EnvironmentProblem: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        given = given or f"{package.partition('.')[0]} is not installed ({error})"
        raise EnvironmentProblem(given, needed=needed, fix=fix) from error
