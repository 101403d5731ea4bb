"""The command that repeats a run: its settings as arguments, with its data checked and its code named."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from litgpt_core.audit.audit import checked
from litgpt_core.audit.causes import code_causes, look_up
from litgpt_core.audit.corpus import check_same_data
from litgpt_core.audit.overrides import arguments_for
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.audit.replay import as_recorded, recorded_variables
from litgpt_core.core.command_line import recorded_arguments, shown_words
from litgpt_core.core.source_code import code_state


def command_lines(path: Path) -> list[str]:
    """Lines for a shell: comments that begin with `#`, and one command.

    The command is the original one, plus what was decided automatically (device, precision, compiler, threads). It has
    been composed with the present configs and gives the recorded settings.

    Args:
        path: A run folder.

    Raises:
        ConfigError: There is no run, or the present code rejects its settings.
        DataError: Its corpus has changed.
    """
    run = RecordedRun.read(path)
    plain = as_recorded(run)
    plain["trainer"] |= {key: value for key, value in run.plain["trainer"].items() if key == "max_steps"}
    plain["trainer"].pop("stop_after", None)
    plain["run"] = {**plain["run"], "name": f"{run.name}-again", "resume": False}
    fingerprint = check_same_data(run, checked(run, plain))
    arguments = arguments_for(plain, given=original_arguments(run))
    variables = [f"{name}={shlex.quote(value)}" for name, value in sorted(recorded_variables(run).items())]
    command = shown_words("train", *arguments)
    return [
        f"# data: fingerprint {fingerprint[:12]}, unchanged",
        *(f"# {line}" for line in _code_lines(run)),
        " ".join([*variables, shlex.join(command)]),
    ]


def original_arguments(run: RecordedRun) -> list[str]:
    """The original arguments of `train`, without those that name the run and its folder."""
    first = run.sessions[0] if run.sessions else run.environment
    command = str(first.get("command") or run.summary.get("command") or "")
    words = recorded_arguments(command, verb="train", script="train.py")
    return [word for word in words if not word.lstrip("+").startswith("run.")]


def _code_lines(run: RecordedRun) -> list[str]:
    then: Any = look_up(run.environment, "code.package_sha256")
    if then is None:
        return [f"code: commit {run.commit or 'unknown'}; this older run recorded no file hashes"]
    differing = list(code_causes(run.environment, {"code": code_state().facts}, in_a_step=True))
    if not differing:
        return ["code: the source files used in training are unchanged since the run"]
    lines = [f"code: {differing[0].why}", f"      git checkout {run.commit or 'COMMIT'}"]
    if look_up(run.environment, "code.diff_sha256"):
        lines.append(f"      then git apply {(run.path / 'code.diff').as_posix()}")
    return lines
