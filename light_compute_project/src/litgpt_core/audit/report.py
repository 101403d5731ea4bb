"""The answer to one question about reproducibility, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from litgpt_core.audit.causes import Cause, look_up
from litgpt_core.audit.trace import QUANTITIES, RowDifference, TraceComparison
from litgpt_core.core.files import write_atomically
from litgpt_core.core.replaceable import refuse_foreign_file


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text in rows and columns."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    """Explanation below the table."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One question, answered."""

    kind: str
    """`replay`, `repeat`, `seeds`, `threads` or `compare`."""
    title: str
    passed: bool
    verdict: str
    """One or two sentences: identical, or what differs."""
    method: list[str]
    """What was done, step by step."""
    tables: list[Table]
    remarks: list[str]
    """What a reader should know before relying on the verdict."""
    likely_causes: list[Cause] | None
    """Recorded differences between the environments, the most likely cause first; None where that does not apply."""
    identical: bool
    """Whether every number that was compared is equal to the last bit."""
    numbers: dict[str, Any]
    """The results as plain values."""
    environments: dict[str, dict[str, Any]]
    """Name of a side -> its `environment.json`."""
    written_at: str = field(default_factory=lambda: datetime.now().astimezone().isoformat(timespec="seconds"))

    def to_json(self) -> str:
        """All of it; numbers that are not finite are written as text."""
        return json.dumps(_finite(dataclasses.asdict(self)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The page."""
        parts = [f"# {self.title}", f"**{'PASS' if self.passed else 'FAIL'}**: {self.verdict}", f"{self.written_at}"]
        parts += ["## What was done", "\n".join(f"{n}. {line}" for n, line in enumerate(self.method, start=1))]
        parts += ["## Results", *(markdown_table(table, level=3) for table in self.tables)]
        if self.remarks:
            parts += ["## Limitations", "\n".join(f"- {remark}" for remark in self.remarks)]
        if self.likely_causes is not None:
            parts += ["## Likely causes", self._causes(self.likely_causes)]
        parts += ["## Environment", markdown_table(environment_table(self.environments), level=3)]
        return "\n\n".join(parts) + "\n"

    def _causes(self, found: list[Cause]) -> str:
        if not found:
            return "Nothing recorded differs between the environments."
        rows = [(c.what, c.one, c.other, c.why) for c in found]
        sides = list(self.environments)[:2] if len(self.environments) > 1 else ["one", "other"]
        lead = (
            "These differ, but did not change the result." if self.identical else "Differences, the most likely first."
        )
        return lead + "\n\n" + markdown_table(Table(title="", header=("what", *sides, "how it matters"), rows=rows))

    def write(self, folder: Path, *, stem: str = "audit") -> list[Path]:
        """Write `STEM.md` and `STEM.json`; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{stem}.md", folder / f"{stem}.json"]
        for path, heading in zip(paths, (b"## What was done", b'"verdict"'), strict=True):
            refuse_foreign_file(path, contains=heading, what="a report of this command")
        for path, text in zip(paths, (self.to_markdown(), self.to_json()), strict=True):
            write_atomically(path, text)
        return paths


def markdown_table(table: Table, *, level: int = 0) -> str:
    """A table, below a heading if it has a title and `level` is not 0."""
    lines = ["| " + " | ".join(table.header) + " |", "|" + "---|" * len(table.header)]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in table.rows
    ]
    heading = [f"{'#' * level} {table.title}", ""] if level and table.title else []
    return "\n".join([*heading, *lines, *(["", table.note] if table.note else [])])


def trace_table(found: TraceComparison, *, title: str, sides: tuple[str, str]) -> Table:
    """Per quantity: how many numbers were compared, how many differ, and by how much at most."""
    rows = []
    for name in QUANTITIES:
        quantity = found.quantities[name]
        if not quantity.values:
            rows.append((name, "0", "", "", "", "", ""))
            continue
        at = quantity.largest
        worst = ("", "", "", "") if at is None else (str(at.step), number(at.one), number(at.other), share(at.relative))
        rows.append((name, str(quantity.values), str(quantity.differing), *worst))
    steps = f"{len(found.steps)} rows" + (f", steps {found.steps[0]} to {found.steps[-1]}" if found.steps else "")
    header = ("quantity", "compared", "differ", "largest at step", *sides, "relative")
    return Table(title=title, header=header, rows=rows, note=f"Compared: {steps}.")


def trace_numbers(found: TraceComparison) -> dict[str, Any]:
    """A comparison as plain values."""
    return {
        "identical": found.identical,
        "compared_steps": found.steps,
        "values": found.values,
        "differing": found.differing,
        "first_difference": _difference(found.first),
        "largest_relative": found.largest_relative,
        "quantities": {
            name: {**dataclasses.asdict(quantity), "largest": _difference(quantity.largest)}
            for name, quantity in found.quantities.items()
        },
    }


def _difference(at: RowDifference | None) -> dict[str, Any] | None:
    return None if at is None else {**dataclasses.asdict(at), "absolute": at.absolute, "relative": at.relative}


def trace_verdict(found: TraceComparison, *, many: str, sides: tuple[str, str], within: float) -> str:
    """A comparison in a sentence or two; `many` says what was compared, as in "18 numbers of 4 rows"."""
    if not found.values:
        return "there was nothing to compare."
    if found.identical:
        return f"identical: all {many} are equal to the last bit."
    if found.agrees:
        return f"equal within {share(within)}: largest difference {share(found.largest_relative)} in {many}."
    return f"the first difference is at {describe_first(found, sides=sides)}. {found.differing} of {many} differ."


def describe_first(found: TraceComparison, *, sides: tuple[str, str]) -> str:
    """The first difference as a clause, with both values and its size."""
    at = found.first
    if at is None:
        return "nothing differs" if found.values else "there was nothing to compare"
    if at.quantity == "row":
        return f"step {at.step}: {number(at.one)} rows ({sides[0]}), {number(at.other)} rows ({sides[1]})"
    size = "" if at.absolute is None else f", a difference of {at.absolute:.3g} ({share(at.relative)})"
    return f"step {at.step}, {at.quantity}: {number(at.one)} ({sides[0]}), {number(at.other)} ({sides[1]}){size}"


_ENVIRONMENT = (
    ("device_name", "device"),
    ("python.version", "Python"),
    ("torch_build.version", "torch"),
    ("torch_build.config_sha256", "torch's build"),
    ("torch_build.cudnn", "cuDNN of the build"),
    ("driver", "NVIDIA driver"),
    ("cpu_capability", "vector width"),
    ("platform", "system"),
    ("packages_sha256", "all packages"),
    ("git.commit", "commit"),
    ("code.diff_sha256", "uncommitted changes"),
    ("code.package_sha256", "source of litgpt_core"),
    ("threads.torch", "torch threads"),
    ("variables", "variables"),
    ("determinism.deterministic_algorithms", "deterministic algorithms"),
    ("precision", "precision"),
    ("decisions.compile", "torch.compile"),
    ("decisions.cpu_kernels", "training kernels"),
    ("decisions.micro_batch", "micro-batch"),
    ("processes.world_size", "processes"),
    ("data.corpus_sha256", "corpus"),
    ("data_fingerprint", "prepared data"),
    ("tokenizer.fingerprint", "tokenizer"),
    ("seeds", "seeds"),
)


def environment_table(environments: dict[str, dict[str, Any]]) -> Table:
    """The facts that matter most, one column per side."""
    rows = []
    for key, name in _ENVIRONMENT:
        values = [look_up(facts, key) for facts in environments.values()]
        if any(value is not None for value in values):
            rows.append((name, *(brief(value) for value in values)))
    note = "Hashes are shortened to 12 digits; the JSON beside this page holds them whole, with every package."
    return Table(title="", header=("", *environments), rows=rows, note=note)


def brief(value: Any) -> str:
    """A recorded fact for a table cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "–"
    text = str(value)
    return text[:12] if len(text) >= 40 and set(text) <= set("0123456789abcdef") else text


def number(value: float | None) -> str:
    """A number with all its digits."""
    return "none" if value is None else repr(value)


def share(value: float | None) -> str:
    """A relative difference."""
    if value is None or not math.isfinite(value):
        return "no size"
    if value == 0:
        return "0"
    return f"{value:.2%}" if value >= 1e-3 else f"{value:.1e}"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
