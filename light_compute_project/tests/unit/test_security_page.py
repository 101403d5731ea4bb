"""docs/security.md: every row of the threat table names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_every_threat_names_tests_that_exist() -> None:
    page = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("## Threats and tests")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert len(rows) >= 8
    files = {file.name: file for file in (PROJECT / "tests").rglob("test_*.py")}
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", row.split("|")[-2])
        assert named, f"no test in: {row}"
        for file, test in named:
            assert file in files, f"{file} does not exist"
            assert not test or f"def {test}(" in files[file].read_text(encoding="utf-8"), f"{file} has no {test}"
