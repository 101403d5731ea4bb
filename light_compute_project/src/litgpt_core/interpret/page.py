"""The report as one HTML file: styles, scripts and values are inside, and a policy in it forbids any request."""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import Any

SCRIPTS = ("charts.js", "views.js", "report.js")


def page(values: dict[str, Any]) -> str:
    """The text of report.html for the values of analysis.json."""
    folder = resources.files("litgpt_core.interpret") / "static"

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    data = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":  # nothing in the values ends the element that holds them
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    parts = {
        "TITLE": html.escape(str(values["model"])),
        "STYLE": read("style.css"),
        "SCRIPT": "\n".join(read(name) for name in SCRIPTS),
        "DATA": data,
    }
    before, *rest = read("report.html").split("{{")
    text = [before]
    for part in rest:
        name, _, after = part.partition("}}")
        text += [parts[name], after]
    return "".join(text)
