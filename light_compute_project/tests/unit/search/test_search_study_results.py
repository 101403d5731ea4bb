"""What a study says at the end: shares, tables, pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from litgpt_core.search.results import facts, importance, report, tables
from litgpt_core.search.study import Study, StudyRequest
from litgpt_core.search.study_store import SearchSettings, StudyStore

SPACE = ("optim.lr=tag(log,interval(1e-4,1e-1))", "model.n_layer=int(interval(1,4))", "optim.weight_decay=0.0,0.1")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    found = Study(
        StudyRequest(
            overrides=["+experiment=smoke", "logger=none", "run.name=s", *SPACE],
            search=SearchSettings(),
            trials=9,
            name=None,
            timeout_s=None,
            command="study.py",
            script=Path("train.py"),
        )
    )
    found.folder.mkdir(parents=True)
    return found


def add(
    store: StudyStore, rate: float, n_layer: int, value: float | None, *, state: TrialState, **attributes: Any
) -> None:
    values = {"optim.lr": rate, "model.n_layer": n_layer, "optim.weight_decay": "0.1"}
    trial = store.begin(values, {})
    if value is not None:
        trial.report(value + 0.5, 20)
    for key, content in attributes.items():
        trial.set_user_attr(key, content)
    store.study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)


def filled(study: Study) -> StudyStore:
    store = study.open()
    for number in range(8):
        add(store, 10 ** (-1 - number / 3), 1 + number % 4, 2.0 + number, state=TrialState.COMPLETE)
    add(store, 0.05, 2, 9.0, state=TrialState.PRUNED)
    add(store, 0.09, 2, None, state=TrialState.FAIL, outcome="diverged", problem="the loss (nan)")
    return store


def test_the_parameter_that_decides_has_the_largest_share(study: Study) -> None:
    """The value follows the rate alone; one parameter never changed."""
    shares = importance(filled(study))
    assert next(iter(shares)) == "optim.lr" and shares["optim.lr"] > 0.5
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)


def test_few_trials_have_no_shares(study: Study) -> None:
    store = study.open()
    for value in (1.0, 2.0):
        add(store, value / 100, 1, value, state=TrialState.COMPLETE)
    assert importance(store) == {}


def test_study_json_tells_the_kinds_of_ends_apart(study: Study) -> None:
    filled(study)
    content = facts(study.findings)
    assert [trial["state"] for trial in content["trials"]] == ["done"] * 8 + ["pruned", "diverged"]
    assert content["trials"][8]["value"] == 9.5, "a pruned trial is worth its last validation"
    assert content["trials"][9]["value"] is None and content["trials"][9]["problem"] == "the loss (nan)"
    assert content["best"]["number"] == 0 and content["seed"] == 1337
    assert content["space"] == {
        "optim.lr": "tag(log,interval(0.0001,0.1))",
        "model.n_layer": "int(interval(1,4))",
        "optim.weight_decay": "choice(0.0,0.1)",
    }
    assert "optim.lr=0.1 model.n_layer=1 optim.weight_decay=0.1 run.name=s-study-best" in content["best"]["command"]


def test_the_table_has_the_best_first_and_names_without_their_section(study: Study) -> None:
    text = io.StringIO()
    filled(study)
    [table] = tables(study.findings)
    Console(file=text, width=100).print(table)
    lines = text.getvalue().splitlines()
    assert "10 trials ended" in lines[0] and "weight_decay" in lines[2] and "optim." not in lines[2]
    assert [line.split("│")[1].strip() for line in lines if line.startswith("│")] == [*map(str, range(10))]


def test_the_picture_is_drawn_also_of_a_study_without_a_finished_trial(study: Study) -> None:
    store = study.open()
    report(study.findings)
    assert not (study.folder / "study.png").exists()
    trial = store.begin(*store.suggest())
    trial.report(3.0, 20)
    report(study.findings)
    first = (study.folder / "study.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    store.study.tell(trial, state=TrialState.PRUNED)
    filled(study)
    report(study.findings)
    assert len((study.folder / "study.png").read_bytes()) > len(first)
