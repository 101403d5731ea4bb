"""A logger by its class path: where it writes, and what is said when it cannot start."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from litgpt_core.config.loggers import CustomLoggerSettings, PlainLoggerSettings, WandbSettings
from litgpt_core.core.errors import ConfigError
from litgpt_core.training.loggers import build_logger
from litgpt_core.training.run_folder import RunFolder
from litgpt_core.training.wandb_folder import gave_up, not_uploaded, upload_command
from litgpt_core.training.wandb_runs import labels

CSV = "lightning.pytorch.loggers.CSVLogger"


def built(settings: CustomLoggerSettings | PlainLoggerSettings, folder: Path) -> object:
    return build_logger(settings, folder=RunFolder(folder), name="run", config={"seed": 1}, wandb_run_id=None)


def test_a_class_path_writes_into_the_run_folder_unless_told_otherwise(tmp_path: Path) -> None:
    default = built(CustomLoggerSettings(class_path=CSV, kwargs={"name": "curves"}), tmp_path)
    assert isinstance(default, CSVLogger) and Path(default.log_dir) == tmp_path / "curves" / "version_0"
    elsewhere = built(CustomLoggerSettings(class_path=CSV, kwargs={"save_dir": str(tmp_path / "b")}), tmp_path)
    assert isinstance(elsewhere, CSVLogger) and tmp_path / "b" in Path(elsewhere.log_dir).parents


def test_a_constructor_that_fails_names_the_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logger_for_a_test.py").write_text(
        "from lightning.pytorch.loggers import CSVLogger\n\n\nclass Broken(CSVLogger):\n"
        "    def __init__(self) -> None:\n        raise OSError('no server')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="could not be started: OSError: no server"):
        built(CustomLoggerSettings(class_path="logger_for_a_test.Broken"), tmp_path)


@pytest.mark.parametrize("kind", ["csv", "none"])
def test_every_plain_kind_has_a_builder(kind: str, tmp_path: Path) -> None:
    made = built(PlainLoggerSettings(kind=kind), tmp_path)  # type: ignore[arg-type]
    assert (made is None) == (kind == "none")


def test_a_dashboard_sorts_runs_by_group_job_and_tags() -> None:
    config = {"seed": 3, "data": {"name": "text"}, "model": {"name": "light-tiny"}, "init_from": None, "lora": None}
    found = labels(WandbSettings(tags=["mine"], group="lr-sweep"), config)
    assert found["tags"][:4] == ["mine", "text", "light-tiny", "seed-3"]
    assert (found["group"], found["job_type"]) == ("lr-sweep", "train")
    tuned = labels(WandbSettings(), config | {"init_from": "runs/a", "lora": {"r": 8}})
    assert tuned["job_type"] == "finetune" and "lora" in tuned["tags"] and tuned["group"] is None
    assert labels(WandbSettings(), config, job_type="evaluate")["job_type"] == "evaluate"
    assert labels(WandbSettings(), {}) == {"tags": None, "group": None, "job_type": "train"}
    assert labels(WandbSettings(), {"data": ["odd"]})["job_type"] == "train"


def test_runs_that_differ_in_their_seed_alone_share_a_tag() -> None:
    config = {"seed": 3, "optim": {"lr": 0.1}, "run": {"name": "a"}}
    same = config | {"seed": 4, "run": {"name": "b"}}
    other = config | {"optim": {"lr": 0.2}}
    tags = [labels(WandbSettings(), each)["tags"][-1] for each in (config, same, other)]
    assert tags[0].startswith("settings-") and tags[0] == tags[1] != tags[2]


def test_what_was_not_uploaded_is_named_until_it_is(tmp_path: Path) -> None:
    assert upload_command(tmp_path) == ""
    for name in ("offline-run-20260102_1-a", "run-20260101_1-a", "run-20260103_1-b"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    record = tmp_path / "wandb" / "offline-run-20260102_1-a"
    assert upload_command(tmp_path) == f"uv run wandb sync {record}"
    (tmp_path / "wandb" / "run-20260101_1-a" / "not-uploaded.txt").touch()
    assert [path.name for path in not_uploaded(tmp_path)] == ["run-20260101_1-a", "offline-run-20260102_1-a"]
    assert upload_command(tmp_path).startswith("uv run wandb sync --include-online ")
    for path in not_uploaded(tmp_path):
        (path / "run-a.wandb.synced").touch()
    assert upload_command(tmp_path) == ""


def test_a_client_that_gave_up_is_known_by_its_own_log(tmp_path: Path) -> None:
    assert not gave_up(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "debug-internal.log").write_text('{"msg":"filestream: fatal error: 401"}\n')
    assert gave_up(tmp_path)
