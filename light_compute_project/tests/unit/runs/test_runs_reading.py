"""Run folders are found, sorted, compared and drawn, by the library and by the command."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from litgpt_core import runs
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.runs.command import main


def make_run(
    folder: Path, *, lr: float, losses: list[float], val_loss: float | None = None, max_steps: int = 30
) -> Path:
    """A run with a row every ten steps, ten tokens and half a second each step; finished if it has a `val_loss`."""
    folder.mkdir(parents=True)
    config = {
        "seed": 1,
        "optim": {"lr": lr},
        "model": {"n_layer": 2},
        "trainer": {"max_steps": max_steps, "patience": None, "min_delta": 0.0},
        "run": {"name": folder.name},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    (folder / "environment.json").write_text(json.dumps({"recorded_at": "2026-11-29T12:16:22+00:00"}))
    rows = [
        {"step": n * 10, "tokens": n * 100, "elapsed_s": n * 5.0, "val_loss": loss, "train_loss": loss + 1}
        for n, loss in enumerate(losses, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4')
    if val_loss is not None:
        whole = {"val_loss": val_loss, "val_bpb": val_loss / 2}
        summary = {"final": rows[-1], "best": rows[-1], "whole_split": whole, "train_s": 75.0, "n_params": 1234}
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "final").mkdir()
        (folder / "final" / "config.yaml").write_text("{}")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs, one of them unfinished, and a trial of a study."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    make_run(Path("runs/slow"), lr=1e-4, losses=[5.0, 4.0, 3.5], val_loss=3.5)
    make_run(Path("runs/fast"), lr=1e-3, losses=[4.0, 3.0, 2.5], val_loss=2.5)
    make_run(Path("runs/broken-off"), lr=1e-2, losses=[3.0, 2.9])
    make_run(Path("runs/s-study/s-study-000"), lr=1e-3, losses=[4.0, 3.0, 2.75], val_loss=2.75)
    Path("runs/no-run").mkdir()
    return tmp_path


def test_runs_are_found_with_those_of_studies_and_without_their_checkpoints(here: Path) -> None:
    assert [run.name for run in runs.find("runs")] == ["broken-off", "fast", "s-study-000", "slow"]
    assert [run.state for run in runs.find("runs")] == ["unfinished", "finished", "finished", "finished"]
    assert [run.name for run in runs.resolve(["s*", "runs/fast"])] == ["s-study-000", "slow", "fast"]
    with pytest.raises(ConfigError, match="did you mean slow"):
        runs.resolve(["slwo"])
    with pytest.raises(ConfigError, match="there is no folder elsewhere"):
        runs.find("elsewhere")


def test_a_run_is_finished_by_its_own_settings(here: Path) -> None:
    make_run(Path("runs/longer"), lr=1e-3, losses=[4.0, 3.0, 2.5], val_loss=2.5, max_steps=60)
    [run] = runs.resolve(["longer"])
    assert run.state == "unfinished", "its config asks for 60 steps, its summary is that of 30"


def test_values_have_short_and_dotted_names(here: Path) -> None:
    [fast, unfinished] = runs.resolve(["fast", "broken-off"])
    assert (fast.get("val_loss"), fast.get("lr"), fast.get("optim.lr"), fast.get("best.val_loss")) == (
        *(2.5, 1e-3, 1e-3, 2.5),
    )
    assert fast.get("no.such") is None and fast.get("started").startswith("2026-11-29")
    assert (unfinished.get("step"), unfinished.get("val_loss")) == (20, None)


def test_curves_run_along_steps_tokens_or_time(here: Path) -> None:
    [run] = runs.resolve(["broken-off"])
    assert run.curve("val_loss") == [(10, 3.0), (20, 2.9)]
    assert run.curve("train_loss", x="tokens") == [(100, 4.0), (200, 3.9)]
    assert [x for x, _ in run.curve(x="time")] == [5.0, 10.0]
    with pytest.raises(ConfigError, match="did you mean val_loss"):
        run.curve("val_lss")
    with pytest.raises(ConfigError, match="there are: flops, steps, time, tokens"):
        run.curve(x="epochs")


def test_the_best_has_the_smallest_value_or_the_largest(here: Path) -> None:
    found = runs.find("runs")
    assert runs.best(found).name == "fast" and runs.best(found, largest=True).name == "slow"
    assert runs.best(found, by="optim.lr", largest=True).name == "broken-off"
    with pytest.raises(ConfigError, match="none of 4 runs has a number 'val_los'; did you mean val_loss"):
        runs.best(found, by="val_los")


def test_rows_are_sorted_and_runs_without_a_value_come_last(here: Path) -> None:
    found = runs.find("runs")
    up = runs.rows(found, columns=["name", "val_loss"], sort="val_loss")
    assert [row["name"] for row in up] == ["fast", "s-study-000", "slow", "broken-off"]
    down = runs.rows(found, columns=["name"], sort="val_loss", reverse=True)
    assert [row["name"] for row in down] == ["slow", "s-study-000", "fast", "broken-off"]
    with pytest.raises(ConfigError, match=r"no run has a value 'optm\.lr'; did you mean optim\.lr"):
        runs.rows(found, columns=["optm.lr"])


def test_settings_that_differ_leave_names_out(here: Path) -> None:
    assert runs.changed_settings(runs.resolve(["slow", "fast"])) == {"optim.lr": [1e-4, 1e-3]}
    assert runs.changed_settings(runs.resolve(["fast", "s-study-000"])) == {}


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["plot", "--help"], ["lst"]])
def test_help_and_slips_end_in_a_page_of_the_verbs(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    said = capsys.readouterr()
    assert end.value.code == (2 if words == ["lst"] else 0)
    assert ("--metric" if words[0] == "plot" else "compare") in said.out + said.err


def test_list_shows_every_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "list")
    assert all(word in shown for word in ("broken-off", "s-study-000", "unfinished", "2.5000", "1 min 15 s", "1,234"))
    assert "no runs in" in output(capsys, "list", "--dir", "runs/no-run")


def test_a_table_is_written_for_other_programs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["table", "s*", "--columns", "name,optim.lr,val_loss", "--sort", "val_loss"]
    found = list(csv.DictReader(io.StringIO(output(capsys, *words, "--format", "csv"))))
    assert found[0] == {"name": "s-study-000", "optim.lr": "0.001", "val_loss": "2.75"} and len(found) == 2
    assert json.loads(output(capsys, *words, "--format", "json"))[1]["val_loss"] == 3.5


@pytest.mark.parametrize("verb", ["compare", "diff"])
def test_compare_shows_settings_that_differ_and_results(
    here: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    shown = output(capsys, verb, "slow", "fast")
    assert "optim.lr" in shown and "0.0001" in shown and "n_layer" not in shown and "3.5000" in shown
    with pytest.raises(ConfigError, match="two or more"):
        main([verb, "slow"])


def test_best_names_the_run_and_its_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "best").splitlines() == ["fast: val_loss 2.5", "runs/fast"]
    assert output(capsys, "best", "--by", "val_bpb", "s*").splitlines()[1] == "runs/s-study/s-study-000"


def test_a_plot_has_a_curve_for_each_run_and_axes_for_each_metric(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "plot", "slow", "fast", "--metric", "val_loss,train_loss", "--x", "tokens", "--out", "a.svg")
    drawn = Path("a.svg").read_text()
    assert drawn.count("<!-- slow -->") == drawn.count("<!-- fast -->") == 2 and "training loss" in drawn
    assert runs.plot(runs.find("runs"), x="time", path="b.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"\.png, \.svg"):
        runs.plot(runs.find("runs"), path="c.txt")


def test_importing_and_listing_load_neither_torch_nor_matplotlib(here: Path) -> None:
    code = (
        "import sys\nfrom litgpt_core import runs\nfrom litgpt_core.runs.command import main\nmain(['list'])\n"
        "print([name for name in ('torch', 'lightning', 'matplotlib', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_folders_that_are_no_whole_runs_leave_values_out(here: Path) -> None:
    def write(name: str, text: str) -> Any:
        folder = Path("runs") / name
        folder.mkdir()
        (folder / "config.yaml").write_text(text)
        [run] = runs.resolve([name])
        return run

    for run in (write("empty", ""), write("wrong", "{a: ["), write("other", "[1]")):
        assert (run.state, run.get("val_loss"), run.curve(), run.config) == ("unfinished", None, [], {})


def with_tokenizer(name: str, tokenizer: str) -> None:
    path = Path("runs") / name / "config.yaml"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer": {"kind": tokenizer}}))


def test_bits_per_byte_are_compared_where_tokenizers_differ(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with_tokenizer("slow", "bpe")
    with_tokenizer("fast", "byte")
    assert output(capsys, "best", "slow", "fast").splitlines()[0] == "fast: val_bpb 1.25"
    assert output(capsys, "best", "slow").splitlines()[0] == "slow: val_loss 3.5"
    output(capsys, "plot", "slow", "fast", "--metric", "val_loss", "--out", "a.svg")
    assert "different tokenizers" in caplog.text


def test_flops_are_an_axis_where_a_run_knows_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = Path("runs/fast/summary.json")
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"flops_per_token": 6e3}))
    [fast, slow] = runs.resolve(["fast", "slow"])
    assert fast.curve(x="flops")[0] == (6e5, 4.0) and fast.get("flops") == 6e3 * 300
    assert slow.get("flops") is None
    with pytest.raises(ConfigError, match="--x tokens"):
        slow.curve(x="flops")
    output(capsys, "plot", "fast", "--x", "flops", "--out", "a.svg")
    assert "training FLOPs" in Path("a.svg").read_text()


def test_an_unfinished_run_tells_what_its_rows_know(here: Path) -> None:
    [run] = runs.resolve(["broken-off"])
    assert (run.get("best_val_loss"), run.get("train_s"), run.get("tokens")) == (2.9, 10.0, 200)


def test_a_sweep_or_study_is_named_by_its_folder(here: Path) -> None:
    assert [run.name for run in runs.resolve(["s-study"])] == ["s-study-000"]
    Path("runs/lr-sweep").mkdir()
    Path("runs/lr-sweep/sweep.json").write_text(json.dumps({"runs": [{"name": "fast"}, {"name": "waiting"}]}))
    assert [run.name for run in runs.resolve(["lr-swe*"])] == ["fast"]


def test_a_frame_needs_pandas_and_has_a_row_for_each_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pandas:
        DataFrame = list

    monkeypatch.setitem(sys.modules, "pandas", Pandas)
    assert [row["name"] for row in runs.frame(runs.find("runs"))] == ["broken-off", "fast", "s-study-000", "slow"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EnvironmentProblem, match="uv pip install pandas"):
        runs.frame(runs.find("runs"))


def test_old_runs_are_removed_after_yes_and_never_somebodys_files(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def aged(name: str, days: float) -> None:
        moment = time.time() - days * 86400
        for path in Path("runs", name).rglob("*"):
            os.utime(path, (moment, moment))

    Path("runs/slow/notes.md").write_text("mine")
    for name, days in (("slow", 40), ("fast", 40), ("broken-off", 2)):
        aged(name, days)
    shown = output(capsys, "rm", "--older_than", "30d")
    assert "runs/fast" in shown and "1 run" in shown and "--yes" in shown and "broken-off" not in shown
    assert "it holds notes.md" in shown and Path("runs/fast").exists()
    assert "removed 1 run" in output(capsys, "rm", "--older-than", "30d", "--yes")
    assert not Path("runs/fast").exists() and Path("runs/slow/notes.md").exists()
    assert "may still be training" in output(capsys, "rm", "s-study-000", "--yes")
    assert Path("runs/s-study/s-study-000").exists()
    with pytest.raises(ConfigError, match="--older_than 30d"):
        main(["rm"])
