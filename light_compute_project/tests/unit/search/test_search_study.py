"""A study continues where it was killed, proposes the same again, prunes, and tells a bad trial from a bad command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.config.compose import load
from litgpt_core.core.child_process import StopSignals
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.search import plots
from litgpt_core.search.study import Study, StudyRequest, run_study
from litgpt_core.search.study_store import SearchSettings, StudyStore

FIXED = ["+experiment=smoke", "logger=none", "trainer.max_steps=20", "trainer.eval_interval=5", "run.name=s"]
RATE = "optim.lr=tag(log,interval(1e-4,0.5))"


pytestmark = pytest.mark.usefixtures("no_picture")


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than studies here; `test_search_study_results.py` draws."""
    monkeypatch.setattr(plots, "draw", lambda *arguments: False)


def request(
    *overrides: str,
    trials: int | None = 4,
    name: str | None = None,
    timeout_s: float | None = None,
    fixed: Sequence[str] = FIXED,
    **search: Any,
) -> StudyRequest:
    return StudyRequest(
        overrides=[*fixed, *overrides],
        search=SearchSettings(**{"pruner": "none", **search}),
        trials=trials,
        name=name,
        timeout_s=timeout_s,
        command="study.py",
        script=Path("train.py"),
    )


def told(name: str = "s-study") -> dict[str, Any]:
    content = json.loads((Path("runs") / name / "study.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def states(name: str = "s-study") -> list[str]:
    return [trial["state"] for trial in told(name)["trials"]]


def starts(run: str) -> list[int]:
    """Steps at which a run was started or continued."""
    lines = (Path("runs") / "s-study" / run / "starts").read_text().splitlines()
    return [int(line.split()[1]) for line in lines]


def proposals(*overrides: str, number: int = 3, **search: Any) -> list[dict[str, Any]]:
    """What a study would propose while every trial's value is the learning rate."""
    study = Study(request(*overrides, **search))
    study.folder.mkdir(parents=True, exist_ok=True)
    found = []
    for _ in range(number):  # opened anew each time, as after a kill
        store = StudyStore(study.folder, space=study.space, config=study.config, settings=study.request.search)
        values, notes = store.suggest()
        found.append(values)
        trial = store.begin(values, notes)
        store.study.tell(trial, float(values.get("optim.lr", 1.0)))
    return found


# ---- a study from its beginning to its end ----


def test_a_study_leaves_its_trials_its_best_and_how_to_repeat_it(fake_train: Path) -> None:
    assert run_study(request(RATE)) == 0
    content = told()
    assert states() == ["done"] * 4 and [t["number"] for t in content["trials"]] == [0, 1, 2, 3]
    values = [t["value"] for t in content["trials"]]
    assert content["best"]["value"] == min(values) and len(set(values)) == 4
    assert [sorted(map(int, t["validations"])) for t in content["trials"]] == [[5, 10, 15, 20]] * 4
    folder = Path("runs/s-study")
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == {
        *(f"s-study-{number:03d}" for number in range(4)),
        *("output", "study.db", "study.json"),
    }
    command = content["best"]["command"].split()
    assert command[:4] == ["uv", "run", "lcp", "train"]
    config = load(command[4:])
    assert config.run.name == "s-study-best" and config.run.dir == "runs" and config.trainer.stop.max_steps == 20
    assert config.optim.lr == content["best"]["params"]["optim.lr"]


def test_more_trials_extend_a_study_and_as_many_as_before_start_nothing(fake_train: Path) -> None:
    run_study(request(RATE, trials=2))
    first = told()["trials"]
    assert run_study(request(RATE, trials=2)) == 0
    assert told()["trials"] == first and starts("s-study-000") == [0]
    run_study(request(RATE, trials=3))
    assert told()["trials"][:2] == first and states() == ["done"] * 3


def test_a_hopeless_trial_is_stopped_and_saved(fake_train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "0.03")
    rates = "optim.lr=0.01,0.02,0.4"  # the order of the grid follows from the seed
    assert run_study(request(rates, "seed=1339", trials=None, sampler="grid", pruner="median", startup=1)) == 0
    assert [trial["params"]["optim.lr"] for trial in told()["trials"]] == ["0.01", "0.4", "0.02"]
    assert states() == ["done", "pruned", "pruned"], "both are worse at step 5 than the first was"
    pruned = told()["trials"][1:]
    for trial in pruned:
        assert list(trial["validations"]) == ["5"] and trial["value"] == trial["validations"]["5"]
        saved = int((Path(trial["run"]) / "checkpoints" / "step").read_text())
        assert 5 <= saved < 20 and not (Path(trial["run"]) / "final").exists()


def test_pruning_does_not_depend_on_how_fast_anybody_looks(fake_train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is through before the first look is judged at the same row as one that is watched."""
    found = []
    for pause in ("0", "0.03"):
        monkeypatch.setenv("FAKE_STEP_S", pause)
        shutil.rmtree("runs", ignore_errors=True)
        run_study(request(RATE, trials=5, pruner="median", startup=1))
        found.append([(t["state"], t["params"], t["validations"]) for t in told()["trials"]])
    assert found[0] == found[1] and "pruned" in [state for state, _, _ in found[0]]


# ---- proposals ----


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_proposals_follow_from_the_seed_and_from_what_is_known(fake_train: Path, sampler: str) -> None:
    space = (RATE, "model.dropout=interval(0,0.5)", "model=tiny,nano_cpu")
    first = proposals(*space, number=5, sampler=sampler, startup=2)
    again = proposals(*space, number=5, sampler=sampler, startup=2, name="other-name")
    other = proposals(*space, "seed=7", number=5, sampler=sampler, startup=2, name="third-name")
    assert first == again and first != other
    assert len({trial["optim.lr"] for trial in first}) == 5, "every trial draws its own numbers"


def test_a_grid_is_walked_once(fake_train: Path) -> None:
    space = ("optim.lr=0.1,0.2", "model.n_layer=range(1,4)")
    found = proposals(*space, number=6, trials=None, sampler="grid")
    assert len({tuple(sorted(trial.items())) for trial in found}) == 6
    assert Study(request(*space, trials=None, sampler="grid")).open().size == 6


def test_tpe_learns(fake_train: Path) -> None:
    """Every value is the rate itself: later proposals are lower than those of the beginning."""
    rates = [trial["optim.lr"] for trial in proposals(RATE, number=16, startup=6)]
    assert statistics.median(rates[8:]) < statistics.median(rates[:6])


def test_values_that_were_tried_are_not_trained_again(fake_train: Path) -> None:
    assert run_study(request("optim.lr=0.01,5.0", trials=6, sampler="random")) == 0
    trials = told()["trials"]
    assert len(list(Path("runs/s-study").glob("s-study-*"))) == 2
    for trial in trials:
        first = next(t for t in trials if t["params"] == trial["params"])
        assert trial["same_as"] == (None if trial is first else first["number"])
        assert (trial["state"], trial["value"], trial["run"]) == (first["state"], first["value"], first["run"])


# ---- killed, stopped, out of time ----


STUDY_OF_THE_STAND_IN = """
import sys
from litgpt_core import cli
from litgpt_core.search import trials
trials.child_command = lambda verb, *arguments: [sys.executable, "train.py", *arguments]
cli.run("search")
"""


def start(folder: Path, *arguments: str, step_s: float) -> subprocess.Popen[str]:
    """`lcp search` as a process, with the stand-in for train.py."""
    script = folder / "study.py"
    script.write_text(STUDY_OF_THE_STAND_IN, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, script.name, *FIXED, RATE, "--pruner", "none", *arguments],
        cwd=folder,
        env={**os.environ, "FAKE_STEP_S": str(step_s)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def rows_of(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.serial
@pytest.mark.skipif(sys.platform != "linux", reason="Linux signals the end of a parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_a_study_that_ends_early_goes_on_as_if_nothing_had_happened(
    fake_train: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "0")
    run_study(request(RATE, trials=3))
    undisturbed = [(t["params"], t["validations"], t["value"], t["state"]) for t in told()["trials"]]
    shutil.rmtree("runs")

    process = start(Path(), "--trials", "3", step_s=0.1)
    second = Path("runs/s-study/s-study-001")
    wait_for(lambda: rows_of(second) >= 1, what="the second trial never began")
    child = int((second / "starts").read_text().split()[0])
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[number], output
    wait_for(lambda: not is_alive(child), what="the child outlived the study")
    assert (second / "checkpoints" / "step").exists(), "it has saved"
    if number != signal.SIGKILL:
        assert states() == ["done", "stopped"]
        assert "the same command continues it" in output

    assert run_study(request(RATE, trials=3)) == 0
    again = [(t["params"], t["validations"], t["value"], t["state"]) for t in told()["trials"]]
    assert again == undisturbed
    assert len(starts("s-study-001")) == 2 and starts("s-study-001")[1] >= 5, "it went on from its checkpoint"


def test_a_trial_that_ended_while_nobody_looked_is_taken_over(fake_train: Path) -> None:
    """The study was killed between the end of a run and the note of it in the database."""
    asked = request(RATE, trials=1)
    study = Study(asked)
    study.folder.mkdir(parents=True)
    store = study.open()
    trial = store.begin(*store.suggest())
    run = study._trial_run(trial)
    assert run.known_outcome() is None
    run.start()
    with StopSignals() as signals:
        wait_for(lambda: run.poll(signals, deadline=float("inf")) is not None, what="the run never ended")
    assert run_study(asked) == 0
    assert states() == ["done"] and starts("s-study-000") == [0]


def test_time_that_is_up_saves_the_trial_for_the_next_command(
    fake_train: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "1")  # 20 steps: never done in time, but begun
    assert run_study(request(RATE, trials=1, timeout_s=6)) == 0
    assert states() == ["stopped"]
    monkeypatch.setenv("FAKE_STEP_S", "0")
    assert run_study(request(RATE, trials=1, timeout_s=60)) == 0
    assert states() == ["done"] and len(starts("s-study-000")) == 2


# ---- what goes wrong ----


def test_a_trial_that_diverges_is_counted_and_the_study_goes_on(fake_train: Path) -> None:
    assert run_study(request("optim.lr=0.01,5.0", trials=None, sampler="grid")) == 0
    [bad] = [trial for trial in told()["trials"] if trial["params"]["optim.lr"] == "5.0"]
    assert bad["state"] == "diverged" and bad["problem"] == "the loss (nan) became infinite"
    assert sorted(states()) == ["diverged", "done"] and told()["best"]["params"] == {"optim.lr": "0.01"}


def test_a_mistake_in_the_space_is_told_before_anything_runs(fake_train: Path) -> None:
    with pytest.raises(ConfigError, match=r"with optim\.lr=0\.0001 trainer\.global_batch_size=0"):
        run_study(request(RATE, "trainer.global_batch_size=int(interval(0,8))"))
    with pytest.raises(ConfigError, match=r"model\.n_layer=\S+: needed a valid integer.*\n.*int\(interval"):
        run_study(request("model.n_layer=interval(2,8)"))
    assert not list(Path("runs").glob("*/s-study-*"))


def test_a_mistake_of_one_combination_ends_the_study_without_a_trial(fake_train: Path) -> None:
    """64 channels in 3 heads: no end of either range shows it."""
    with pytest.raises(ConfigError, match=r"model\.n_head=3"):
        run_study(request("model.n_head=range(2,5)", "model.n_embd=choice(64)", trials=None, sampler="grid"))
    assert "model.n_head=3" not in [f"model.n_head={t['params']['model.n_head']}" for t in told()["trials"]]


def test_a_run_that_refuses_ends_the_study_and_is_tried_again(fake_train: Path) -> None:
    with pytest.raises(LightComputeError, match=r"trial 0 .* cannot run:\nno such checkpoint\n  try:    another one"):
        run_study(request("seed=choice(2)", trials=2))
    assert states() == ["stopped"]
    fake_train.write_text(fake_train.read_text().replace("if seed == 2:", "if seed == 99:"))
    assert run_study(request("seed=choice(2)", trials=2)) == 0 and states() == ["done", "done"]


def test_a_study_gives_up_when_every_trial_crashes(fake_train: Path) -> None:
    with pytest.raises(LightComputeError, match=r"3 trials in a row crashed\n.*\n.*output/s-study-002\.txt"):
        run_study(request("seed=choice(3)", RATE, trials=9))
    assert states() == ["failed"] * 3
    assert "RuntimeError: a bug" in Path("runs/s-study/output/s-study-000.txt").read_text()


# ---- continued with something else ----


def test_another_study_under_the_same_name_is_refused(fake_train: Path) -> None:
    run_study(request(RATE, "seed=1,4", trials=1))
    before = told()["trials"]
    changes: dict[str, StudyRequest] = {
        r"optim\.lr: tag\(log,interval\(0\.0001,0\.5\)\) -> interval": request(
            "optim.lr=interval(1e-4,0.5)", "seed=1,4"
        ),
        r"seed: choice\(1,4\) -> choice\(1,4,5\)": request(RATE, "seed=1,4,5"),
        r"trainer\.max_steps: 20 -> 30": request(RATE, "seed=1,4", "trainer.max_steps=30"),
        r"model\.n_embd: 64 -> 32": request(RATE, "seed=1,4", "model.n_embd=32"),
        "--metric val_loss -> val_bpb": request(RATE, "seed=1,4", metric="val_bpb"),
    }
    for message, changed in changes.items():
        with pytest.raises(ConfigError, match=message) as caught:
            run_study(changed)
        assert "--name s-study-2" in str(caught.value) and told()["trials"] == before


def test_ranges_may_change_and_harmless_settings_too(fake_train: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_study(request(RATE, trials=1))
    wider = "optim.lr=tag(log,interval(1e-3,0.9))"
    assert run_study(request(wider, "trainer.keep_checkpoints=1", "logger=csv", trials=3)) == 0
    assert "tag(log,interval(0.0001,0.5)) -> tag(log,interval(0.001,0.9))" in caplog.text
    assert states() == ["done"] * 3 and all(t["params"]["optim.lr"] >= 1e-3 for t in told()["trials"][1:])


def test_an_unfinished_trial_outside_the_new_range_is_given_up(
    fake_train: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_S", "0.1")
    run_study(request("optim.lr=interval(0.1,0.2)", trials=1, timeout_s=0.7))
    monkeypatch.setenv("FAKE_STEP_S", "0")
    run_study(request("optim.lr=interval(0.3,0.4)", trials=2))
    assert states() == ["failed", "done"] and "given up" in told()["trials"][0]["problem"]


def test_a_folder_of_something_else_is_refused(fake_train: Path) -> None:
    Path("runs/s-study").mkdir(parents=True)
    Path("runs/s-study/metrics.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="something else than a study"):
        run_study(request(RATE))


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        ((RATE,), {"trials": None}, "type --trials 20"),
        ((RATE,), {"trials": 0}, "--trials 0: needed 1 or more"),
        ((RATE,), {"sampler": "grid"}, "has no end of values"),
        (("tokenizer.vocab_size=300,400",), {}, "type --metric val_bpb"),
        ((RATE, "trainer.eval_interval=20"), {"pruner": "median"}, "leaves nothing to prune"),
        ((RATE,), {"prune_from": 10}, "--prune_from has no effect on --pruner none"),
        ((RATE,), {"name": "a/b"}, "run.name='a/b'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    fake_train: Path, overrides: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    if "tokenizer" in overrides[0]:
        overrides = ("tokenizer=bpe", *overrides)
    with pytest.raises(ConfigError, match=message):
        run_study(request(*overrides, **options))


@pytest.mark.nightly
def test_hyperband_prunes_with_the_runs_own_steps(fake_train: Path) -> None:
    assert run_study(request(RATE, trials=8, pruner="hyperband")) == 0
    assert set(states()) == {"done", "pruned"}


def test_a_pruner_takes_the_steps_of_epochs_from_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from litgpt_core.config.compose import load
    from litgpt_core.search.study_store import SearchSettings, _pruner
    from litgpt_core.search.trials import _Judge

    monkeypatch.chdir(tmp_path)
    config = load(["+experiment=smoke", "trainer.epochs=2", "run.name=a"])
    assert _pruner(SearchSettings(pruner="hyperband"), config)._max_resource == "auto"
    judge = object.__new__(_Judge)
    judge._config = config
    assert judge._max_steps() == config.trainer.stop.max_steps
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/config.yaml").write_text("trainer: {max_steps: 77}")
    assert judge._max_steps() == 77
