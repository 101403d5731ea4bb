"""The command that repeats a run: its settings as arguments, its data checked, its code named."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from litgpt_core.audit.audit import checked
from litgpt_core.audit.corpus import check_same_data
from litgpt_core.audit.overrides import arguments_for
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.audit.replay import as_recorded, recorded_variables
from litgpt_core.audit.suspects import code_suspects, look_up
from litgpt_core.core.source_code import code_state

SCRIPT = "light_compute_project/scripts/train.py"


def command_lines(path: Path) -> list[str]:
    """Lines to type: comments that begin with `#`, and one command.

    The command is what was typed then, and besides what the machine decided (device, precision, compiler, threads).
    It has been composed with the configs as they are now, and gives the recorded settings.

    Args:
        path: A run folder.

    Raises:
        ConfigError: There is no run, or today's code does not take its settings.
        DataError: Its corpus is another one by now.
    """
    run = RecordedRun.read(path)
    plain = as_recorded(run)
    plain["trainer"] |= {key: value for key, value in run.plain["trainer"].items() if key == "max_steps"}
    plain["trainer"].pop("stop_after", None)
    plain["run"] = {**plain["run"], "name": f"{run.name}-again", "resume": False}
    fingerprint = check_same_data(run, checked(run, plain))
    arguments = arguments_for(plain, typed=typed_arguments(run))
    variables = [f"{name}={shlex.quote(value)}" for name, value in sorted(recorded_variables(run).items())]
    command = ["uv", "run", "python", SCRIPT, *arguments]
    return [
        f"# data: fingerprint {fingerprint[:12]}, as then",
        *(f"# {line}" for line in _code_lines(run)),
        " ".join([*variables, shlex.join(command)]),
    ]


def typed_arguments(run: RecordedRun) -> list[str]:
    """What was typed behind `train.py`, without what names the run and its folder."""
    first = run.sittings[0] if run.sittings else run.environment
    words = shlex.split(str(first.get("command") or run.summary.get("command") or ""))
    place = next((n for n, word in enumerate(words) if word.endswith("train.py")), len(words))
    return [word for word in words[place + 1 :] if not word.lstrip("+").startswith("run.")]


def _code_lines(run: RecordedRun) -> list[str]:
    then: Any = look_up(run.environment, "code.package_sha256")
    if then is None:
        return [f"code: commit {run.commit or 'unknown'}; older code recorded no more"]
    differing = list(code_suspects(run.environment, {"code": code_state().facts}, in_a_step=True))
    if not differing:
        return ["code: the source files that take part in a step are those of the run"]
    lines = [f"code: {differing[0].why}", f"      git checkout {run.commit or 'COMMIT'}"]
    if look_up(run.environment, "code.diff_sha256"):
        lines.append(f"      then git apply {(run.path / 'code.diff').as_posix()}")
    return lines
