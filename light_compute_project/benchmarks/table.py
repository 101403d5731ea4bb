"""The tables of the benchmark command, made from its JSON; each fits a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

Record = dict[str, Any]


def race_tables(record: Record) -> list[Table]:
    """How fast, and at what cost; contestants from fast to slow.

    Args:
        record: What `record.race_record` made.
    """
    rows = sorted(record["contestants"], key=lambda one: -float(one["tokens_per_s"]["median"]))
    tables = [_speed(record, rows), _cost(record, rows)]
    if record["kind"] == "generate":
        tables.append(_latency(rows))
    tables[-1].caption, tables[-1].caption_justify = _caption(record), "left"
    return tables


def _speed(record: Record, rows: list[Record]) -> Table:
    ours = next(iter(record["ratios"]), None)
    title = f"{record['kind']} {record['work']['name']}"
    table = _table(title, "tokens/s", "slowest–fastest", f"{ours or 'ours'} is")
    for one in rows:
        rate, ratio = one["tokens_per_s"], record["ratios"].get(ours, {}).get(one["label"])
        times = f"{ratio['median']:.2f}x ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else ""
        table.add_row(_name(one), number(rate["median"]), f"{number(rate['min'])}–{number(rate['max'])}", times)
    return table


def _cost(record: Record, rows: list[Record]) -> Table:
    decoding = record["kind"] == "generate"
    columns = ["in", *(["GB/s", "memory"] if decoding else ["GFLOP/s", "ceiling"])]
    columns += ["first s", "later s", "peak MB", "tree MB"]
    with_sheet = any(one["mfu"] for one in rows)
    table = _table("", *columns, *(["MFU"] if with_sheet else []))
    for one in rows:
        amount, share = ("weight_gb_per_s", "read_share") if decoding else ("gflops", "ceiling_share")
        wall = one["wall_s"]
        cells = [
            one["precision"],
            number(one[amount]) if one[amount] else "",
            f"{one[share]:.0%}" if one[share] else "",
            f"{wall['first']:.0f}",
            f"{wall['later_median']:.0f}" if wall["later_median"] is not None else "",
            f"{one['peak_mb']['median']:,.0f}",
            f"{one['tree_mb']['median']:,.0f}",
        ]
        if with_sheet:
            cells.append(f"{one['mfu']:.1%}" if one["mfu"] else "")
        table.add_row(_name(one), *cells)
    return table


def _latency(rows: list[Record]) -> Table:
    columns = {
        "first_token_s": "first token, ms",
        "start_to_first_s": "from start, s",
        "decode_tokens_per_s": "then tokens/s",
    }
    table = _table("", *columns.values())
    for one in rows:
        medians = {name: one["numbers"].get(name, {}).get("median") for name in columns}
        first, start, decode = medians.values()
        table.add_row(
            _name(one),
            f"{first * 1000:.1f}" if first is not None else "",
            f"{start:.1f}" if start is not None else "",
            number(decode) if decode is not None else "",
        )
    return table


def number(value: float) -> str:
    """At least three digits, thousands with commas: 18,123 or 35.2."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _name(one: Record) -> str:
    return f"[bold]{one['label']}[/]" if one["ours"] else str(one["label"])


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("contestant", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _caption(record: Record) -> str:
    work, machine = record["work"], record["environment"] or {}
    lines = [
        f"{work['n_layer']} layers, {work['n_head']} heads, {work['n_embd']} wide, context {work['block_size']}, "
        f"{work['n_params']:,} parameters",
        f"{machine.get('device_name', 'machine unknown')}; {work['threads']} threads for every contestant",
    ]
    if record["ceiling_gflops"]:
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in record["ceiling_gflops"].items())
        lines.append(f"measured here: matrix product {rates} GFLOP/s, memory {record['read_gb_per_s']:.1f} GB/s")
    return "\n".join(lines)


def ceiling_table(found: Record) -> Table:
    """GFLOP/s of the matrix product by size, from what `child_gemm.measure` returned."""
    sizes = list(found["by_size"]["fp32"])
    table = Table(title="Matrix product, GFLOP/s", title_justify="left", box=SIMPLE_HEAD)
    for column in ("numbers", *(f"{size}²" for size in sizes), "best"):
        table.add_column(column, justify="left" if column == "numbers" else "right")
    for name, rates in found["by_size"].items():
        table.add_row(
            name,
            *(number(rates[size]) if size in rates else "–" for size in sizes),
            f"[bold]{number(found['gflops'][name])}[/]",
        )
    memory = f"memory read at {found['read_gb_per_s']:.1f} GB/s"
    table.caption, table.caption_justify = f"{found['environment']['device_name']}\n{memory}", "left"
    return table


def memory_table(record: Record) -> Table:
    """Peak memory of the loss head, from what `memory.measure_loss_memory` returned."""
    title = (
        f"Loss head, forward and backward: {record['vocabulary']:,} ids, {record['tokens']:,} tokens, "
        f"{record['width']} wide, fp32"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("tokens at once", "peak MB", "above the start, MB", "logits held, MB", "seconds"):
        table.add_column(column, justify="right")
    for one in record["variants"]:
        held = min(one["chunk_size"] or record["tokens"], record["tokens"])
        table.add_row(
            f"{one['chunk_size']:,}" if one["chunk_size"] else "all",
            f"{one['peak_mb']['median']:,.0f}",
            f"{one['rise_mb']['median']:,.0f}",
            f"{held * record['vocabulary'] * 4 / 1e6:,.0f}",
            f"{one['seconds']['median']:.2f}",
        )
    return table
