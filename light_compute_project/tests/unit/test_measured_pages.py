"""Pages that are generated from `metrics/` are those that the code renders now."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from litgpt_core.core.checkout import PROJECT_DIR


@pytest.fixture(scope="module")
def pages() -> object:
    sys.path.insert(0, str(PROJECT_DIR))
    from docs.generate import measured_pages

    return measured_pages


def test_the_committed_pages_are_what_the_records_say(pages: object) -> None:
    for path, text in ((pages.STATUS, pages.status_page()), (pages.SUMMARY, pages.summary_page())):  # type: ignore[attr-defined]
        assert path.read_text(encoding="utf-8") == text, "run python light_compute_project/docs/generate"


def test_the_numbers_are_those_of_the_record(pages: object) -> None:
    record = json.loads((PROJECT_DIR / "metrics" / "baseline-cpu.json").read_text(encoding="utf-8"))
    assert f"{record['whole_split']['val_bpb']:.4f}" in pages.summary_page()  # type: ignore[attr-defined]
    status = pages.status_page()  # type: ignore[attr-defined]
    names = {path.name for path in (PROJECT_DIR / "metrics").glob("*.json")}
    missing = {name for name in names if name not in status and "serve" not in name}
    assert not missing, f"records that the page leaves out: {missing}"
    assert Path(pages.METRICS) == PROJECT_DIR / "metrics"  # type: ignore[attr-defined]
