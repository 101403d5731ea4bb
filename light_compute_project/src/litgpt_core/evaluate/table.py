"""The numbers of several checkpoints as one table of text, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from litgpt_core.evaluate.statistics import Estimate

if TYPE_CHECKING:
    from rich.table import Table

Rows = list[list[str]]
"""The first row holds the headings; cells are text."""


def score_rows(records: Sequence[dict[str, Any]]) -> Rows:
    """One row for each measure of each suite: chance, n-gram models, then the models with 95 % intervals."""
    names = [str(record["name"]) for record in records]
    rows = [["", "n", "chance", "unigram", "bigram", *names]]
    if having := [record["bytes"] for record in records if "bytes" in record]:
        first = having[0]
        rows.append(
            ["bits per byte", f"{first['n_bytes']:,} bytes", "8.000", *_ngrams(first["references"])]
            + [_bytes_cell(record.get("bytes")) for record in records]
        )
        for name in [name for name in first["references"] if name not in ("unigram", "bigram")]:
            rows.append([f"  {name}", "", "", "", "", *[f"{first['references'][name]:.3f}"] * len(names)])
    for suite in dict.fromkeys(suite for record in records for suite in record["suites"]):
        found = [record["suites"].get(suite) for record in records]
        first = next(one for one in found if one is not None)
        for measure, chance in (("accuracy", "chance"), ("choice_bits", "chance_bits")):
            references = {name: values[measure] for name, values in first["references"].items()}
            label = suite if measure == "accuracy" else f"  {suite}, choice bits"
            cells = [_cell(one, measure) for one in found]
            rows.append([label, f"{first['n']:,}", f"{first[chance]:.3f}", *_ngrams(references), *cells])
        if any(one and one.get("clean_accuracy") is not None for one in found):
            shown = [
                "" if one is None else f"{one.get('clean_accuracy', one['accuracy']['value']):.3f}" for one in found
            ]
            rows.append([f"  {suite}, not in training", f"{first['n'] - first['contaminated']:,}", "", "", "", *shown])
    return rows + _other_rows(records)


def cautions(records: Sequence[dict[str, Any]]) -> list[str]:
    """What the suites of these records cannot tell: scores that may be chance."""
    said = []
    for record in records:
        for suite, found in record["suites"].items():
            value, se = found["accuracy"]["value"], found["accuracy"]["se"]
            if se is not None:
                estimate = Estimate(value=value, se=se, n=found["n"], clusters=found["clusters"])
                if abs(value - found["chance"]) <= estimate.half_width:
                    said.append(f"{suite}: {record['name']} cannot be told from chance")
    return said


def _other_rows(records: Sequence[dict[str, Any]]) -> Rows:
    """Tasks of the harness and CORE, where they were measured."""
    rows: Rows = []
    tasks = [
        (task, metric) for record in records for task, found in record.get("harness", {}).items() for metric in found
    ]
    for task, metric in dict.fromkeys(tasks):
        values = [record.get("harness", {}).get(task, {}).get(metric) for record in records]
        if all(isinstance(value, float) for value in values) and "stderr" not in metric:
            rows.append([f"{task}, {metric.partition(',')[0]}", "", "", "", "", *(f"{value:.4f}" for value in values)])
    cores = [record.get("core") for record in records]
    if any(cores):
        cells = ["" if core is None else f"{core['core']:.4f} ± {1.96 * core['se']:.4f}" for core in cores]
        rows.append(["CORE", f"{len(next(core for core in cores if core)['tasks'])} tasks", "0.000", "", "", *cells])
        for task in next(core for core in cores if core)["tasks"]:
            found = [None if core is None else core["tasks"][task] for core in cores]
            first = next(one for one in found if one)
            shown = ["" if one is None else f"{one['accuracy']:.3f}" for one in found]
            rows.append([f"  {task}", f"{first['n']:,}", f"{first['chance']:.3f}", "", "", *shown])
    return rows


def kind_rows(record: dict[str, Any]) -> Rows:
    """Accuracy and choice bits of each kind of item, of one model."""
    rows = [["suite", "kind", "n", "accuracy", "choice bits"]]
    for suite, found in record["suites"].items():
        for kind, values in found["kinds"].items():
            rows.append([suite, kind, f"{values['n']:,}", f"{values['accuracy']:.3f}", f"{values['choice_bits']:.3f}"])
    return rows


def text_rows(records: Sequence[dict[str, Any]]) -> Rows:
    """Bits per byte of each text."""
    having = [record for record in records if "bytes" in record]
    rows = [["text", "bytes", "in training", *(str(record["name"]) for record in having)]]
    for place, text in enumerate(having[0]["bytes"]["texts"] if having else []):
        share = text["in_training"]
        cells = [f"{record['bytes']['texts'][place]['bits_per_byte']:.3f}" for record in having]
        rows.append([text["name"], f"{text['n_bytes']:,}", "" if share is None else f"{share:.1%}", *cells])
    return rows


def rich_table(rows: Rows) -> Table:
    """For the terminal."""
    from rich.table import Table

    drawn = Table()
    for place, heading in enumerate(rows[0]):
        drawn.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in rows[1:]:
        drawn.add_row(*row)
    return drawn


def markdown(rows: Rows) -> str:
    """A Markdown table."""
    lines = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "".join(f"| {' | '.join(cell.strip() for cell in line)} |\n" for line in lines)


def _ngrams(values: dict[str, float]) -> list[str]:
    return [f"{values[name]:.3f}" if name in values else "" for name in ("unigram", "bigram")]


def _bytes_cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return f"{found['bits_per_byte']:.4f}" + ("" if found["se"] is None else f" ± {1.96 * found['se']:.4f}")


def _cell(found: dict[str, Any] | None, measure: str) -> str:
    if found is None:
        return ""
    value = found[measure]
    if value["se"] is None:
        return f"{value['value']:.3f}"
    width = Estimate(value=value["value"], se=value["se"], n=found["n"], clusters=found["clusters"]).half_width
    return f"{value['value']:.3f} ± {width:.3f}"
