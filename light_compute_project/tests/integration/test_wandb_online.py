"""W&B's own client against a stand-in of its server: creation, resuming, uploads, refusals, and a server that dies."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.wandb_stub import WandbStub

from litgpt_core.config.loggers import WandbSettings
from litgpt_core.training.run_folder import RunFolder
from litgpt_core.training.wandb_folder import not_uploaded, upload_command
from litgpt_core.training.wandb_results import log_evaluation, log_report
from litgpt_core.training.wandb_runs import SectionedLogger, labels, log_results, open_run

pytestmark = [pytest.mark.serial, pytest.mark.timeout(120)]

PROJECT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"seed": 3, "data": {"name": "text"}, "model": {"name": "light-tiny"}, "trainer": {"max_steps": 30}}
QUICK = {
    "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.1",
    "WANDB_X_FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "0.1",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "0.1",
    "WANDB_X_DISABLE_STATS": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_SILENT": "true",
}


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbStub]:
    """One server for all tests; the client reads its address once in a process."""
    import wandb

    home = tmp_path_factory.mktemp("home")
    server = WandbStub()
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    own = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}
    folders = {f"WANDB_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "CACHE", "DATA", "ARTIFACT")}
    for name, value in (own | folders | QUICK).items():
        patch.setenv(name, value)
    wandb.teardown()
    yield server
    wandb.teardown()
    server.down()
    patch.undo()


def opened(folder: Path, run_id: str, **settings: Any) -> SectionedLogger:
    chosen = WandbSettings(**{"init_timeout": 5.0, "finish_timeout": 10.0, "project": "ours"} | settings)
    built = open_run(
        chosen, folder=folder, name=folder.name, config=CONFIG, labels=labels(chosen, CONFIG), run_id=run_id
    )
    assert built is not None
    return built


def train(built: SectionedLogger, *steps: int) -> None:
    for step in steps:
        row = {"train_loss": 5 - step / 10, "tokens": 64.0 * step, "lr": 0.1}
        built.log_metrics(row | ({"val_loss": 4 - step / 20} if step % 20 == 0 else {}), step=step)


SUMMARY = {"final": {"step": 30}, "best": {}, "whole_split": {"val_loss": 2.5}, "final_weights": {"step": 30}}


def ended(built: SectionedLogger, folder: Path) -> None:
    samples = [("Once", " upon a time"), ("The", " <b>end</b>")]
    log_results(built, folder=folder, summary=SUMMARY, picture=folder / "no.png", samples=samples)


def test_a_run_is_created_with_its_labels_and_its_curves_samples_and_results_arrive(
    stub: WandbStub, tmp_path: Path
) -> None:
    built = opened(tmp_path, "first", tags=["mine"], group="lr-sweep")
    train(built, 10, 20, 30)
    ended(built, tmp_path)
    run = stub.runs["first"]
    about = {key: run.about(key) for key in ("project", "groupName", "jobType", "displayName")}
    assert about == {"project": "ours", "groupName": "lr-sweep", "jobType": "train", "displayName": tmp_path.name}
    assert run.about("tags")[:4] == ["mine", "text", "light-tiny", "seed-3"]
    assert json.loads(run.about("config"))["trainer"]["value"] == {"max_steps": 30}
    assert run.curve("loss/train") == [4.0, 3.0, 2.0] and run.curve("loss/val") == [3.0]
    assert run.curve("trainer/global_step")[:3] == [10, 20, 30]
    assert run.summary["whole_split/val_loss"] == 2.5 and run.exit_code == 0
    [table] = [name for name in run.files if name.startswith("media/table/samples/")]
    assert json.loads(run.files[table])["data"] == [["Once", " upon a time", 30], ["The", " <b>end</b>", 30]]
    assert not_uploaded(tmp_path) == [] and upload_command(tmp_path) == ""
    assert {user.partition(" ")[0] for what, user in stub.requests if what.startswith("graphql")} == {"Basic"}


def test_charts_run_along_steps_and_the_smallest_validation_loss_counts(stub: WandbStub, tmp_path: Path) -> None:
    built = opened(tmp_path, "charts")
    for step, loss in ((10, 3.0), (20, 2.0), (30, 2.5)):
        built.log_metrics({"val_loss": loss}, step=step)
    ended(built, tmp_path)
    run = stub.runs["charts"]
    assert run.summary["loss/val"]["min"] == 2.0
    assert "trainer/global_step" in run.about("config"), "the x axis of the charts is part of the config"


def test_a_resumed_run_goes_on_under_the_same_id(stub: WandbStub, tmp_path: Path) -> None:
    train(first := opened(tmp_path, "twice"), 10, 20)
    ended(first, tmp_path)
    before = len(stub.runs["twice"].history)
    train(second := opened(tmp_path, "twice"), 30)
    ended(second, tmp_path)
    run = stub.runs["twice"]
    assert second.experiment.id == "twice" and run.curve("loss/train") == [4.0, 3.0, 2.0]
    assert len(run.history) > before, "rows were added behind the old ones"


@pytest.mark.parametrize("status", [401, 500, pytest.param(429, marks=pytest.mark.nightly)])
def test_a_server_that_refuses_at_the_start_makes_an_offline_run_that_can_be_uploaded(
    stub: WandbStub, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = f"refused{status}"
    with stub.refuse("graphql", status):
        built = opened(tmp_path, run_id, init_timeout=2.0)
        train(built, 10)
        ended(built, tmp_path)
    assert "W&B could not start online" in caplog.text and run_id not in stub.runs
    upload(tmp_path)
    assert stub.runs[run_id].curve("loss/train") == [4.0]


def upload(folder: Path) -> None:
    """Type the command that is named."""
    words = shlex.split(upload_command(folder))
    assert words[:4] == ["uv", "run", "wandb", "sync"]
    typed = [str(Path(sys.executable).with_name("wandb")), *words[3:]]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert upload_command(folder) == "", "nothing is left to upload"


def test_training_goes_on_without_a_server_that_dies_and_the_rest_is_uploaded_later(
    stub: WandbStub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = opened(tmp_path, "orphan", finish_timeout=2.0)
    train(built, 10)
    deadline = time.monotonic() + 20
    while not stub.runs["orphan"].history and time.monotonic() < deadline:
        time.sleep(0.05)
    stub.down()
    try:
        began = time.monotonic()
        train(built, 20, 30)
        assert time.monotonic() - began < 2, "logging waits for nobody"
        with caplog.at_level(logging.WARNING):
            ended(built, tmp_path)
        assert time.monotonic() - began < 20
    finally:
        stub.up()
    assert upload_command(tmp_path) in caplog.text and "--include-online" in caplog.text
    assert stub.runs["orphan"].curve("loss/train") == [4.0]
    upload(tmp_path)
    run = stub.runs["orphan"]  # the client sends the whole record, rows that have arrived before included
    assert dict(zip(run.curve("trainer/global_step"), run.curve("loss/train"), strict=False)) == {10: 4, 20: 3, 30: 2}
    assert run.exit_code == 0


@pytest.mark.nightly
def test_a_key_that_is_refused_on_the_way_ends_the_upload_and_names_the_command(
    stub: WandbStub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = opened(tmp_path, "revoked")
    with stub.refuse("file_stream", 401), caplog.at_level(logging.WARNING):
        train(built, 10, 20)
        ended(built, tmp_path)
    assert upload_command(tmp_path) in caplog.text
    upload(tmp_path)
    assert stub.runs["revoked"].curve("loss/train")[-2:] == [4.0, 3.0]


@pytest.mark.nightly
def test_a_server_that_is_busy_for_a_while_gets_everything(stub: WandbStub, tmp_path: Path) -> None:
    built = opened(tmp_path, "busy")
    with stub.refuse("file_stream", 429):
        train(built, 10, 20)
        deadline = time.monotonic() + 20
        while stub.count("busy/file_stream") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    ended(built, tmp_path)
    assert stub.runs["busy"].curve("loss/train") == [4.0, 3.0] and upload_command(tmp_path) == ""


def test_an_analysis_joins_its_run_and_an_evaluation_its_group(stub: WandbStub, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    logger_section = {"kind": "wandb", "project": "ours", "group": None}
    folder.config.write_text(json.dumps(CONFIG | {"init_from": "runs/a", "logger": logger_section}))
    folder.environment.write_text(json.dumps({"wandb_run_id": "measured"}))
    ended(opened(tmp_path, "measured"), tmp_path)
    page = tmp_path / "report.html"
    page.write_text("<p>found</p>")
    assert log_report(folder, page=page, pictures=[], numbers={"analysis/lens": 1.5})
    run = stub.runs["measured"]
    assert run.summary["analysis/lens"] == 1.5 and run.about("jobType") == "finetune"
    known = set(stub.runs)
    table = [["", "n", "a"], ["bits per byte", "10", "2.0"]]
    assert log_evaluation(folder, name="evaluate a", scores={"bits_per_byte": 2.0}, table=table, facts={"seed": 1})
    [new] = set(stub.runs) - known
    evaluated = stub.runs[new]
    assert (evaluated.about("jobType"), evaluated.about("groupName")) == ("evaluate", tmp_path.name)
    assert evaluated.summary["evaluate/bits_per_byte"] == 2.0
    assert [name for name in evaluated.files if name.startswith("media/table/evaluate/")]


@pytest.mark.nightly
def test_a_training_and_its_continuation_arrive_and_a_dead_server_ends_neither(stub: WandbStub, tmp_path: Path) -> None:
    command = [sys.executable, str(PROJECT / "scripts" / "train.py"), "+experiment=smoke", "logger=wandb"]
    command += ["logger.finish_timeout=3.0", "run.name=a", "trainer.max_steps=20", "trainer.eval_interval=10"]
    own = os.environ | {"OMP_NUM_THREADS": "1"}

    def trained(*more: str, whole: bool = True) -> str:
        done = subprocess.run([*command, *more], cwd=tmp_path, env=own, capture_output=True, text=True, timeout=100)
        assert (done.returncode == 0) or not whole, done.stderr
        return done.stdout + done.stderr

    trained("trainer.stop_after=10", whole=False)
    run_id = json.loads((tmp_path / "runs" / "a" / "environment.json").read_text())["wandb_run_id"]
    assert stub.runs[run_id].curve("trainer/global_step")[-1] == 10
    said = trained("run.resume=true")
    run = stub.runs[run_id]
    steps = [step for step in run.curve("trainer/global_step") if step]
    assert steps[-1] == 20 and run.summary["whole_split/val_loss"] > 0
    assert [name for name in run.files if name.startswith("media/table/samples/")] and "wandb sync" not in said
    stub.down()
    try:
        said = trained("run.name=b", "logger.init_timeout=3.0")
    finally:
        stub.up()
    assert "W&B could not start online" in said and "uv run wandb sync runs/b/wandb/offline-run-" in said
    upload(tmp_path / "runs" / "b")
    assert any(each.about("displayName") == "b" for each in stub.runs.values())
