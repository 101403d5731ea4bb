"""The tables of the benchmark command, made from its JSON; each fits a terminal of 80 columns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from litgpt_core.core.text import count

Record = dict[str, Any]


def tables(record: Record) -> list[Table]:
    """The tables of any record that the benchmark command writes, this version or an earlier one."""
    return _TABLES[record["kind"]](record)


def _comparison(record: Record) -> list[Table]:
    """Speed and cost of the programs, the fastest first."""
    rows = sorted(record["contestants"], key=lambda one: -float(one["tokens_per_s"]["median"]))
    found = [_speed(record, rows), _cost(record, rows)]
    if record["kind"] == "generate":
        found.append(_latency(rows, prompt_tokens=record["work"].get("prompt_tokens")))
    found[-1].caption = _line(_caption(record))
    return found


def _speed(record: Record, rows: list[Record]) -> Table:
    ours = next(iter(record["ratios"]), None)
    title = f"{record['kind']} {record['work']['name']}"
    table = _table(title, "program", "tokens/s", "slowest–fastest", f"{ours or 'ours'} is")
    for one in rows:
        rate, ratio = one["tokens_per_s"], record["ratios"].get(ours, {}).get(one["label"])
        times = f"{ratio['median']:.2f}x ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else ""
        table.add_row(_name(one), number(rate["median"]), f"{number(rate['min'])}–{number(rate['max'])}", times)
    return table


def _cost(record: Record, rows: list[Record]) -> Table:
    decoding = record["kind"] == "generate"
    amount, share = ("weight_gb_per_s", "read_share") if decoding else ("gflops", "ceiling_share")
    with_mfu = any(one["mfu"] for one in rows)
    columns = ["GB/s", "memory"] if decoding else ["GFLOP/s", "ceiling"]
    columns += ["first s", "later s", "peak MB", "tree MB", *(["MFU"] if with_mfu else [])]
    table = _table("", "program", "in", *columns)
    for one in rows:
        later = one["wall_s"]["later_median"]
        cells = [
            one["precision"],
            number(one[amount]) if one[amount] else "",
            f"{one[share]:.0%}" if one[share] else "",
            f"{one['wall_s']['first']:.0f}",
            f"{later:.0f}" if later is not None else "",
            f"{one['peak_mb']['median']:,.0f}",
            f"{one['tree_mb']['median']:,.0f}",
        ]
        if with_mfu:
            cells.append(f"{one['mfu']:.1%}" if one["mfu"] else "")
        table.add_row(_name(one), *cells)
    return table


def _latency(rows: list[Record], *, prompt_tokens: int | None) -> Table:
    """The rate of the prompt is that of its tokens until the first new one."""
    table = _table("", "program", "first token, ms", "prompt tokens/s", "from start, s", "then tokens/s")
    for one in rows:
        names = ("first_token_s", "start_to_first_s", "decode_tokens_per_s")
        first, start, decode = (one["numbers"].get(name, {}).get("median") for name in names)
        table.add_row(
            _name(one),
            f"{first * 1000:.1f}" if first is not None else "",
            number(prompt_tokens / first) if first and prompt_tokens else "",
            f"{start:.1f}" if start is not None else "",
            number(decode) if decode is not None else "",
        )
    return table


def _caption(record: Record) -> str:
    work = record["work"]
    lines = [
        f"{work['n_layer']} layers, {work['n_head']} heads, {work['n_embd']} wide, context {work['block_size']}, "
        f"{work['n_params']:,} parameters",
        f"{_machine(record)}; every program with {count(work['threads'], 'thread')}",
    ]
    if record["ceiling_gflops"]:
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in record["ceiling_gflops"].items())
        lines.append(f"measured here: matrix product {rates} GFLOP/s, memory {record['read_gb_per_s']:.1f} GB/s")
    return "\n".join(lines)


def _to_loss(record: Record) -> list[Table]:
    """The loss, the time it took, and the peers' time over ours."""
    title = f"to a loss: {record['work']['name']}, nats per character over the whole split"
    columns = ("loss", "range", "clock s", "ratio", "command s", "ratio", "compile s")
    table = _table(title, "program", *columns)
    for one in record["contestants"]:
        loss, numbers = record["losses"][one["label"]], one["numbers"]
        times = record["to_loss"].get(one["label"])
        table.add_row(
            _name(one),
            f"{loss['median']:.4f}",
            f"{loss['min']:.4f}–{loss['max']:.4f}",
            f"{numbers['clock_s']['median']:.1f}",
            f"{times['clock']['median']:.1f}x" if times else "",
            f"{statistics.median(trial['wall_s'] for trial in one['laps']):.1f}",
            f"{times['wall']['median']:.1f}x" if times else "",
            f"{numbers['compile_s']['median']:.1f}",
        )
    rounds = count(len(record["contestants"][0]["laps"]), "alternating round")
    conditions = f"medians of {rounds} with empty compiler caches; ratio: to ours"
    table.caption = _line(f"{_machine(record)}\n{conditions}")
    return [table]


def _serving(record: Record) -> list[Table]:
    """Throughput and latency of every server for each number of streams, and its peak memory."""
    work = record["work"]
    title = f"serve {work['name']}: {work['n_params']:,} parameters, answers of {work['new_tokens']} tokens"
    peers = record.get("peers", {})
    speed = _table(title, "server", "streams", "tokens/s", "slowest–fastest", "of one stream", "ours is")
    latency = _table("", "server", "streams", "first text, p50 / p99", "whole answer, p50 / p99", "longest gap")
    servers = {"ours": record, **peers}
    for index in range(len(record["levels"])):
        for label, own in servers.items():
            level = own["levels"][index]
            streams, rate = str(level["streams"]), level["tokens_per_s"]
            ratio = own["ratios"].get(streams)
            times = record.get("over_peers", {}).get(label, {}).get(streams, {}).get("tokens_per_s")
            cells = [f"{found['median']:.2f}x" if found else "" for found in (ratio, times)]
            name = f"[bold]{label}[/]" if label == "ours" else label
            speed.add_row(name, streams, number(rate["median"]), f"{rate['min']:,.0f}–{rate['max']:,.0f}", *cells)
            latency.add_row(
                name,
                streams,
                f"{level['first_text_p50_s']['median']:.3f} / {level['first_text_p99_s']['median']:.3f} s",
                f"{level['answer_p50_s']['median']:.2f} / {level['answer_p99_s']['median']:.2f} s",
                f"{level['longest_gap_s']['median']:.3f} s",
            )
    found = [
        f"{label} {own['server_memory_mb']:,.0f} MB" for label, own in servers.items() if "server_memory_mb" in own
    ]
    latency.caption = _line(f"peak memory: {', '.join(found)}") if found else None
    return [speed, latency]


def _ceiling(record: Record) -> list[Table]:
    """GFLOP/s of the matrix product by size."""
    sizes = list(record["by_size"]["fp32"])
    table = _table("Matrix product, GFLOP/s", "numbers", *(f"{size}²" for size in sizes), "best")
    for name, rates in record["by_size"].items():
        cells = (number(rates[size]) if size in rates else "–" for size in sizes)
        table.add_row(name, *cells, f"[bold]{number(record['gflops'][name])}[/]")
    table.caption = _line(f"{_machine(record)}\nmemory read at {record['read_gb_per_s']:.1f} GB/s")
    return [table]


def _loss_memory(record: Record) -> list[Table]:
    """Peak memory of the loss head for each chunk size."""
    title = (
        f"Loss head, forward and backward: {record['vocabulary']:,} ids, {record['tokens']:,} tokens, "
        f"{record['width']} wide, fp32"
    )
    table = _table(title, "tokens at once", "peak MB", "over the start, MB", "logits held, MB", "seconds")
    for one in record["variants"]:
        held = min(one["chunk_size"] or record["tokens"], record["tokens"])
        table.add_row(
            f"{one['chunk_size']:,}" if one["chunk_size"] else "all",
            f"{one['peak_mb']['median']:,.0f}",
            f"{one['rise_mb']['median']:,.0f}",
            f"{held * record['vocabulary'] * 4 / 1e6:,.0f}",
            f"{one['seconds']['median']:.2f}",
        )
    return [table]


def _growth(record: Record) -> list[Table]:
    """Every point, and how far the points are from a straight line."""
    found = []
    for plot in record["plots"]:
        table = _table(f"{plot['y']}: {plot['shape']}", plot["x"], "measured")
        for x, y in zip(plot["xs"], plot["ys"], strict=True):
            table.add_row(f"{x:,}", f"{y:.3g}")
        line = plot["straight"]
        table.caption = _line(
            f"growth x^{line['exponent']:.2f}; at most {line['largest_error']:.0%} from a straight line"
        )
        found.append(table)
    return found


_TABLES: dict[str, Callable[[Record], list[Table]]] = {
    "train": _comparison,
    "generate": _comparison,
    "to-loss": _to_loss,
    "serve": _serving,
    "ceiling": _ceiling,
    "loss-memory": _loss_memory,
    "growth": _growth,
}


def number(value: float) -> str:
    """At least three digits, thousands with commas: 18,123 or 35.2."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _name(one: Record) -> str:
    return f"[bold]{one['label']}[/]" if one["ours"] else str(one["label"])


def _machine(record: Record) -> str:
    return str((record.get("environment") or {}).get("device_name", "unknown machine"))


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False, title_justify="left", caption_justify="left")
    table.title = _line(title, style="table.title") if title else None
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _line(text: str, *, style: str = "table.caption") -> Text:
    """A title or caption that may be wider than its table."""
    return Text(text, style=style, no_wrap=True, overflow="ignore")
