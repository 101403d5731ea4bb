"""What an evaluation leaves: `{STEP}.json`, `evaluation.md` and `evaluation.png` of each run, and one HTML page of all.

The page is one file without any request: picture and JSON are in it.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.files import replacing, write_atomically, write_json
from litgpt_core.core.replaceable import refuse_foreign_file
from litgpt_core.evaluate.plots import draw
from litgpt_core.evaluate.table import Rows, cautions, kind_rows, markdown, score_rows, text_rows

MOST_TEXTS = 200
"""Texts that are listed."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: pre; }
.wide { overflow-x: auto; } li { margin: .3rem 0; } details { margin: 1rem 0; }
img { max-width: 100%; background: white; border-radius: 6px; }
pre { overflow-x: auto; background: var(--soft); padding: 1rem; }
"""


def save_record(folder: Path, record: dict[str, Any], *, step: str, suffix: str = "") -> Path:
    """Write `STEP.json`, and `evaluation.md` and `evaluation.png` of this measurement alone; names end in `suffix`."""
    path = folder / f"{step}{suffix}.json"
    write_json(path, record)
    with replacing(folder / f"evaluation{suffix}.png") as temporary:
        temporary.write_bytes(draw([record]))
    write_atomically(folder / f"evaluation{suffix}.md", page_markdown([record], sentences=[]))
    return path


def page_markdown(records: Sequence[dict[str, Any]], *, sentences: Sequence[str]) -> str:
    """The tables for a reader of text files."""
    parts = [f"# {' and '.join(str(record['name']) for record in records)}\n", markdown(score_rows(records))]
    if lines := [*sentences, *cautions(records)]:
        parts.append("".join(f"- {line}\n" for line in lines))
    for record in records:
        if record["suites"]:
            parts.append(f"## Kinds of items: {record['name']}\n\n{markdown(kind_rows(record))}")
    parts.append("".join(f"{line}\n" for line in map(provenance, records)))
    return "\n".join(parts)


def provenance(record: dict[str, Any]) -> str:
    """One line: which weights, on which machine, by which code."""
    commit = (record.get("git") or {}).get("commit") or "unknown commit"
    weights = str(record.get("weights_sha256") or "unknown")[:12]
    return (
        f"{record['name']}: {record['n_params']:,} parameters, weights {weights}, {record['dtype']}, "
        f"{record['device']}, {record['seconds']:.0f} s, code {str(commit)[:12]}, seed {record['seed']}"
    )


def write_html(path: Path, records: Sequence[dict[str, Any]], *, differences: Sequence[dict[str, Any]]) -> None:
    """Write the page.

    Raises:
        ConfigError: The name does not end in .html.
        CheckpointError: The file is there and is not such a page.
    """
    refuse_foreign_file(path, contains=b"Provenance", what="a page of this command")
    if path.suffix not in (".html", ".htm"):
        raise ConfigError(f"--out {path}", needed="a name that ends in .html", fix=f"--out {path.with_suffix('.html')}")
    title = " · ".join(str(record["name"]) for record in records)
    picture = base64.b64encode(draw(records)).decode()
    texts = text_rows(records)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p><img alt="Bars of all measures with 95 % intervals" src="data:image/png;base64,{picture}"></p>',
        _table(score_rows(records)),
        _list("Comparisons", [each["sentence"] for each in differences]),
        _list("What these numbers do not say", cautions(records)),
        *(
            _folded(f"Kinds of items: {record['name']}", _table(kind_rows(record)))
            for record in records
            if record["suites"]
        ),
        _folded("Bits per byte of each text", _table(texts[: MOST_TEXTS + 1])) if len(texts) > 1 else "",
        _list("Provenance", [provenance(record) for record in records]),
        _folded("Everything but the single items, as JSON", f"<pre>{html.escape(_json(records, differences))}</pre>"),
    ]
    write_atomically(
        path,
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n",
    )


def _table(rows: Rows) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows[1:])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _list(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>\n" for line in lines)
    return f"<h2>{html.escape(title)}</h2>\n<ul>\n{items}</ul>" if lines else ""


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"


def _json(records: Sequence[dict[str, Any]], differences: Sequence[dict[str, Any]]) -> str:
    return json.dumps(
        {"models": [without_items(record) for record in records], "differences": list(differences)}, indent=1
    )


def without_items(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its single items and blocks, which are in `STEP.json`."""
    suites = {
        name: {key: value for key, value in found.items() if key != "items"} for name, found in record["suites"].items()
    }
    shorter = {**record, "suites": suites}
    if "bytes" in record:
        shorter["bytes"] = {key: value for key, value in record["bytes"].items() if key != "texts"}
    return shorter
