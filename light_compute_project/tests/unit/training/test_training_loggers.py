"""A logger by its class path: where it writes, and what is said when it cannot start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from litgpt_core.config.loggers import CustomLoggerSettings, PlainLoggerSettings, WandbSettings
from litgpt_core.core.errors import ConfigError
from litgpt_core.training import loggers
from litgpt_core.training.loggers import build_logger, labels, log_report
from litgpt_core.training.run_folder import RunFolder

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


class RecordingRun:
    """Stands for a W&B run: what was logged, and whether it was closed."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}
        self.summary: dict[str, float] = {}
        self.finished = False

    def log(self, values: dict[str, Any]) -> None:
        if "analysis/refused" in values:
            raise OSError("no server")
        self.logged |= values

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def report(tmp_path: Path) -> tuple[Path, Path]:
    """A page and a picture."""
    from matplotlib.figure import Figure

    (tmp_path / "report.html").write_text("<p>found</p>")
    Figure(figsize=(1, 1)).savefig(tmp_path / "lens.png")
    return tmp_path / "report.html", tmp_path / "lens.png"


def test_an_analysis_goes_into_the_runs_own_dashboard(
    tmp_path: Path, report: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("logger: {kind: wandb, project: mine}\n")
    (tmp_path / "environment.json").write_text('{"wandb_run_id": "abc"}')
    run, asked = RecordingRun(), []

    def start(settings: Any, *, run_id: str | None, **others: Any) -> WandbLogger:
        asked.append((settings.project, run_id))
        built = WandbLogger.__new__(WandbLogger)
        monkeypatch.setattr(WandbLogger, "experiment", run, raising=False)
        return built

    monkeypatch.setattr(loggers, "_wandb", start)
    page, picture = report
    assert log_report(RunFolder(tmp_path), page=page, pictures=[picture], numbers={"analysis/lens/x": 1.5})
    assert asked == [("mine", "abc")]
    assert set(run.logged) == {"analysis/report", "analysis/lens"} and run.finished
    assert run.summary == {"analysis/lens/x": 1.5}
    refused = picture.rename(tmp_path / "refused.png")
    assert not log_report(RunFolder(tmp_path), page=page, pictures=[refused], numbers={})


def test_without_a_dashboard_an_analysis_is_not_taken(
    tmp_path: Path, report: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "_wandb", lambda *_, **__: None)
    assert not log_report(RunFolder(tmp_path), page=report[0], pictures=[], numbers={})


def test_a_dashboard_sorts_runs_by_group_job_and_tags() -> None:
    config = {"seed": 3, "data": {"name": "text"}, "model": {"name": "light-tiny"}, "init_from": None, "lora": None}
    found = labels(WandbSettings(tags=["mine"], group="lr-sweep"), config)
    assert found == {"tags": ["mine", "text", "light-tiny", "seed-3"], "group": "lr-sweep", "job_type": "train"}
    tuned = labels(WandbSettings(), config | {"init_from": "runs/a", "lora": {"r": 8}})
    assert tuned["job_type"] == "finetune" and tuned["tags"][-1] == "lora" and tuned["group"] is None
    assert labels(WandbSettings(), {}) == {"tags": None, "group": None, "job_type": "train"}
