"""Medians, spreads, ratios, what the JSON holds, and what is made from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.charts import draw
from benchmarks.command import record_path
from benchmarks.options import parse
from benchmarks.record import portable, spread, write_record
from benchmarks.tables import number, tables
from rich.console import Console

from litgpt_core.core.checkout import PROJECT_DIR

Make = Callable[..., dict[str, Any]]
METRICS = sorted((PROJECT_DIR / "metrics").glob("benchmark-*.json"))
RATES = {"ours": [1000.0, 3000.0, 2000.0], "peer": [500.0, 1000.0, 2000.0]}


def printed(*tables: object) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    for table in tables:
        console.print(table)
    return console.export_text()


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_ratios_are_formed_within_a_round(make_record: Make) -> None:
    """The ratio of the medians would be 2.0 too; the rounds' own ratios are 2, 3 and 1."""
    ratio = make_record(RATES)["ratios"]["ours"]["peer"]
    assert ratio == {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": [2.0, 3.0, 1.0]}
    uneven = make_record({"ours": [100.0, 10.0, 30.0], "peer": [10.0, 100.0, 20.0]})["ratios"]["ours"]["peer"]
    assert uneven["median"] == 1.5 and uneven["min"] == 0.1


def test_only_ours_get_ratios_and_variants_are_compared_with_each_other(make_record: Make) -> None:
    ratios = make_record({"ours": [10.0], "ours-fp32": [5.0], "peer": [2.0]})["ratios"]
    assert set(ratios) == {"ours", "ours-fp32"}
    assert ratios["ours"]["ours-fp32"]["median"] == 2.0
    assert ratios["ours-fp32"]["peer"]["median"] == 2.5


def test_arithmetic_and_ceilings_by_number_type(make_record: Make) -> None:
    ours, peer = make_record(RATES)["contestants"]
    assert ours["gflops"] == pytest.approx(2000 * 2e6 / 1e9)
    assert ours["ceiling_share"] == pytest.approx(4.0 / 400)
    assert peer["ceiling_share"] == pytest.approx(2.0 / 200)
    assert ours["mfu"] is None and ours["read_share"] is None


def test_decoding_is_set_against_memory(make_record: Make) -> None:
    ours, peer = make_record(RATES, kind="generate", weights_read_per_token=1_000_000)["contestants"]
    assert ours["weight_gb_per_s"] == pytest.approx(2000 * 1e6 * 2 / 1e9)
    assert ours["read_share"] == pytest.approx(4.0 / 40)
    assert peer["weight_gb_per_s"] == pytest.approx(1000 * 1e6 * 4 / 1e9)


def test_the_json_keeps_every_raw_number_and_where_it_came_from(make_record: Make, tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "result.json"
    write_record(make_record(RATES), path)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert {"format", "kind", "date", "command", "git", "peers", "work", "environment", "order"} <= set(record)
    assert record["order"][:2] == [[1, "ours"], [1, "peer"]]
    trials = record["contestants"][0]["laps"]
    assert [one["tokens_per_s"] for one in trials] == RATES["ours"]
    assert trials[0]["raw_s"] == [0.1, 0.2] and trials[0]["command"] == ["python", "ours"]
    assert record["contestants"][0]["wall_s"] == {"first": 10.0, "later_median": 10.0}
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_tables_fit_a_terminal_and_are_sorted(make_record: Make) -> None:
    text = printed(*tables(make_record({"ours": [1500.0, 1600.0], "snail": [10.0, 20.0], "hare": [3000.0, 3200.0]})))
    assert text.index("hare") < text.index("ours  ") < text.index("snail")
    assert "0.50x (0.50–0.50)" in text and "115.00x" in text
    assert "…" not in text
    assert "123,456 parameters" in text


def test_the_table_of_generation_tells_the_first_token(make_record: Make) -> None:
    record = make_record(RATES, kind="generate", weights_read_per_token=1_000_000)
    record["contestants"][0]["numbers"] = {
        "first_token_s": {"median": 0.0123},
        "start_to_first_s": {"median": 4.1},
        "decode_tokens_per_s": {"median": 2100.0},
    }
    text = printed(*tables(record))
    assert "12.3" in text and "4.1" in text and "2,100" in text and "…" not in text


def test_numbers_keep_three_digits() -> None:
    assert [number(value) for value in (18123.4, 999.6, 35.21, 0.5)] == ["18,123", "999.6", "35.21", "0.5"]


def test_the_other_tables(make_record: Make) -> None:
    record = make_record(RATES)
    found = {
        "kind": "ceiling",
        "gflops": record["ceiling_gflops"],
        "by_size": record["ceiling_by_size"],
        "read_gb_per_s": 40.0,
        "environment": record["environment"],
    }
    assert "1024²" in (text := printed(*tables(found))) and "40.0 GB/s" in text
    found["by_size"]["fp32"]["2048"] = 190.0  # bf16 was too slow to go on
    assert "190" in (text := printed(*tables(found))) and "–" in text
    variant = {name: spread([value]) for name, value in (("peak_mb", 800.0), ("rise_mb", 300.0), ("seconds", 1.5))}
    memory = {
        "kind": "loss-memory",
        "vocabulary": 128_256,
        "tokens": 1000,
        "width": 64,
        "variants": [{"chunk_size": 0, **variant}, {"chunk_size": 100, **variant}],
    }
    text = printed(*tables(memory))
    assert "513" in text and " 51 " in text  # MB of logits: 1,000 or 100 rows of 128,256 fp32 numbers


def test_the_chart_is_a_png(make_record: Make, tmp_path: Path) -> None:
    draw(make_record(RATES), tmp_path / "chart.png")
    content = (tmp_path / "chart.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 10_000


@pytest.mark.parametrize("path", METRICS, ids=lambda path: path.stem)
def test_committed_records_are_still_printed_and_drawn(path: Path, tmp_path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    text = printed(*tables(record))
    for one in [*record.get("contestants", ()), *record.get("levels", ())]:
        assert str(one.get("label", one.get("streams"))) in text
        rates = one["tokens_per_s"] if record["kind"] != "to-loss" else record["losses"][one["label"]]
        assert f"{rates['median']:,.0f}" in text or f"{rates['median']:,.4g}" in text
    assert "…" not in text
    draw(record, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").is_file() == (record["kind"] != "serve")


@pytest.mark.parametrize(
    ("arguments", "subject", "name"),
    [
        ("train", "small", "metrics/benchmark-train-small.json"),
        ("to-loss", "shakespeare_char", "metrics/benchmark-to-loss-shakespeare_char.json"),
        ("serve", "10m", "metrics/benchmark-serve-10m.json"),
        ("ladder", "gpu_124m", "metrics/benchmark-gpu-124m.json"),
        ("ladder --out x/gpu.json", "gpu_1b", "x/gpu-1b.json"),
        ("loss-memory", None, "metrics/benchmark-loss-memory.json"),
        ("ceiling --out x.json", None, "x.json"),
    ],
)
def test_a_record_has_its_place(arguments: str, subject: str | None, name: str) -> None:
    record = {"work": {"name": subject}} if subject else {}
    assert record_path(record, parse(arguments.split(), description="")) in (Path(name), PROJECT_DIR / name)


def test_a_ceiling_is_written_only_on_request() -> None:
    assert record_path({"kind": "ceiling"}, parse(["ceiling"], description="")) is None


def test_commands_are_written_without_the_places_of_this_machine(tmp_path: Path) -> None:
    script = PROJECT_DIR / "scripts" / "train.py"
    words = [sys.executable, str(script), "+experiment=x", f"--dir={tmp_path}/nano", "--rate=1e-3", str(tmp_path)]
    assert portable(words) == [
        *("python", "light_compute_project/scripts/train.py", "+experiment=x", "--dir=nano", "--rate=1e-3"),
        tmp_path.name,
    ]
    write_record({"command": f"python {script} --out {tmp_path}/x.json"}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["command"] == (
        "python light_compute_project/scripts/train.py --out x.json"
    )


def test_growth_says_how_far_points_are_from_a_straight_line() -> None:
    from benchmarks.growth import straight_line

    straight = straight_line([1, 2, 4, 8], [5.0, 7.0, 11.0, 19.0])  # 3 + 2 x
    assert straight["intercept"] == pytest.approx(3) and straight["slope"] == pytest.approx(2)
    assert straight["largest_error"] < 1e-9
    square = straight_line([1, 2, 4, 8], [1.0, 4.0, 16.0, 64.0])
    assert square["largest_error"] > 0.3 and square["exponent"] == pytest.approx(2)


def test_growth_is_printed_and_drawn(tmp_path: Path) -> None:
    from benchmarks.growth import _plot

    names = ("tokens per step", "layers", "tokens in the context", "vocabulary", "vocabulary")
    plots = [
        _plot(x, [1, 2, 4], [2.0, 3.0, 5.0], y="seconds of a step", shape=f"shape {i}") for i, x in enumerate(names)
    ]
    record = {"kind": "growth", "plots": plots, "date": "2026-11-30", "environment": {"device_name": "a processor"}}
    shown = printed(*tables(record))
    assert shown.count("from a straight line") == 5 and "at most 0%" in shown
    draw(record, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
