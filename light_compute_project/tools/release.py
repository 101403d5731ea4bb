"""Notes of a release: `python light_compute_project/tools/release.py v0.2.0` prints its changelog section.

It fails where the tag, the version in pyproject.toml and the changelog do not agree. Standard library only.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def notes(tag: str, version: str, changelog: str) -> str:
    """The changelog's section of `version`, without its heading.

    SystemExit: the tag names another version, or the section is missing or empty.
    """
    if tag != f"v{version}":
        raise SystemExit(
            f"the tag is {tag}, but pyproject.toml says version {version}: tag v{version}, or change the version first"
        )
    section = re.search(
        rf"^## {re.escape(version)}(?:[ \t][^\n]*)?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if section is None or not section[1].strip():
        raise SystemExit(f"CHANGELOG.md has no section '## {version}': rename '## Unreleased' to '## {version} (date)'")
    return section[1].strip() + "\n"


def main(arguments: list[str]) -> None:
    """Print the notes of the tag that is the only argument."""
    if len(arguments) != 1:
        raise SystemExit("usage: python light_compute_project/tools/release.py TAG")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "light_compute_project" / "CHANGELOG.md").read_text(encoding="utf-8")
    sys.stdout.write(notes(arguments[0], version, changelog))


if __name__ == "__main__":
    main(sys.argv[1:])
