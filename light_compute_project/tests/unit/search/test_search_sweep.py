"""A sweep is the grid of its swept values: named runs, one record, and a command that may be typed again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.search import plots, sweep, trials
from litgpt_core.search.findings import SearchResults
from litgpt_core.search.results import over_seeds
from litgpt_core.search.sweep_grid import SweepGrid, make_grid
from litgpt_core.search.trial_store import TrialFacts

FIXED = ["+experiment=smoke", "logger=none", "trainer.max_steps=20", "trainer.eval_interval=5", "run.name=s"]
RUN_SWEEP = """
import pathlib, sys
from litgpt_core.search.sweep import sweep
sys.exit(sweep(sys.argv[1:], script=pathlib.Path("train.py")))
"""


def names(*overrides: str) -> list[str]:
    return [point.name for point in make_grid(["+experiment=smoke", *overrides]).points]


# ---- the grid ----


def test_the_grid_is_complete_and_names_are_distinct() -> None:
    grid = make_grid(["experiment=smoke", "optim.lr=1e-3,3e-3", "seed=1,2", "logger=none"])
    assert [point.values for point in grid.points] == [
        {"optim.lr": "0.001", "seed": "1"},
        {"optim.lr": "0.001", "seed": "2"},
        {"optim.lr": "0.003", "seed": "1"},
        {"optim.lr": "0.003", "seed": "2"},
    ]
    assert [point.config.seed for point in grid.points] == [1, 2, 1, 2]
    assert grid.points[0].name == "smoke-lr_0.001-seed_1" == grid.points[0].config.run.name
    assert len({point.name for point in grid.points}) == 4
    assert all({"experiment=smoke", "logger=none"} <= {*point.overrides} for point in grid.points)
    assert grid.name == "smoke-sweep" and grid.folder == Path("runs/smoke-sweep")


def test_a_given_name_is_the_base_and_a_swept_name_is_kept() -> None:
    assert names("run.name=x", "seed=1,2") == ["x-seed_1", "x-seed_2"]
    assert names("run.name=a,b") == ["a", "b"]
    assert names("run.name=a,b", "seed=1,2") == ["a-seed_1", "a-seed_2", "b-seed_1", "b-seed_2"]
    assert make_grid(["+experiment=smoke", "run.name=a,b"]).name == "smoke-sweep"


def test_lists_are_values_not_axes_and_functions_are_understood() -> None:
    assert len(names("optim.betas=[0.9,0.95]")) == 1
    assert names("optim.betas=[0.9,0.95],[0.9,0.99]") == ["smoke-betas_-0.9-0.95", "smoke-betas_-0.9-0.99"]
    assert names("model.n_layer=range(1,6,2)") == [f"smoke-n_layer_{n}" for n in (1, 3, 5)]
    assert names("model=choice(tiny,nano_cpu)") == ["smoke-model_tiny", "smoke-model_nano_cpu"]


def test_long_names_are_cut_and_stay_distinct() -> None:
    long = names(f"run.name={'x' * 150}", "seed=1,2")
    assert len({*long}) == 2 and all(len(name) == 120 for name in long)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1,1", "stand in this sweep twice: smoke-seed_1"),
        ("optim.lr=interval(1e-4,1e-2)", r"no end of values\n.*\n.*lcp search"),
        ("trainer.max_steps=10,0", r"trainer\.max_steps=0"),
        ("trainer.max_stesp=10,20", r"did you mean .*max_steps"),
    ],
)
def test_mistakes_are_named_before_anything_runs(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_grid(["+experiment=smoke", override])


# ---- what is found ----


def found_by(grid: SweepGrid, results: dict[str, float | None]) -> SearchResults:
    trials = []
    for point in grid.points:
        value = results.get(point.name)
        state: Any = "failed" if value is None else "done"
        trials.append(TrialFacts(number=None, name=point.name, params=point.values, state=state, value=value))
    return sweep.findings_of(grid, trials, command="")


def test_runs_are_ranked_by_loss_and_seeds_are_taken_together() -> None:
    grid = make_grid(["+experiment=smoke", "optim.lr=1e-3,3e-3", "seed=1,2,3"])
    losses = dict(zip((point.name for point in grid.points), (3.0, 3.2, 3.4, 2.0, 4.0, None), strict=True))
    found = found_by(grid, losses)
    assert [trial.value for trial in found.ranked] == [2.0, 3.0, 3.2, 3.4, 4.0, None]
    first, second = over_seeds(found)
    assert first["values"] == {"optim.lr": "0.003"} and first["seeds"] == 2 and first["mean"] == 3.0
    assert first["std"] == pytest.approx(2**0.5) and (first["min"], first["max"]) == (2.0, 4.0)
    assert second["mean"] == pytest.approx(3.2) and second["std"] == pytest.approx(0.2)
    assert found.metric == "val_loss"


def test_tokenizers_are_compared_in_bits_per_byte() -> None:
    grid = make_grid(["+experiment=smoke", "tokenizer=bpe", "tokenizer.vocab_size=300,400"])
    assert found_by(grid, {}).metric == "val_bpb"


def test_the_picture_goes_along_the_axis_that_says_most() -> None:
    grid = make_grid(["+experiment=smoke", "model=tiny,nano_cpu", "optim.lr=1e-3,2e-3,3e-3", "seed=1,2,3,4"])
    assert plots.main_axis(found_by(grid, {})) == "optim.lr"
    assert plots.main_axis(found_by(make_grid(["+experiment=smoke", "seed=1,2"]), {})) is None
    assert plots.is_logarithmic([1e-3, 1e-2]) and not plots.is_logarithmic([1, 2, 3])
    assert plots.is_logarithmic([2, 4, 8]) and not plots.is_logarithmic([0.1, 0.2, 0.3])
    assert not plots.is_logarithmic([0, 10]) and not plots.is_logarithmic([2])


# ---- carried out ----


@pytest.fixture
def run(fake_train: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A sweep of the stand-in for train.py; pictures are drawn by one test only, because they take long."""
    monkeypatch.setattr(plots, "draw", lambda *arguments: False)
    monkeypatch.setenv("FAKE_STEP_S", "0")
    monkeypatch.setenv("FAKE_CONFIG", "1")
    return lambda *overrides: sweep.sweep([*FIXED, *overrides], script=fake_train)


def told(name: str = "s-sweep") -> dict[str, Any]:
    content = json.loads((Path("runs") / name / "sweep.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def states() -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in told()["runs"]}


def starts(name: str) -> list[int]:
    """Steps at which a run was started or continued."""
    return [int(line.split()[1]) for line in (Path("runs") / name / "starts").read_text().splitlines()]


def test_a_sweep_leaves_a_record_and_typed_again_starts_nothing(run: Callable[..., int]) -> None:
    assert run("optim.lr=0.01,0.1", "seed=1,4") == 0
    content = told()
    assert states() == dict.fromkeys((f"s-lr_{lr}-seed_{seed}" for lr in (0.01, 0.1) for seed in (1, 4)), "done")
    assert content["best"]["name"] == "s-lr_0.01-seed_1" and content["best"]["val_loss"] == pytest.approx(1.0)
    numbers = {"seeds": 2, "std": 0.0, **dict.fromkeys(("mean", "min", "max"), pytest.approx(1.0))}
    assert content["over_seeds"][0] == {"values": {"optim.lr": "0.01"}, **numbers}
    assert content["axes"] == {"optim.lr": ["0.01", "0.1"], "seed": ["1", "4"]}
    assert {path.name for path in Path("runs/s-sweep").iterdir()} == {".lock", "sweep.db", "sweep.json"}
    assert run("optim.lr=0.01,0.1", "seed=1,4") == 0
    assert starts("s-lr_0.01-seed_1") == [0] and told()["runs"] == content["runs"]


def test_runs_that_fail_are_recorded_and_the_others_still_run(run: Callable[..., int], fake_train: Path) -> None:
    assert run("seed=3,1,2", "optim.lr=0.01,5.0") == 1, "the exit code is the first failure's"
    assert [*states().values()] == ["failed", "failed", "done", "diverged", "failed", "failed"]
    problems = [entry["problem"] for entry in told()["runs"]]
    assert problems == ["", "", "", "the loss (nan) became infinite", *["no such checkpoint"] * 2]
    assert [entry["exit_code"] for entry in told()["runs"]] == [1, 1, 0, 2, 2, 2]
    fake_train.write_text(fake_train.read_text().replace("raise RuntimeError", "pass #"))
    run("seed=3,1,2", "optim.lr=0.01,5.0")
    assert [*states().values()] == ["done", "diverged", "done", "diverged", "failed", "failed"]
    assert len(starts("s-seed_1-lr_5.0")) == 1, "what diverged would do so again"


def test_another_grid_under_the_same_name_is_refused(run: Callable[..., int]) -> None:
    run("optim.lr=0.01,0.1")
    for changed, line in (
        (["optim.lr=0.01,0.2"], r"optim\.lr: 0\.01, 0\.1 -> 0\.01, 0\.2"),
        (["optim.lr=0.01,0.1", "seed=1,2"], r"seed: \(not swept\) -> 1, 2"),
        (["optim.lr=0.01", "seed=1,2"], r"optim\.lr: 0\.01, 0\.1 -> \(not swept\)"),
    ):
        with pytest.raises(ConfigError, match=line) as caught:
            run(*changed)
        assert "run.name=s-2" in str(caught.value)
    assert run("optim.lr=0.1,0.01") == 0, "the order of the values does not matter"


def test_other_fixed_settings_are_refused_and_more_steps_continue(run: Callable[..., int]) -> None:
    run("optim.lr=0.01,0.1")
    with pytest.raises(ConfigError, match=r"model\.n_embd: 64 -> 32\n.*\n.*run\.name=s-2"):
        run("optim.lr=0.01,0.1", "model.n_embd=32")
    assert run("optim.lr=0.01,0.1", "trainer.max_steps=30") == 0
    assert starts("s-lr_0.01") == [0, 20] and [entry["result"]["step"] for entry in told()["runs"]] == [30, 30]


def test_used_folders_are_taken_in_only_if_asked(run: Callable[..., int]) -> None:
    run("seed=1")
    Path("runs/s-sweep/sweep.json").unlink()
    with pytest.raises(ConfigError, match=r"runs/s is in use, and this sweep did not make it\n.*\n.*run\.resume=auto"):
        run("seed=1")
    assert run("seed=1", "run.resume=auto") == 0 and starts("s") == [0]


def test_a_folder_of_something_else_is_refused(run: Callable[..., int]) -> None:
    Path("runs/s-sweep").mkdir(parents=True)
    Path("runs/s-sweep/metrics.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="something else than a sweep"):
        run("seed=1,2")
    Path("runs/s-sweep/metrics.jsonl").unlink()
    Path("runs/s-sweep/sweep.json").write_text('{"runs"')
    with pytest.raises(ConfigError, match="cannot be read as the record of a sweep"):
        run("seed=1,2")


def test_a_sweep_of_an_earlier_version_is_continued(run: Callable[..., int], fake_train: Path) -> None:
    """It kept `sweep.json` alone, and counted `sittings`."""
    assert run("seed=1,2", "optim.lr=0.01,5.0") == 2
    entries = [
        {"name": one["name"], "values": one["params"], "overrides": one["overrides"], "state": one["state"]}
        | {"sittings": one["sessions"], "exit_code": one["exit_code"], "problem": one["problem"], "result": {}}
        for one in told()["runs"]
    ]
    record = {"name": "s-sweep", "command": "", "axes": told()["axes"], "metric": "val_loss", "runs": entries}
    Path("runs/s-sweep/sweep.json").write_text(json.dumps(record))
    Path("runs/s-sweep/sweep.db").unlink()
    fake_train.write_text(fake_train.read_text().replace("if seed == 2:", "if seed == 99:"))
    assert run("seed=1,2", "optim.lr=0.01,5.0") == 2, "what diverged is not tried again"
    assert [*states().values()] == ["done", "diverged", "done", "diverged"]
    assert [len(starts(f"s-seed_{seed}-lr_{lr}")) for seed in (1, 2) for lr in (0.01, 5.0)] == [1, 1, 2, 2]
    assert [one["sessions"] for one in told()["runs"]] == [1, 1, 2, 2]


def test_several_at_a_time(run: Callable[..., int], fake_train: Path) -> None:
    """Every run waits until all three have begun."""
    wait = "while len([*pathlib.Path('runs').glob('*/starts')]) < 3: time.sleep(0.01)\nloss = None\n"
    fake_train.write_text(fake_train.read_text().replace("loss = None\n", wait))
    assert run("seed=1,4,5", "sweep.jobs=3") == 0
    assert [*states().values()] == ["done"] * 3
    assert Path("runs/s-sweep/output/s-seed_4.txt").read_text() == "done\n"
    with pytest.raises(ConfigError, match=r"sweep\.jobs=two"):
        run("seed=1,2", "sweep.jobs=two")


def test_each_of_several_gets_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    share = sweep.share_of_machine
    assert share(0, jobs=2, devices=[]) == {"OMP_NUM_THREADS": "4"}
    devices = [share(place, jobs=2, devices=["0", "1", "2"])["CUDA_VISIBLE_DEVICES"] for place in (0, 1)]
    assert devices == ["0,2", "1"]
    assert share(2, jobs=3, devices=["5", "7"])["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert share(0, jobs=2, devices=[]) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert sweep.visible_devices() == ["2", "3"]


def test_several_processes_of_a_sweep_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="several processes"):
        sweep.sweep([*FIXED, "seed=1,2"])


# ---- ended early ----


def wait_for(condition: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.serial
@pytest.mark.skipif(sys.platform != "linux", reason="Linux signals the end of a parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)])
def test_a_sweep_that_ends_early_goes_on_where_it_was(run: Callable[..., int], number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_SWEEP, *FIXED, "seed=1,4,5"], env={**os.environ, "FAKE_STEP_S": "0.1"}
    )
    second = Path("runs/s-seed_4")
    wait_for(
        lambda: (second / "metrics.jsonl").is_file() and (second / "metrics.jsonl").stat().st_size > 0, what="no row"
    )
    child = int((second / "starts").read_text().split()[0])
    process.send_signal(number)
    assert process.wait(60) == {signal.SIGKILL: -9, signal.SIGTERM: 143}[number]
    wait_for(lambda: not is_alive(child), what="the child outlived the sweep")
    assert (second / "checkpoints" / "step").exists(), "it has saved"
    expected = {signal.SIGKILL: "running", signal.SIGTERM: "stopped"}[number]
    assert [*states().values()] == ["done", expected, "waiting"] and not Path("runs/s-seed_5").exists()

    assert run("seed=1,4,5") == 0 and [*states().values()] == ["done"] * 3
    assert starts("s-seed_1") == [0] and len(starts("s-seed_4")) == 2 and starts("s-seed_4")[1] >= 5
    rows = [json.loads(line)["step"] for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert rows == [5, 10, 15, 20]
    assert not list(Path("runs/s-sweep").glob(".running*")) and not list(Path("runs/s-sweep").glob(".ending*"))


@pytest.mark.parametrize(("number", "code", "asks"), [(15, 143, True), (2, 130, False)])
def test_stopping_one_run_stops_the_sweep_and_a_queue_is_asked_for_another_turn(
    run: Callable[..., int], fake_train: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, asks: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(trials, "request_requeue", lambda: asked.append(True))
    end = f"loss = None\nos.kill(os.getpid(), {number})\n"
    fake_train.write_text(fake_train.read_text().replace("loss = None\n", end))
    assert run("seed=1,4") == code
    assert [*states().values()] == ["stopped", "waiting"] and bool(asked) == asks


def test_neither_a_sweep_nor_a_study_loads_torch(tmp_path: Path) -> None:
    """The parent of many runs takes no memory from them, and answers at once when nothing is left to do."""
    code = (
        "import sys, litgpt_core.search.study, litgpt_core.search.results, litgpt_core.search.sweep as s\n"
        "s.make_grid(['+experiment=smoke', 'seed=1,2'])\n"
        "print([name for name in ('torch', 'lightning', 'wandb', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
