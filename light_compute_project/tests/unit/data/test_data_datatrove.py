"""`data.engine=datatrove` as far as this environment goes: settings, the plan, errors of the process that it starts.

Its tasks run in datatrove's own environment: tests/integration/test_datatrove.py and slurm/test_slurm_datatrove.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import ConfigError, DataError, EnvironmentProblem, TokenizerError
from litgpt_core.data.prepare import prepare
from litgpt_core.data.stream import datatrove_engine
from litgpt_core.data.stream.datatrove_engine import datatrove_python
from litgpt_core.data.stream.datatrove_plan import DatatrovePlan
from litgpt_core.data.stream.datatrove_tasks import words
from litgpt_core.data.stream.inputs import list_inputs
from litgpt_core.data.stream.prepare_stream import StreamCorpus
from litgpt_core.data.stream_settings import RowsSettings
from litgpt_core.tokenizers.settings import ByteSettings


def corpus(folder: Path, *, files: int = 3) -> Path:
    """Some files of JSONL."""
    folder.mkdir()
    for number in range(files):
        rows = [json.dumps({"text": f"{number} {row} " + "word " * (row % 37)}) for row in range(200)]
        (folder / f"part-{number}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def settings(folder: Path, **changes: Any) -> RowsSettings:
    values = {"path": str(folder), "cache_dir": str(folder.parent / "cache"), "chunk_bytes": 9_000, "workers": 2}
    return RowsSettings(**{**values, **changes})


def test_settings_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    for changes, said in (
        ({"near_duplicates": "remove"}, "needs engine=datatrove"),
        ({"executor": "slurm"}, "executor=slurm needs engine=datatrove"),
        ({"engine": "datatrove", "executor": "slurm"}, "slurm.partition"),
        ({"engine": "datatrove", "slurm": {"partition": "x"}}, "no effect without executor=slurm"),
        ({"executor": "ray"}, "executor=ray needs engine=datatrove"),
        ({"engine": "datatrove", "ray": {"address": "auto"}}, "no effect without executor=ray"),
        ({"engine": "datatrove", "executor": "ray", "ray": {"port": 1}}, r"ray\.port must be address"),
        ({"engine": "datatrove", "executor": "ray", "ray": {"workers": 0}}, r"ray\.workers=0 must be a number above 0"),
        ({"engine": "spark"}, "'local' or 'datatrove'"),
        ({"engine": "datatrove", "near_duplicates": "some"}, "'keep' or 'remove'"),
    ):
        with pytest.raises(ConfigError, match=said):
            settings(tmp_path / "x", **changes)


def test_the_engine_is_no_part_of_the_fingerprint_and_near_duplicates_are(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "rows")
    files = list_inputs(str(folder), "**/*")

    def fingerprint(**changes: Any) -> str:
        found = StreamCorpus.of(settings(folder, **changes), ByteSettings(), files)
        return found.fingerprint({chunk.number: "" for chunk in found.chunks})

    alone = fingerprint()
    assert fingerprint(engine="datatrove") == alone
    assert fingerprint(engine="datatrove", executor="slurm", slurm={"partition": "p"}) == alone
    assert fingerprint(engine="datatrove", executor="ray", ray={"workers": 2}) == alone
    assert fingerprint(engine="datatrove", near_duplicates="remove") != alone


def test_the_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "rows")
    found = StreamCorpus.of(settings(folder, engine="datatrove"), ByteSettings(), list_inputs(str(folder), "**/*"))
    plan = DatatrovePlan(
        folder=tmp_path,
        data=found.data,
        job=found.job(tmp_path, threads=1),
        chunks=found.chunks,
        workers=3,  # type: ignore[arg-type]
    )
    plan.write()
    assert len(found.chunks) > 4 and DatatrovePlan.read(plan.path) == plan


def test_words_are_runs_of_letters_and_characters_of_scripts_without_spaces() -> None:
    assert words("It's 3 o'clock, über_all!") == ["It", "s", "3", "o", "clock", "über", "all"]
    assert words("今日は good") == ["今", "日", "は", "good"]


def stand_in(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for Python")
def test_a_process_that_fails_is_told_with_its_last_lines_and_a_task_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = corpus(tmp_path / "rows")
    monkeypatch.setenv(datatrove_engine.VARIABLE, stand_in(tmp_path / "python", "echo out of luck; exit 3"))
    with pytest.raises(DataError, match="out of luck") as problem:
        prepare(settings(folder, engine="datatrove"), ByteSettings())
    assert "the same command continues" in problem.value.fix
    said = json.dumps({"kind": "TokenizerError", "given": "no such letter", "needed": "letters", "fix": "byte"})
    script = f"for plan; do :; done; d=$(dirname $plan)/errors; mkdir -p $d; echo '{said}' > $d/task-00001.json; exit 1"
    monkeypatch.setenv(datatrove_engine.VARIABLE, stand_in(tmp_path / "python", script))
    with pytest.raises(TokenizerError, match="no such letter"):
        prepare(settings(folder, engine="datatrove"), ByteSettings())
    # what it leaves undone, the local engine completes, with the bytes that it gives alone
    whole = prepare(settings(folder), ByteSettings())
    other = prepare(settings(folder, cache_dir=str(tmp_path / "other")), ByteSettings())
    assert whole.fingerprint == other.fingerprint
    assert not (whole.directory / "datatrove").exists()


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for uv")
def test_an_environment_that_cannot_be_made_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(datatrove_engine.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("litgpt_core.core.uv.PROJECT_DIR", tmp_path / "no" / "where")
    with pytest.raises(EnvironmentProblem, match="there is no uv"):
        datatrove_python(tmp_path)
    stand_in(tmp_path / "uv", 'echo "no index" >&2; exit 2')
    with pytest.raises(EnvironmentProblem, match="no index") as problem:
        datatrove_python(tmp_path)
    assert datatrove_engine.VARIABLE in problem.value.fix
    making = 'for each; do case "$each" in */bin/*) ;; */.datatrove-*) /bin/mkdir -p "$each" ;; esac; done'
    stand_in(tmp_path / "uv", f'echo "$@" >> {tmp_path}/calls; {making}')
    python = datatrove_python(tmp_path)
    assert python.parent.parent.parent == tmp_path and (python.parents[1] / "complete").is_file()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2 and all(line.endswith("--no-config") for line in calls) and "--require-hashes" in calls[1]
    assert datatrove_python(tmp_path) == python and len((tmp_path / "calls").read_text().splitlines()) == 2
