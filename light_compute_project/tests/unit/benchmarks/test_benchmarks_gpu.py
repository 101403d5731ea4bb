"""The GPU command without a GPU: what it judges, what it leaves out, and the whole of it as a rehearsal on the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks import gpu
from benchmarks.gpu import Claim, page, run_gpu
from benchmarks.options import BenchmarkOptions, parse

from litgpt_core.core.errors import EnvironmentProblem


def options(tmp_path: Path, *arguments: str) -> BenchmarkOptions:
    given = ["gpu", "--dry_run", "--out", str(tmp_path / "gpu.json"), *arguments]
    return parse(given, description="", command="benchmark gpu --dry_run")


def works(options: BenchmarkOptions, folder: Path) -> Iterator[Claim]:
    assert folder.is_dir() and options.device == "cpu"
    yield Claim(stage="", name="sum", expected="2", found="2", held=True)
    yield Claim(stage="", name="rate", expected="", found="5 tokens/s | fast", held=None)


def breaks(options: BenchmarkOptions, folder: Path) -> Iterator[Claim]:
    yield Claim(stage="", name="start", expected="yes", found="yes", held=True)
    raise EnvironmentProblem("lcp train ended with 1:\nOutOfMemoryError: 2 GiB")


def test_a_stage_that_breaks_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STAGES", {"first": (1, breaks), "second": (1, works)})
    assert run_gpu(options(tmp_path), folder=tmp_path / "work") == []
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    told = [(claim["stage"], claim["name"], claim["held"]) for claim in record["claims"]]
    assert told == [
        ("first", "start", True),
        ("first", "runs to its end", False),
        ("second", "sum", True),
        ("second", "rate", None),
    ]
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "2 held, 1 did not, 1 were not judged" in text and "OutOfMemoryError: 2 GiB | **did not hold** |" in text
    assert "5 tokens/s / fast" in text, "no cell ends early"


def test_a_stage_without_enough_time_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STAGES", {"long": (1000, works), "short": (1, lambda options, folder: iter([]))})
    monkeypatch.setattr(gpu, "check_gpu", lambda: "NVIDIA H200")
    given = options(tmp_path, "--minutes", "1")
    given.dry_run = False
    run_gpu(given, folder=tmp_path / "work")
    record: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert record["device"] == "NVIDIA H200"
    (claim,) = record["claims"]
    assert claim["held"] is None and "about 1000 s are needed" in claim["found"]


@pytest.mark.parametrize(("mfu", "held"), [(0.52, True), (0.48, False), (None, None)])
def test_speed_is_judged_by_the_data_sheet_and_not_in_a_rehearsal(mfu: float | None, held: bool | None) -> None:
    assert gpu._speed("gpu_124m", "9 tokens/s", mfu, dry=False).held is held
    assert gpu._speed("gpu_124m", "9 tokens/s", mfu, dry=True).held is None


def test_only_more_memory_than_estimated_is_wrong() -> None:
    arguments = ["+experiment=bench_gpu_124m"]
    assert gpu._peak(arguments, 1e9).held
    beyond = gpu._peak(arguments, 1e12)
    assert not beyond.held and "GB + 10 %" in beyond.expected


def test_the_page_of_nothing() -> None:
    record = {"device": "x", "seconds": 1.0, "command": "c", "date": "d", "git": {"commit": "abc"}, "claims": []}
    assert "0 held, 0 did not" in page(record)


@pytest.mark.nightly
def test_the_whole_command_as_a_rehearsal(tmp_path: Path) -> None:
    """Real processes: checks, a run that is stopped and resumed, two training benchmarks, decoding."""
    run_gpu(options(tmp_path), folder=tmp_path / "work")
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [claim for claim in record["claims"] if claim["held"] is False] == []
    assert {claim["stage"] for claim in record["claims"]} == set(gpu.STAGES)
    assert sum(claim["held"] is True for claim in record["claims"]) >= 10
