"""A logger by its class path: where it writes, and what is said when it cannot start."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from litgpt_core.config.loggers import CustomLoggerSettings, PlainLoggerSettings
from litgpt_core.core.errors import ConfigError
from litgpt_core.training.loggers import build_logger
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
