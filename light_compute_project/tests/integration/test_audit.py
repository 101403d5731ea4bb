"""The audit of real runs: identical, tampered with, on another corpus; and the commands of docs/reproducibility.md."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.command_line import child_command

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "reproducibility.md"
SETTINGS = [
    *("+experiment=smoke", "trainer=deterministic", "data=text", "data.path=text.txt", "model.dropout=0.1"),
    *("trainer.max_steps=12", "trainer.log_interval=2", "trainer.eval_interval=4", "trainer.eval_tokens=1024"),
    *("trainer.global_batch_size=8", "trainer.micro_batch_size=4", "trainer.sample_tokens=0", "logger=none"),
]


@pytest.fixture(scope="module")
def audited(module_shell: Any) -> Any:
    """A shell in whose folder a run of 12 steps on a text of its own lies."""
    text = "\n\n".join(f"line {i * i} of a small text" for i in range(600))
    (module_shell.folder / "text.txt").write_text(text)
    module_shell.train(*SETTINGS, "run.name=run")
    return module_shell


def audit(shell: Any, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = shell.run(shell.command("reproducibility_audit.py", *arguments), expect=expect)
    assert isinstance(done, subprocess.CompletedProcess)
    return done


def test_a_run_is_replayed_to_the_last_bit_from_another_folder(audited: Any, tmp_path: Path) -> None:
    run, before = audited.folder / "runs" / "run", sorted(Path(audited.folder / "runs").iterdir())
    command = audited.command("reproducibility_audit.py", str(run), "--steps", "9")
    done = subprocess.run(
        command, cwd=tmp_path, env=audited.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical: all 18 numbers of 4 rows up to step 8" in done.stdout, "four quantities, and two validations"
    report = json.loads((run / "audit.json").read_text())
    assert report["identical"] and report["numbers"]["compared_steps"] == [2, 4, 6, 8]
    assert report["environments"]["replayed"]["sessions"][0]["trainer"]["stop_after"] == 8
    assert (run / "audit.md").read_text().startswith("# Audit of run")
    assert sorted(Path(audited.folder / "runs").iterdir()) == before and not list(tmp_path.iterdir())


@pytest.mark.nightly
def test_an_edited_row_is_named_with_step_and_quantity(audited: Any) -> None:
    run = audited.folder / "tampered"
    shutil.copytree(audited.folder / "runs" / "run", run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[1]["grad_norm"] *= 1.01
    rows[2]["train_loss"] -= 0.5
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = audit(audited, "tampered", expect=1)
    assert re.search(r"FAIL: the first difference is at step 4, grad_norm: .*\(0\.99%\)\. 1 of ", done.stdout)
    report = json.loads((run / "audit.json").read_text())
    first = report["numbers"]["first_difference"]
    assert (first["step"], first["quantity"], first["one"]) == (4, "grad_norm", rows[1]["grad_norm"])


@pytest.mark.nightly
def test_the_whole_run_is_reproduced_by_the_command_that_is_printed(audited: Any) -> None:
    *_, command = audit(audited, "--command", "runs/run").stdout.strip().splitlines()
    words = shlex.split(command)
    audited.run(child_command(*words[words.index("lcp") + 1 :]))
    compared = audit(audited, "--compare", "runs/run", "runs/run-again").stdout
    assert compared.startswith("PASS: identical: 27 numbers of 6 rows.")


@pytest.mark.nightly
def test_another_corpus_ends_the_audit(audited: Any) -> None:
    text = audited.folder / "text.txt"
    before = text.read_text()
    text.write_text(before + "\n\none more line")
    try:
        said = audit(audited, "--command", "runs/run", expect=2).stderr
        assert "is not what its settings prepare now" in said and "the corpus differs" in said
        assert "the tokenizer differs" not in said
    finally:
        text.write_text(before)


@pytest.mark.nightly
def test_the_commands_of_the_page_run(shell: Any) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    commands = [line for line in "\n".join(blocks).splitlines() if line and not line.startswith("#")]
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["uv", "run", "python"], command
        extra = []
        if words[3].endswith("train.py"):
            extra = ["trainer.max_steps=12", "trainer.sample_tokens=0"]
        if words[3].endswith("train.py") or "--experiment" in words:
            extra.append(f"data.cache_dir={shell.cache}")
        shell.run([sys.executable, str(PROJECT.parent / words[3]), *words[4:], *extra])
    assert len(commands) == 4
    report = json.loads((shell.folder / "audit-smoke-repeat.json").read_text())
    assert report["identical"] and report["numbers"]["compared_steps"] == [1, 2, 3, 4]
