"""Settings check themselves, and the shipped YAML files say the same as the dataclasses' defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.settings import (
    ChatDataSettings,
    CustomTextSettings,
    PythonSourceSettings,
    TextSettings,
    TinyShakespeareSettings,
    cache_folder,
)

CONFIGS = Path(__file__).parents[3] / "configs" / "data"


@pytest.mark.parametrize(
    "kind", [PythonSourceSettings, TinyShakespeareSettings, TextSettings, CustomTextSettings, ChatDataSettings]
)
def test_yaml_equals_defaults(kind: type) -> None:
    required = {TextSettings: {"path": "somewhere"}, CustomTextSettings: {"reader": "locale.localeconv"}}.get(kind, {})
    settings = kind(**required)
    written = yaml.safe_load((CONFIGS / f"{settings.kind}.yaml").read_text(encoding="utf-8"))
    assert {key: written[key] for key in required} == dict.fromkeys(required, "???")
    written |= required
    assert written == dataclasses.asdict(settings)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.51, float("nan")])
def test_val_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="val_fraction"):
        TextSettings(path="x", val_fraction=fraction)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        TextSettings(
            path="", glob="", encodings=["utf-8", "klingon"], name="a/b", val_fraction=2, split="tial", split_seed=-1
        )
    for word in ("path", "glob", "klingon", "a/b", "val_fraction", "tial", "split_seed"):
        assert word in str(caught.value)
    with pytest.raises(ConfigError, match=r"packages\.sympy=1\.14 is not a version"):
        PythonSourceSettings(packages={"sympy": 1.14})
    with pytest.raises(ConfigError, match="packages is empty"):
        PythonSourceSettings(packages={}, max_file_bytes=0)
    with pytest.raises(ConfigError, match=r"data\.path=chat_history\.jsonl"):
        ChatDataSettings(path="")
    with pytest.raises(ConfigError, match="sha256"):
        TinyShakespeareSettings(sha256="abc", url="ftp://x", timeout_s=0, size_bytes=0)


def test_cache_folder_does_not_depend_on_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cache_folder(TextSettings(path="x")) == PROJECT_DIR / "data"
    assert PROJECT_DIR.name == CONFIGS.parents[1].name
    assert cache_folder(TextSettings(path="x", cache_dir=str(tmp_path / "c"))) == tmp_path / "c"
