"""What is read from run folders, on folders that nobody trained; trainings are in tests/integration/test_audit.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from litgpt_core.audit.again import original_arguments
from litgpt_core.audit.audit import how_many
from litgpt_core.audit.compared import compare_runs, config_lines
from litgpt_core.audit.question import Question, answer
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.audit.replay import as_recorded, recorded_variables, shortened, started_in
from litgpt_core.config.compose import load
from litgpt_core.core.errors import ConfigError

Rows = list[dict[str, Any]]
MakeRun = Callable[..., Path]


def rows(*, every: int = 5, last: int = 60, validated: int = 20, shift: float = 0.0) -> Rows:
    return [
        {
            "step": step,
            "tokens": step * 1024,
            "train_loss": 5.0 - step / 100 + shift,
            "val_loss": 4.0 - step / 100 + shift if step % validated == 0 else None,
            "lr": 0.01,
            "grad_norm": 1.0,
        }
        for step in range(every, last + 1, every)
    ]


def session(from_step: int, **trainer: Any) -> dict[str, Any]:
    settings = {"max_steps": 60, "log_interval": 5, **trainer}
    return {"from_step": from_step, "command": "python some/train.py +experiment=smoke", "trainer": settings}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str, *settings: str, run_rows: Rows | None = None, **environment: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        plain = load(["+experiment=smoke", f"run.name={name}", *settings]).plain
        (folder / "config.yaml").write_text(yaml.safe_dump(plain))
        facts = {"device": "cpu", "precision": "32-true", "torch_threads": 3, "data_fingerprint": "f" * 64}
        (folder / "environment.json").write_text(json.dumps(facts | environment))
        lines = "".join(json.dumps(row) + "\n" for row in (rows() if run_rows is None else run_rows))
        (folder / "metrics.jsonl").write_text(lines)
        return folder

    return make


# ---- reading ----


@pytest.mark.parametrize("corrupt", ["config.yaml", "environment.json"])
def test_a_folder_that_is_no_run_is_refused_with_what_is_there(make_run: MakeRun, tmp_path: Path, corrupt: str) -> None:
    run = make_run("good")
    with pytest.raises(ConfigError, match="runs/good"):
        RecordedRun.read(tmp_path / "runs" / "absent")
    (run / corrupt).write_text("{")
    with pytest.raises(ConfigError, match="cannot be audited"):
        RecordedRun.read(run)


def test_lines_that_hold_no_row_are_counted(make_run: MakeRun) -> None:
    run = make_run("corrupt")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], "{half", *lines[1:3], '{"step": 2', ""]))
    read = RecordedRun.read(run)
    assert read.corrupt_lines == [2, 5] and [row["step"] for row in read.rows] == [5, 10, 15]


def test_settings_that_todays_code_refuses_name_the_commit(make_run: MakeRun) -> None:
    run = make_run("old", git={"commit": "abc123"})
    text = (run / "config.yaml").read_text().replace("max_steps:", "max_stepz:")
    (run / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="git checkout abc123"):
        _ = RecordedRun.read(run).config


# ---- how many steps ----


def test_a_replay_reaches_the_first_validation_unless_told(make_run: MakeRun) -> None:
    assert how_many(RecordedRun.read(make_run("a")), None) == 20
    late = make_run("b", run_rows=rows(every=10, last=1000, validated=500))
    assert how_many(RecordedRun.read(late), None) == 50
    short = make_run("c", run_rows=rows(every=2, last=8))
    assert how_many(RecordedRun.read(short), None) == 8
    sparse = make_run("d", run_rows=rows(every=300, last=600, validated=600))
    assert how_many(RecordedRun.read(sparse), None) == 300


def test_steps_end_at_a_row(make_run: MakeRun) -> None:
    run = RecordedRun.read(make_run("a"))
    assert how_many(run, 5) == 5 and how_many(run, 34) == 30 and how_many(run, 60) == 60


@pytest.mark.parametrize("steps", [0, 4, 61])
def test_steps_without_a_row_are_refused(make_run: MakeRun, steps: int) -> None:
    with pytest.raises(ConfigError, match="from 5 to 60"):
        how_many(RecordedRun.read(make_run("a")), steps)


def test_a_run_without_rows_cannot_be_replayed(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="no row"):
        how_many(RecordedRun.read(make_run("a", run_rows=[])), None)


def test_a_session_with_other_settings_ends_what_can_be_replayed(make_run: MakeRun) -> None:
    run = RecordedRun.read(make_run("a", "trainer.max_steps=90", sessions=[session(0), session(12, max_steps=90)]))
    assert run.changed_settings == ["trainer.max_steps: 60 -> 90"]
    assert how_many(run, None) == 10
    assert as_recorded(run)["trainer"]["max_steps"] == 60, "the first steps had the first schedule"
    with pytest.raises(ConfigError, match="resumed after step 12"):
        how_many(run, 40)


def test_sessions_of_older_runs_are_read_under_their_old_key(make_run: MakeRun) -> None:
    old = RecordedRun.read(make_run("a", sittings=[session(0), session(12)]))
    assert [entry["from_step"] for entry in old.sessions] == [0, 12]


def test_a_resumed_run_with_the_same_settings_is_one_run(make_run: MakeRun) -> None:
    run = RecordedRun.read(make_run("a", sessions=[session(0), session(12, save_interval=7)]))
    assert run.changed_settings == [] and how_many(run, 60) == 60


# ---- the replay's config ----


def test_decisions_replace_auto(make_run: MakeRun) -> None:
    decided = {"compile": False, "micro_batch": 8, "precision": "bf16-mixed"}
    run = RecordedRun.read(make_run("a", precision="bf16-mixed", decisions=decided, threads={"torch": 2}))
    trainer = as_recorded(run)["trainer"]
    wanted = {"accelerator": "cpu", "precision": "bf16-mixed", "compile": False, "threads": 2, "micro_batch_size": 8}
    assert {key: trainer[key] for key in wanted} == wanted
    assert "devices" not in trainer and trainer["log_interval"] == 5


def test_a_record_of_older_code_is_used_as_far_as_it_goes(make_run: MakeRun) -> None:
    folder = make_run("a")
    (folder / "summary.json").write_text(json.dumps({"compiled": True}))
    trainer = as_recorded(RecordedRun.read(folder))["trainer"]
    assert (trainer["threads"], trainer["compile"], trainer["micro_batch_size"]) == (3, True, None)


def test_processes_of_several_nodes_are_replayed_on_one(make_run: MakeRun) -> None:
    folder = make_run("a", "trainer.num_nodes=2", "trainer.devices=4", processes={"world_size": 8})
    trainer = as_recorded(RecordedRun.read(folder))["trainer"]
    assert (trainer["devices"], trainer["num_nodes"]) == (8, 1)


def test_shortening_leaves_the_schedule_and_the_rhythm_of_rows(make_run: MakeRun) -> None:
    plain = as_recorded(RecordedRun.read(make_run("a", "trainer.max_time=1h", "logger=csv")))
    short = shortened(plain, steps=20)
    kept = ("max_steps", "log_interval", "eval_interval", "eval_tokens", "global_batch_size")
    assert all(short["trainer"].get(key) == plain["trainer"].get(key) for key in kept)
    assert short["trainer"]["stop_after"] == 20 and "max_time" not in short["trainer"]
    assert short["logger"] == {"kind": "none"} and short["optim"] == plain["optim"]
    whole = shortened({**plain, "trainer": {**plain["trainer"], "stop_after": 7}}, steps=60)
    assert "stop_after" not in whole["trainer"], "a whole run ends by itself, with its last validation"


def test_relative_paths_lead_from_where_the_run_lies(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts").mkdir()
    run = RecordedRun.read(make_run("a", "data=text", "data.path=texts"))
    assert started_in(run) == tmp_path.resolve()
    assert as_recorded(run)["data"]["path"] == (tmp_path / "texts").resolve().as_posix()
    monkeypatch.chdir(tmp_path)
    assert as_recorded(run)["data"]["path"] == "texts"


def test_a_replay_gets_the_recorded_variables_but_none_of_devices(make_run: MakeRun) -> None:
    variables = {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "3", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert recorded_variables(RecordedRun.read(make_run("a", variables=variables))) == {"OMP_NUM_THREADS": "2"}


def test_what_was_typed_is_found_behind_the_script(make_run: MakeRun) -> None:
    command = "python a/folder/train.py +experiment=smoke 'data.path=my texts' run.name=x run.resume=auto seed=3"
    run = RecordedRun.read(make_run("a", command=command))
    assert original_arguments(run) == ["+experiment=smoke", "data.path=my texts", "seed=3"]
    assert original_arguments(RecordedRun.read(make_run("b"))) == []


# ---- two runs ----


def test_equal_runs_are_identical(make_run: MakeRun) -> None:
    report = compare_runs(make_run("a", "logger=none"), make_run("b", "logger=csv"))
    assert report.passed and report.identical and "identical" in report.verdict


def test_runs_of_equal_settings_must_be_identical(make_run: MakeRun) -> None:
    report = compare_runs(make_run("a"), make_run("b", "trainer.save_interval=7", run_rows=rows(shift=1e-9)))
    assert not report.passed and "step 5, train_loss" in report.verdict


@pytest.mark.parametrize(("shift", "passed"), [(0.01, True), (0.1, False)])
def test_runs_of_other_settings_may_lie_a_percent_apart(make_run: MakeRun, shift: float, passed: bool) -> None:
    report = compare_runs(make_run("a"), make_run("b", "seed=2", run_rows=rows(shift=shift)))
    assert report.passed is passed and report.likely_causes is not None
    assert report.likely_causes[0].what == "seed" and (report.likely_causes[0].one, report.likely_causes[0].other) == (
        "1337",
        "2",
    )
    assert report.numbers["last_shared_validation"]["step"] == 60
    assert report.numbers["last_shared_validation"]["spread"] == pytest.approx(shift / (3.4 + shift / 2))


def test_a_shorter_run_is_compared_where_both_were_validated(make_run: MakeRun) -> None:
    report = compare_runs(make_run("a"), make_run("b", "trainer.max_steps=30", run_rows=rows(last=30)))
    assert report.identical and report.numbers["compared_steps"][-1] == 30
    assert report.numbers["last_shared_validation"] == {"step": 20, "spread": 0.0}


def test_runs_with_rows_of_other_steps_share_some(make_run: MakeRun) -> None:
    report = compare_runs(make_run("a"), make_run("b", "trainer.log_interval=10", run_rows=rows(every=10)))
    assert report.numbers["compared_steps"] == [10, 20, 30, 40, 50, 60] and "log_interval" in report.remarks[0]


def test_runs_without_a_common_step_cannot_be_compared(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="no step in common"):
        compare_runs(make_run("a", run_rows=rows(every=7, last=7)), make_run("b", run_rows=[]))


def test_settings_differ_line_by_line_places_last(make_run: MakeRun) -> None:
    one, other = make_run("a"), make_run("b", "optim.lr=0.1")
    assert config_lines(one, other) == ["optim.lr: 0.005 -> 0.1", "run.name: 'a' -> 'b'"]
    assert config_lines(one, one) == []


# ---- the script's answers ----


def test_reports_lie_in_the_run_folder_and_the_exit_code_says_pass_or_fail(make_run: MakeRun, tmp_path: Path) -> None:
    one, other = make_run("a"), make_run("b", run_rows=rows(shift=0.5))
    answered = answer(Question(compare=[one, other]))
    assert answered.exit_code == 1 and answered.lines[0].startswith("FAIL: not identical")
    assert (one / "audit-against-b.md").read_text().startswith("# a against b\n\n**FAIL**")
    assert json.loads((one / "audit-against-b.json").read_text())["passed"] is False
    assert answer(Question(compare=[one, one], output=tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out" / "audit-against-a.md").is_file()
    assert answer(Question(config_diff=[one, other])).exit_code == 1
    assert answer(Question(config_diff=[one, one])).lines == ["no setting differs"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(), "no run and no option"),
        (Question(what=["runs/a"], command=Path("runs/a")), "given at once"),
        (Question(experiment="smoke", seeds=[1, 2], threads=[1, 2]), "--seeds and --threads"),
        (Question(what=["seed=3"]), "no run or experiment"),
        (Question(what=["runs/absent"]), "holds no run"),
        (Question(experiment="smoke", steps=0), "--steps 0"),
        (Question(experiment="smoke", threads=[1]), "nothing to compare"),
        (Question(experiment="smoke", seeds=[4, 4]), "nothing to compare"),
        (Question(experiment="smok"), "smoke"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(question: Question, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        answer(question)
