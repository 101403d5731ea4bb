"""Keeps the exact versions in pyproject.toml equal to those in requirements.txt; the Makefile calls it.

requirements.txt is the one place: every package that the repository may install, with its version, its marker and the
hashes of its files. `uv export` writes it. uv itself reads only pyproject.toml, so its pins are copied there as
constraints, which `uv run`, `uv sync` and `uv pip install` obey without a lock file. Standard library only: this runs
before there is an environment.

    pins.py write                             pyproject.toml: the pins of requirements.txt
    pins.py free [NAME | NAME==VERSION ...]   pyproject.toml: all pins removed, or those named; a later date
    pins.py changes BEFORE                    the table of what differs from the requirements file BEFORE
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

PROJECT_FILE = Path("pyproject.toml")
REQUIREMENTS = Path("requirements.txt")
BEGIN, END = "# pins: begin", "# pins: end"
DATE = re.compile(r'^exclude-newer = "([^"]+)"$', re.MULTILINE)
COOLING_DAYS = 7
"""Malicious uploads are usually found and removed within days, so an upgrade takes nothing younger."""


def read_pins(text: str) -> list[str]:
    """`name==version` or `name==version ; marker` of every requirement in a file with hashes."""
    lines = [line.removesuffix("\\").strip() for line in text.splitlines() if re.match(r"\w", line)]
    if wrong := [line for line in lines if not re.match(r"[\w.-]+==[\w.+!]+( ; |$)", line)]:
        raise SystemExit(f"{REQUIREMENTS}: not an exact version: {wrong[0]}")
    return lines


def name_of(pin: str) -> str:
    """`numpy` of `numpy==2.4.6 ; python_full_version < '3.12'`, spelt as the index spells it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s;=<>!~\[]", pin, maxsplit=1)[0]).lower()


def constraints_in(project: str) -> list[str]:
    """The pins that pyproject.toml holds now."""
    return re.findall(r'^    "([^"]+)",$', _block(project), re.MULTILINE)


def with_constraints(project: str, pins: list[str]) -> str:
    """pyproject.toml with these pins and no others. Build backends come from the same set."""
    build = [pin for pin in pins if name_of(pin) == "setuptools"]
    lines = [BEGIN, "constraint-dependencies = [", *(f'    "{pin}",' for pin in pins), "]"]
    lines += ["build-constraint-dependencies = [" + ", ".join(f'"{pin}"' for pin in build) + "]", END]
    return project.replace(_block(project), "\n".join(lines))


def freed(project: str, wanted: list[str], *, date: str) -> str:
    """pyproject.toml without the pins of the packages named, or of all if none is named, and dated `date` or later.

    A name with a version, `torch==2.16.0`, is pinned to that version.
    """
    names = {name_of(one) for one in wanted}
    pins = constraints_in(project)
    if missing := names - {name_of(pin) for pin in pins}:
        raise SystemExit(f"{PROJECT_FILE} pins no package of the name {', '.join(sorted(missing))}")
    kept = [pin for pin in pins if names and name_of(pin) not in names]
    project = with_constraints(project, sorted([*kept, *(one for one in wanted if "==" in one)]))
    found = DATE.search(project)
    if found is None:
        raise SystemExit(f"{PROJECT_FILE} has no line `exclude-newer = ...`")
    return DATE.sub(f'exclude-newer = "{max(found[1], date)}"', project)


def changes(before: list[str], after: list[str]) -> str:
    """A Markdown table: package, version before, version after. Packages with several versions list them all."""
    old, new = _versions(before), _versions(after)
    rows = [(n, old.get(n, "-"), new.get(n, "-")) for n in sorted(old | new) if old.get(n) != new.get(n)]
    if not rows:
        return "No version has changed."
    return "\n".join(["| package | before | after |", "|---|---|---|", *(f"| {n} | {a} | {b} |" for n, a, b in rows)])


def _versions(pins: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for pin in pins:
        found.setdefault(name_of(pin), []).append(pin.split("==", 1)[1].split(" ;")[0])
    return {name: ", ".join(dict.fromkeys(versions)) for name, versions in found.items()}


def _block(project: str) -> str:
    found = re.search(f"^{BEGIN}$.*?^{END}$", project, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"{PROJECT_FILE} has no lines `{BEGIN}` and `{END}` under [tool.uv]")
    return found[0]


def main(arguments: list[str]) -> None:
    """Carry out one command in the current folder, the root of the repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write")
    free = commands.add_parser("free")
    free.add_argument("packages", nargs="*")
    newest = datetime.now(UTC) - timedelta(days=COOLING_DAYS)
    free.add_argument("--before", default=f"{newest:%Y-%m-%d}", help="the newest day (default: a week ago)")
    commands.add_parser("changes").add_argument("before", type=Path)
    given = parser.parse_args(arguments)
    project = PROJECT_FILE.read_text(encoding="utf-8")
    if given.command == "free":
        changed = freed(project, given.packages, date=f"{given.before}T00:00:00Z")
    else:
        pins = read_pins(REQUIREMENTS.read_text(encoding="utf-8"))
        if given.command == "changes":
            print(changes(read_pins(given.before.read_text(encoding="utf-8")), pins))
            return
        changed = with_constraints(project, pins)
    if changed != project:
        PROJECT_FILE.write_text(changed, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
