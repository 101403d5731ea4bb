"""The chapter prints the source as it is."""

from __future__ import annotations

import re
from pathlib import Path

from litgpt_core.pure import microgpt

PURE = Path(microgpt.__file__).parent
PAGE = Path(__file__).resolve().parents[3] / "docs" / "pure_python.md"


def test_every_excerpt_is_in_the_source() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in PURE.glob("*.py"))
    excerpts = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(excerpts) >= 6
    for excerpt in excerpts:
        assert excerpt in source, excerpt
