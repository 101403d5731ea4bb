"""`docs/project_status.md` and `docs/baseline_summary.md`, written from the records in `metrics/` and the configs.

    python light_compute_project/docs/generate        writes them all again

A test compares the pages with what is rendered here, so that no number in them is older than its record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litgpt_core.config.compose import load
from litgpt_core.config.source import option_names, placeholders
from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.text import byte_size, two_digits
from litgpt_core.planning.zoo import METRICS, Measured, find, records, zoo

STATUS, SUMMARY = PROJECT_DIR / "docs" / "project_status.md", PROJECT_DIR / "docs" / "baseline_summary.md"
NOTICE = (
    "Written by `python light_compute_project/docs/generate` from `metrics/` and `configs/`: edit those, not this page."
)


def update() -> None:
    """Write both pages."""
    STATUS.write_text(status_page(), encoding="utf-8", newline="\n")
    SUMMARY.write_text(summary_page(), encoding="utf-8", newline="\n")


def status_page() -> str:
    """What has been trained and measured, and what has not."""
    parts = [
        f"# Project status: what is measured\n\n{NOTICE}",
        "## Experiments\n\nLoss and bits per byte over the whole validation split, of the best record. "
        "`lcp train +experiment=NAME` trains one.\n\n" + _experiments(),
        "## Runs on record\n\nEach is the `summary.json` of a run, with its command, versions and commit.\n\n"
        + _runs(),
        "## Models\n\n`lcp models show NAME` says more. Training memory is that of one sequence at a time with AdamW, "
        "bf16-mixed.\n\n" + _models(),
        "## Speed\n\nMedian over rounds, in tokens per second; how it is measured: [benchmark.md](benchmark.md).\n\n"
        + _benchmarks(),
        _growth(),
        "## Compression\n\nBits per byte against the source, mean over the texts, with half the width of its "
        "interval: [compression.md](compression.md).\n\n" + _compressions(),
    ]
    return "\n\n".join(parts) + "\n"


def _computed(record: dict[str, Any]) -> str:
    """By what: records from before the training kernels do not name them."""
    by_kernels = "by the training kernels" if record.get("cpu_kernels") else "not compiled"
    return "compiled" if record["compiled"] else by_kernels


def _compile_time(record: dict[str, Any]) -> str:
    return f" (compiling {record['compile_s']:.0f} s)" if record["compiled"] else ""


def summary_page() -> str:
    """The baseline in numbers."""
    one = find("baseline").measured[0]
    record, config = one.record, load(["+experiment=baseline"])
    built, whole = find("baseline").config, record["whole_split"]
    git, seconds = record["git"], record["train_s"]
    setting = [
        ("data", f"{config.data.name}: {config.plain['data']['packages']}"),
        ("tokenizer", f"{config.tokenizer.kind}, {record_vocabulary(config)} tokens"),
        ("model", f"{built.n_layer} layers, {built.n_embd} wide, {built.n_head} heads, context {built.block_size}"),
        ("parameters", f"{record['n_params']:,}"),
        ("optimizer", f"{config.optim.kind}, {config.optim.schedule.kind} schedule"),
        ("length", f"{record['final']['step']:,} steps, {record['final']['tokens']:,} tokens"),
        ("precision", f"{record['precision']}, {_computed(record)}"),
        ("device", record["device"]),
        (
            "time",
            f"{seconds:.0f} s of training{_compile_time(record)}, in all {record['wall_s']:.0f} s",
        ),
        ("speed", f"{two_digits(record['tokens_per_s'])} tokens/s, {record['mfu']:.0%} of {_peak(record)}"),
        ("memory", f"{record['peak_memory_mb']:,.0f} MB at most"),
        ("command", f"`{record['command']}`"),
        ("code", f"commit `{git['commit'][:12]}`"),
        ("packages", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
    ]
    losses = [("**baseline**", whole["val_loss"], whole["val_bpb"])]
    for name, loss in sorted(record["references"].items(), key=lambda item: item[1]):
        losses.append((f"{name} model of the same tokens", loss, loss / math.log(2) * record["val_tokens_per_byte"]))
    return (
        f"# The baseline in numbers\n\n{NOTICE}\n\n"
        "The validation split is whole files that training never saw. The references are n-gram models of the same "
        "tokens.\n\n"
        + _table(["model", "nats per token", "bits per byte"], [(n, f"{a:.4f}", f"{b:.4f}") for n, a, b in losses])
        + "\n\n![Loss of the baseline against training tokens](../metrics/baseline-cpu.png)\n\n"
        + _table(["", "recorded"], setting)
        + f"\n\nThe record: [metrics/{one.file}](../metrics/{one.file}). What was tried on the way: [log.md](log.md).\n"
    )


def record_vocabulary(config: Any) -> str:
    """Tokens of a config's tokenizer, where it says so."""
    size = getattr(config.tokenizer, "vocab_size", None)
    return f"{size:,}" if size else "as many as the text has"


def _peak(record: dict[str, Any]) -> str:
    source, rate = record["peak_flops_source"], record["peak_flops"]
    return f"this machine's {source} ({rate / 1e9:,.0f} GFLOP/s)"


def _experiments() -> str:
    found = {one.experiment: one for one in sorted(records(), key=lambda one: -one.val_bpb)}
    rows = []
    for name in option_names("experiment"):
        config = load([f"+experiment={name}", *placeholders(name)])
        one = found.get(name)
        tokens = config.tokenizer.kind
        measured = ("no record", "", "") if one is None else (*_losses(one), one.record["device"])
        steps = f"{config.trainer.stop.max_steps:,} x {config.trainer.batch.global_batch_size}"
        rows.append((f"`{name}`", config.data.name, tokens, steps, *measured))
    return _table(
        ["experiment", "data", "tokenizer", "steps x sequences", "nats per token", "bits per byte", "device"], rows
    )


def _losses(one: Measured) -> tuple[str, str]:
    return f"{one.record['whole_split']['val_loss']:.4f}", f"{one.val_bpb:.4f}"


def _runs() -> str:
    rows = [
        (
            f"[{one.file}](../metrics/{one.file})",
            f"`{one.experiment}`",
            f"{one.record['n_params']:,}",
            f"{one.record['final']['tokens']:,}",
            f"{one.record['train_s']:.0f} s",
            *_losses(one),
            f"`{one.record['git']['commit'][:10]}`" if one.record["git"].get("commit") else "",
        )
        for one in records()
    ]
    return _table(
        ["record", "experiment", "parameters", "tokens", "training", "nats per token", "bits per byte", "commit"], rows
    )


def _models() -> str:
    rows = [
        (
            f"`{model.name}`",
            f"{model.parameters:,}",
            f"{model.config.n_layer} x {model.config.n_embd}",
            f"{model.config.block_size:,}",
            byte_size(model.weight_bytes),
            byte_size(model.training_bytes),
            f"{model.flops:.1e}",
            f"{model.measured[0].val_bpb:.3f}" if model.measured else "",
        )
        for model in zoo()
    ]
    head = [
        "model",
        "parameters",
        "layers x width",
        "context",
        "weights, bf16",
        "training",
        "FLOP per token",
        "bits per byte",
    ]
    return _table(head, rows)


def _benchmarks(folder: Path = METRICS) -> str:
    rows = []
    for path in sorted(folder.glob("benchmark-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        environment = record["environment"]
        for entry in record.get("contestants", []):  # the records' own key
            rate = entry.get("tokens_per_s")
            if isinstance(rate, dict) and rate.get("median"):
                name = f"[{path.stem.removeprefix('benchmark-')}](../metrics/{path.name})"
                what = f"{entry['label']}{' (ours)' if entry.get('ours') and 'ours' not in entry['label'] else ''}"
                rows.append((name, what, two_digits(rate["median"]), environment["device_name"], record["date"][:10]))
    return _table(["benchmark", "program", "tokens/s", "device", "date"], rows)


def _growth(folder: Path = METRICS) -> str:
    """How cost grows, of every record of `lcp benchmark growth`."""
    parts = []
    for path in sorted(folder.glob("benchmark-growth*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            (plot["y"], plot["x"], plot["shape"], f"x^{plot['straight']['exponent']:.2f}") for plot in record["plots"]
        ]
        device = f"{record['environment']['device_name']}, {record['date'][:10]}"
        head = ["cost", "over", "of", "grows with"]
        parts.append(f"Growth of cost ([{path.stem}](../metrics/{path.name}), {device}):\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def _compressions(folder: Path = METRICS) -> str:
    rows = []
    for path in sorted(folder.glob("compression-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        name = f"[{path.stem.removeprefix('compression-')}](../metrics/{path.name})"
        for row in record["rows"]:
            texts = row["quality"].values()
            delta = sum(text["delta"] for text in texts) / len(texts)
            width = math.sqrt(sum(text["half_width"] ** 2 for text in texts)) / len(texts)
            change = f"{delta:+.4f} (±{width:.4f})" if width else "the source"
            rows.append((name, row["name"], byte_size(row["file_bytes"]), change, ", ".join(row["quality"])))
    return _table(["record", "model", "file", "bits per byte", "texts"], rows)


def _table(head: list[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)])
