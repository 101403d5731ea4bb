"""Every command of the READMEs and of eight pages of docs/ runs, in the order in which a reader types them.

Training by train.py is cut to a few steps.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litgpt_core import cli
from litgpt_core.core.command_line import child_command

PROJECT = Path(__file__).resolve().parents[2]
ROOT = PROJECT.parent
PAGES = (
    ROOT / "README.md",
    PROJECT / "README.md",
    PROJECT / "docs" / "data.md",
    PROJECT / "docs" / "inference.md",
    PROJECT / "docs" / "finetuning.md",
    PROJECT / "docs" / "sweeps.md",
    PROJECT / "docs" / "runs.md",
    PROJECT / "docs" / "analyze.md",
    PROJECT / "docs" / "distributed.md",
    PROJECT / "docs" / "slurm.md",
)
SHORT = (
    "trainer.max_steps=4",
    "trainer.eval_interval=2",
    "trainer.save_interval=2",
    "trainer.eval_tokens=2000",
    "trainer.sample_tokens=8",
    "trainer.compile=false",
)
NOT_RUN = ("git clone", "cd ", "make test", "make check")
"""Typed once by hand, or the very run that we are in."""


def commands(page: Path) -> list[str]:
    """Command lines of the page's bash blocks, without comments; continued lines are joined."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*$", "", raw).strip() for raw in lines) if line and line[0] != "#"]


def executable(words: list[str], cache: Path) -> list[str]:
    """What the test runs for `uv run ...`: the same program of the environment the tests run in."""
    assert words[:2] == ["uv", "run"], words
    words = words[2:]
    while words[0].startswith("--"):  # such as --extra tensorboard
        words = words[2:]
    if words[0] == "lcp":
        start, name = child_command(words[1]), cli.VERBS[cli.ALIASES.get(words[1], words[1:])[0]][0]
    elif words[0] == "python":
        start, name = [sys.executable, str(ROOT / words[1])], Path(words[1]).stem
        assert (ROOT / words[1]).is_file(), f"{words[1]} does not exist"
    else:
        return [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    extra = {
        "train": [*SHORT, f"data.cache_dir={cache}"],
        "study": [*SHORT, f"data.cache_dir={cache}", "--trials", "2"],
        "prepare_data": [f"data.cache_dir={cache}"],
    }
    return [*start, *words[2:], *([] if "--help" in words else extra.get(name, []))]


def write_chats(folder: Path) -> None:
    """A chat log and a folder of somebody else's conversations."""
    chats = [(f"What is {n} and {n}?", f"{2 * n}.") for n in range(20)]
    log = [{"user": user, "assistant": answer, "conversation_id": user} for user, answer in chats]
    others = [
        {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": f"It is {answer}"}]}
        for user, answer in chats
    ]
    (folder / "my_chats").mkdir()
    for path, rows in ((folder / "chat_history.jsonl", log), (folder / "my_chats" / "a.jsonl", others)):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_commands(lines: list[str], shell: Any, mirror: Path | None) -> int:
    """Run the commands in order, in a folder with texts and chats to learn from; how many were run."""
    texts = shell.folder / "my_texts"
    texts.mkdir()
    rng = random.Random(0)
    for number in range(8):
        words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(9000)]
        (texts / f"{number}.txt").write_text(" ".join(words))
    write_chats(shell.folder)
    if mirror is not None:
        shell.environment["LIGHT_COMPUTE_DATA_MIRROR"] = str(mirror)
    ran = 0
    for command in lines:
        if command.startswith(NOT_RUN) or (mirror is None and "shakespeare" in command):
            continue
        words = shlex.split(command.rpartition(" | ")[2])  # what is piped in does not matter here
        if words[0] == "make" or "pytest" in words:
            check = (
                ["make", "-n", *words[1:]] if words[0] == "make" else [*executable(words, shell.cache), "--co", "-q"]
            )
            done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            shell.run(executable(words, shell.cache))
        ran += 1
    return ran


def test_the_first_commands_of_the_readme_run(shell: Any, mirror: Path | None) -> None:
    """`make baseline` and `make test`, and both in their bare form, which reads only small files here and trains for a
    few steps."""
    first = commands(ROOT / "README.md")[:4]
    assert [line.split()[0] for line in first] == ["make", "make", "uv", "uv"]
    assert run_commands([*first[:2], f"{first[2]} data.max_file_bytes=6000", first[3]], shell, mirror) == 3
    assert (shell.folder / "runs" / "my-baseline" / "final" / "lit_model.pth").is_file()


@pytest.mark.nightly
@pytest.mark.parity
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_readme_runs(page: Path, shell: Any, mirror: Path | None) -> None:
    assert run_commands(commands(page), shell, mirror) >= 3
    shutil.rmtree(shell.folder / "runs", ignore_errors=True)  # not every page trains


def test_the_readme_opens_with_the_two_commands_and_make_runs_what_it_says() -> None:
    assert commands(ROOT / "README.md")[:2] == ["make baseline", "make test"]
    for target, wanted in (
        ("baseline", "run --no-sync python light_compute_project/scripts/train.py +experiment=baseline"),
        ("test", "run --no-sync pytest light_compute_project/tests"),
    ):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert wanted in done.stdout
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
