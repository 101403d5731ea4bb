"""scripts/prepare_data.py as people call it: help, a folder of text, and mistakes with exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[3]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src"), "PYTHONUTF8": "1"}
    command = [sys.executable, str(PROJECT / "scripts" / "prepare_data.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_help_names_the_options() -> None:
    done = call("--help")
    assert done.returncode == 0
    for word in (
        "custom, hub, jsonl, mixture, parquet, python_source, small_source, text, tiny_shakespeare, tokens",
        "sentencepiece",
        "data.path=my_texts",
    ):
        assert word in done.stdout


def test_a_text_file_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("".join(f"line {i} of it\n" for i in range(300)), encoding="utf-8")
    done = call("data=text", f"data.path={tmp_path / 'my.txt'}", "tokenizer=byte", f"data.cache_dir={tmp_path / 'c'}")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "c").glob("text-*")  # a record of the inputs may lie alongside
    assert f"folder      {folder}" in done.stdout
    assert "nats per val token" in done.stdout


def test_settings_without_effect_are_refused() -> None:
    done = call("data=text", "trainer.max_steps=3", "model=tiny")
    assert done.returncode == 2
    assert "trainer.max_steps=3, model=tiny has no effect" in done.stderr
    assert "Traceback" not in done.stderr
