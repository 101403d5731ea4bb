from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.audit.causes import Cause
from litgpt_core.audit.report import (
    Report,
    Table,
    describe_first,
    markdown_table,
    share,
    trace_numbers,
    trace_table,
)
from litgpt_core.audit.trace import compare_rows

ONE = [{"step": 5, "tokens": 10, "lr": 0.1, "train_loss": 2.0, "grad_norm": 1.0, "val_loss": None}]
OTHER = [{**ONE[0], "train_loss": 2.1}]
SIDES = ("recorded", "replayed")


def report(**changes: Any) -> Report:
    found = compare_rows(ONE, OTHER)
    values: dict[str, Any] = {
        "kind": "replay",
        "title": "Audit of it",
        "passed": False,
        "verdict": "it differs",
        "method": ["read", "trained"],
        "tables": [trace_table(found, title="Rows", sides=SIDES)],
        "remarks": ["be careful"],
        "likely_causes": [Cause(what="torch", one="1|0", other="2", why="another version computes")],
        "identical": False,
        "numbers": trace_numbers(found),
        "environments": {"recorded": {"precision": "32-true"}, "replayed": {"precision": "bf16-mixed"}},
    }
    return Report(**values | changes)


def test_the_first_difference_is_a_sentence_with_both_values_and_their_distance() -> None:
    text = describe_first(compare_rows(ONE, OTHER), sides=SIDES)
    assert text == "step 5, train_loss: 2.0 (recorded), 2.1 (replayed), a difference of 0.1 (4.76%)"
    assert "1 rows (recorded), 0 rows (replayed)" in describe_first(compare_rows(ONE, [], up_to=5), sides=SIDES)


def test_the_page_says_what_was_done_found_and_may_have_caused_it() -> None:
    page = report().to_markdown()
    assert page.startswith("# Audit of it\n\n**FAIL**: it differs\n")
    assert "1. read\n2. trained" in page and "- be careful" in page
    assert "| train_loss | 1 | 1 | 5 | 2.0 | 2.1 | 4.76% |" in page and "Compared: 1 rows, steps 5 to 5." in page
    assert "| torch | 1\\|0 | 2 | another version computes |" in page
    assert "| precision | 32-true | bf16-mixed |" in page


def test_likely_causes_are_told_apart_from_harmless_differences() -> None:
    assert "the most likely first" in report().to_markdown()
    assert "did not change the result" in report(identical=True, passed=True).to_markdown()
    assert "Nothing recorded differs" in report(likely_causes=[]).to_markdown()
    assert "Likely causes" not in report(likely_causes=None).to_markdown()


def test_the_json_holds_the_same_and_is_valid(tmp_path: Path) -> None:
    paths = report(numbers={"worst": math.inf, "none": math.nan, "fine": 0.1}).write(tmp_path / "new", stem="audit-x")
    assert [path.name for path in paths] == ["audit-x.md", "audit-x.json"]
    content = json.loads(paths[1].read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert content["numbers"] == {"worst": "inf", "none": "nan", "fine": 0.1}
    assert (
        content["likely_causes"][0]["what"] == "torch" and content["environments"]["recorded"]["precision"] == "32-true"
    )
    assert [path.name for path in sorted((tmp_path / "new").iterdir())] == ["audit-x.json", "audit-x.md"]


def test_numbers_of_a_comparison_are_plain() -> None:
    numbers = json.loads(json.dumps(trace_numbers(compare_rows(ONE, OTHER))))
    first = numbers["first_difference"]
    assert (first["step"], first["quantity"], first["one"], first["other"]) == (5, "train_loss", 2.0, 2.1)
    assert first["relative"] == pytest.approx(0.1 / 2.1) and numbers["quantities"]["lr"]["largest"] is None


def test_cells_stay_in_their_columns() -> None:
    text = markdown_table(Table(title="T", header=("a", "b"), rows=[("x|y", "two\nlines")], note="n"), level=2)
    assert text == "## T\n\n| a | b |\n|---|---|\n| x\\|y | two lines |\n\nn"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0123, "1.23%"), (1e-3, "0.10%"), (2.5e-8, "2.5e-08"), (None, "no size"), (math.inf, "no size")],
)
def test_shares(value: float | None, text: str) -> None:
    assert share(value) == text
