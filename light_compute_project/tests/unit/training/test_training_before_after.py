"""The comparison page and table show texts as they are, whatever a model writes."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from litgpt_core.training.before_after import as_markdown, comparison_table

AWKWARD = "a | b\n<b>bold</b> [red]x[/] \x1b[31m & more"


@pytest.fixture
def comparison() -> dict[str, Any]:
    return {
        "before": {"val_loss": 3.0, "val_bpb": 4.5},
        "after": {"val_loss": 2.25, "val_bpb": 3.375},
        "held_out_conversations": 12,
        "answers": [
            {"question": "Why?", "answered": "Because.", "before": "", "after": AWKWARD},
            {"question": "And?", "answered": "So.", "before": "x" * 1000, "after": "y"},
        ],
    }


def test_the_page_is_one_table_row_an_answer(comparison: dict[str, Any]) -> None:
    page = as_markdown(comparison, name="mine")
    lines = page.splitlines()
    assert lines[0] == "# mine: before and after" and "Over the 12 held-out conversations" in page
    assert "| validation loss (nats/token) | 3.0000 | 2.2500 | -0.7500 |" in lines
    assert "| bits per byte of the answers | 4.5000 | 3.3750 | -1.1250 |" in lines
    rows = [line for line in lines if line.startswith(("| Why?", "| And?"))]
    assert len(rows) == 2 and all(row.replace("\\|", "").count("|") == 5 for row in rows)
    assert "(nothing)" in rows[0] and "a \\| b<br>&lt;b>bold&lt;/b>" in rows[0] and "&amp; more" in rows[0]
    assert "x" * 400 + " ..." in rows[1] and "x" * 401 not in rows[1], "long answers are cut for the page"
    assert "most probable answers" not in as_markdown({**comparison, "answers": []}, name="mine")


def test_the_terminal_shows_markup_and_control_characters_as_text(comparison: dict[str, Any]) -> None:
    console = Console(width=200, record=True, force_terminal=True, color_system=None)
    with console.capture() as captured:
        for table in comparison_table(comparison):
            console.print(table)
    shown = captured.get()
    assert "[red]x[/]" in shown and "\x1b[31m" not in shown and "(nothing)" in shown
    assert "2.2500" in shown and "-0.7500" in shown
    assert len(comparison_table({**comparison, "answers": []})) == 1
