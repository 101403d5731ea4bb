from __future__ import annotations

import re
from pathlib import Path

import pytest

from litgpt_core.audit.machine_page import (
    COMMAND,
    PAGE,
    environment_page,
    here,
    write_environment_page,
)
from litgpt_core.audit.question import Question, answer


@pytest.fixture(scope="module")
def generated() -> str:
    return environment_page(here())


def shape(page: str) -> list[str]:
    """Headings, sentences and the first column, without what differs between machines."""
    before, packages = page.split("## Packages")
    kept = [re.sub(r"\d{4}-\d\d-\d\d", "DATE", line) for line in before.splitlines()]
    kept = [line.split("|")[1] if line.startswith("|") else line for line in kept]
    return [*kept, *(line for line in packages.splitlines() if not re.match(r"\| [a-z0-9]", line))]


def test_the_committed_page_is_what_the_generator_writes(generated: str) -> None:
    assert shape(PAGE.read_text(encoding="utf-8")) == shape(generated), f"type: {COMMAND}"


def test_every_package_has_a_version_and_a_hash() -> None:
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (\S+) \| (\S+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    found = {name: (version, digest) for name, version, digest in rows}
    for name in ("torch", "lightning", "numpy", "hydra-core"):
        version, digest = found[name]
        assert re.match(r"\d+\.\d+", version) and re.fullmatch(r"[0-9a-f]{12}", digest), name


def test_no_fact_is_missing_where_everything_is_known(generated: str) -> None:
    known = {
        line.split("|")[1].strip(): line.split("|")[2].strip() for line in generated.splitlines() if line[:2] == "| "
    }
    for name in (
        "system",
        "processor",
        "Python",
        "torch",
        "torch threads",
        "hash of these files",
        "hash of all packages",
    ):
        assert known[name] not in ("", "none"), name
    assert int(known["source files of litgpt_core"]) > 100


def test_the_script_writes_where_it_is_told(tmp_path: Path) -> None:
    before = PAGE.read_bytes()
    answered = answer(Question(environment_info=tmp_path / "page.md"))
    assert answered.exit_code == 0 and (tmp_path / "page.md").read_text(encoding="utf-8").startswith("# Environment\n")
    assert write_environment_page(tmp_path / "other.md") == tmp_path / "other.md" and PAGE.read_bytes() == before
