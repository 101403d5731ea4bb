"""The audit of one run: its first steps, replayed in a fresh process from nothing but what the run folder records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litgpt_core.audit.causes import likely_causes, look_up, setting_causes
from litgpt_core.audit.corpus import check_same_data
from litgpt_core.audit.overrides import with_overrides
from litgpt_core.audit.recorded import RecordedRun
from litgpt_core.audit.replay import (
    as_recorded,
    recorded_variables,
    shortened,
    temporary_training,
    with_absolute_paths,
)
from litgpt_core.audit.report import (
    Report,
    Table,
    share,
    trace_numbers,
    trace_table,
    trace_verdict,
)
from litgpt_core.audit.trace import TraceComparison, compare_rows
from litgpt_core.config.compose import TrainConfig, check, load
from litgpt_core.config.diff import computing_sha256, differences, is_place
from litgpt_core.config.source import Source
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.files import sha256_of
from litgpt_core.core.text import count

logger = logging.getLogger(__name__)

Plain = dict[str, Any]
SIDES = ("recorded", "replayed")

USUAL_STEPS, MOST_STEPS = 50, 200
"""Steps that are replayed by default: 50, or up to the first validation if that comes within 200."""


def replay_run(path: Path, *, steps: int | None = None, changes: Sequence[str] = (), within: float = 0.0) -> Report:
    """Replay the first steps of a run, finished or interrupted, and compare every number of its rows.

    Args:
        path: The run folder.
        steps: How many; None: see `USUAL_STEPS`.
        changes: Overrides of the recorded settings, such as `trainer.accelerator=cpu`.
        within: Greatest relative difference that passes; 0 demands equality to the last bit.

    Raises:
        ConfigError: The folder holds no run, or no row within so many steps.
        DataError: The corpus has changed.
        LightComputeError: The replay failed.
    """
    run = RecordedRun.read(path)
    steps = how_many(run, steps)
    recorded = as_recorded(run)
    plain = with_overrides(recorded, changes) if changes else recorded
    config = checked(run, plain)
    fingerprint = check_same_data(run, config)
    logger.info(
        "replaying %s of %s steps of %s%s", steps, plain["trainer"]["max_steps"], run.path, _duration(run, steps)
    )
    variables = recorded_variables(run)
    with temporary_training() as place:
        replayed = place.train(shortened(plain, steps=steps), name="replay", variables=variables)
    found = compare_rows(run.rows, replayed.rows, up_to=steps, within=within)
    corrupt = run.corrupt_lines[:-1] if run.corrupt_lines[-1:] == [_last_line(run)] else run.corrupt_lines
    passed = found.agrees and not corrupt
    return Report(
        kind="replay",
        title=f"Audit of {run.name}: are its first {steps} steps reproduced?",
        passed=passed,
        verdict=_verdict(found, steps=steps, within=within, corrupt=corrupt),
        method=_method(run, steps=steps, fingerprint=fingerprint, variables=variables, changes=changes, within=within),
        tables=[trace_table(found, title="Recorded against replayed", sides=SIDES), _settings(run, replayed)],
        remarks=_remarks(run, replayed, steps=steps),
        likely_causes=[*setting_causes(recorded, plain), *likely_causes(run.environment, replayed.environment)],
        identical=found.identical and not corrupt,
        numbers={
            "run": run.name,
            "steps": steps,
            "within": within,
            "corrupt_lines": run.corrupt_lines,
            "changes": list(changes),
            **trace_numbers(found),
        },
        environments=dict(zip(SIDES, (run.environment, replayed.environment), strict=True)),
    )


def how_many(run: RecordedRun, steps: int | None) -> int:
    """The last step to replay.

    Raises:
        ConfigError: There is no row to compare with within so many steps.
    """
    first = min((row["step"] for row in run.rows), default=None)
    if first is None:
        raise ConfigError(f"{run.path / 'metrics.jsonl'} holds no row", needed="a run that has logged a step")
    furthest = max(run.undisturbed_steps, first)
    if steps is None:
        validated = min((r["step"] for r in run.rows if r.get("val_loss") is not None), default=USUAL_STEPS)
        wanted = max(first, validated if validated <= MOST_STEPS else USUAL_STEPS)
        return int(max(row["step"] for row in run.rows if row["step"] <= min(wanted, furthest)))
    if not first <= steps <= run.last_step:
        raise ConfigError(
            f"--steps {steps}, but {run.path} has rows from step {first} to step {run.last_step}",
            needed=f"a number from {first} to {run.last_step}",
            fix=f"--steps {min(max(steps, first), run.last_step)}",
        )
    if steps > furthest:
        raise ConfigError(
            f"--steps {steps}, but {run.path} was resumed after step {furthest} with other settings",
            needed="steps of one session: a replay has one set of settings",
            fix=f"--steps {furthest}",
        )
    return int(max(row["step"] for row in run.rows if row["step"] <= steps))


def checked(run: RecordedRun, plain: Plain) -> TrainConfig:
    """The config as settings; ConfigError where today's code does not take them."""
    _ = run.config  # says which commit is needed, if the recorded one is the trouble
    return check(dict(plain), source=Source(()))


def as_settings(run: Path | None, *, experiment: str | None, changes: Sequence[str]) -> tuple[str, Plain]:
    """Name and config of what is to be trained: a run's, as it was decided then, or an experiment's.

    Raises:
        ConfigError: There is no such run or experiment, or a setting is wrong.
        DataError: The run's corpus has changed.
    """
    if run is None:
        config = load([f"+experiment={experiment}", *changes])
        return str(experiment), with_absolute_paths(config.plain, base=Path.cwd())
    recorded = RecordedRun.read(run)
    plain = as_recorded(recorded)
    plain = with_overrides(plain, changes) if changes else plain
    check_same_data(recorded, checked(recorded, plain))
    return recorded.name, plain


def _verdict(found: TraceComparison, *, steps: int, within: float, corrupt: list[int]) -> str:
    many = f"{found.values} numbers of {len(found.steps)} rows up to step {steps}"
    verdict = trace_verdict(found, many=many, sides=SIDES, within=within)
    if not corrupt:
        return verdict
    lines = ", ".join(map(str, corrupt[:5]))
    return f"metrics.jsonl is corrupt: line {lines} holds no row. Apart from that: {verdict}"


def _method(
    run: RecordedRun,
    *,
    steps: int,
    fingerprint: str,
    variables: dict[str, str],
    changes: Sequence[str],
    within: float,
) -> list[str]:
    then = run.environment
    threads = look_up(then, "threads.torch") or then.get("torch_threads")
    decided = f"{then.get('device')}, {then.get('precision')}, {count(threads or 0, 'torch thread')}, "
    if look_up(then, "decisions.cpu_kernels"):
        decided += "by the training kernels"
    else:
        decided += "compiled" if look_up(then, "decisions.compile") or run.summary.get("compiled") else "not compiled"
    overrides = f"Further settings: {' '.join(changes)}." if changes else "No setting that affects a step was changed."
    variables_text = f" Environment: {' '.join(f'{k}={v}' for k, v in variables.items())}." if variables else ""
    required = "equality to the last bit" if within == 0 else f"a relative difference of at most {share(within)}"
    return [
        f"Read config.yaml, environment.json and metrics.jsonl of the run {run.name}.",
        f"Prepared its data again from its settings: fingerprint {fingerprint[:12]}, as recorded.",
        f"Trained steps 1 to {steps} in a new process and a temporary folder, from the recorded config and the "
        f"recorded decisions: {decided}. The learning-rate schedule is that of all {run.plain['trainer']['max_steps']} "
        f"steps (trainer.stop_after={steps}). {overrides}{variables_text}",
        f"Compared tokens, learning rate, training loss, gradient norm and validation loss of every row; required: "
        f"{required}.",
    ]


def _settings(run: RecordedRun, replayed: RecordedRun) -> Table:
    """Settings of the replay that differ from the recorded config."""
    found = differences(run.plain, replayed.plain)
    rows = [(line,) for key, line in found if not is_place(key)]
    note = "`auto` is replaced by what was decided then; checkpoints, samples and logging are off."
    return Table(title="Settings of the replay", header=("recorded -> replayed",), rows=rows, note=note)


def _remarks(run: RecordedRun, replayed: RecordedRun, *, steps: int) -> list[str]:
    then, remarks = run.environment, []
    if not run.summary:
        remarks.append(f"The run did not finish; its last row is step {run.last_step}.")
    if "packages" not in then:
        remarks.append(
            "The run was recorded by older code: without hashes of packages, torch's build and its switches."
        )
    for number, session in enumerate(run.sessions[1:], start=2):
        if session["from_step"] <= steps:
            remarks.append(
                f"Session {number} of the run continued from step {session['from_step']}, within these steps."
            )
    for line in run.changed_settings:
        remarks.append(f"A later session changed {line}; replayed with the former, up to that session.")
    if then.get("config_sha256") not in (None, computing_sha256(run.plain)):
        remarks.append("config.yaml is not the one that environment.json has recorded: it was changed later.")
    if diff := look_up(then, "code.diff_sha256"):
        file = run.path / "code.diff"
        complete = file.is_file() and diff == sha256_of(file)
        remarks.append(
            "The run's code was not committed; code.diff in the run folder holds what was changed."
            if complete
            else "The run's code was not committed, and code.diff is missing or not the one that was recorded."
        )
    now = replayed.environment
    if now.get("device") == "cuda" and not look_up(now, "determinism.deterministic_algorithms"):
        remarks.append(
            "GPU kernels that add in any order are allowed (trainer.deterministic=false): two equal runs may differ."
        )
    if any(row["step"] <= steps and row.get("val_loss") is not None for row in run.rows):
        return remarks
    remarks.append("None of these steps was validated, so the validation loss was not compared.")
    return remarks


def _duration(run: RecordedRun, steps: int) -> str:
    """How long it took the run."""
    known = [row for row in run.rows if row["step"] <= steps and row.get("elapsed_s")]
    return f", which took it {known[-1]['elapsed_s']:.0f} s" if known else ""


def _last_line(run: RecordedRun) -> int:
    return len(run.rows) + len(run.corrupt_lines)
