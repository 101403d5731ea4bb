"""`train.py -m`: every combination of comma-separated values, each run in a process of its own.

    grid (sweep_grid.py) -> one trial for each point (trial_store.py) -> child processes (trials.py)
    -> sweep.json, sweep.png, tables (results.py)

Separate processes, because a Trainer, a compiler cache and a CUDA context of one run must not affect the next. The same
command typed again continues a sweep: finished runs are left alone, the interrupted one goes on from its checkpoint.
What the run folders hold decides; the database may know less after a kill.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litgpt_core.core.command_line import command_for_record
from litgpt_core.core.errors import ConfigError
from litgpt_core.runs.result import is_done, result_of
from litgpt_core.search.devices import share_of_machine, visible_devices
from litgpt_core.search.findings import SearchResults
from litgpt_core.search.results import write_record
from litgpt_core.search.sweep_folder import DATABASE, known_before, refuse_foreign_folder, sessions_before
from litgpt_core.search.sweep_grid import Point, SweepGrid, make_grid
from litgpt_core.search.trial_store import TrialFacts, TrialStore, facts_of
from litgpt_core.search.trials import Outcome, TrialRun, TrialSource, carry_out, in_group, training_command
from litgpt_core.training.run_folder import is_used

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

logger = logging.getLogger(__name__)

JOBS = "sweep.jobs"
"""The one setting of a sweep that is none of its runs': how many run at the same time."""


def sweep(overrides: Sequence[str], *, script: Path | None = None) -> int:
    """Run the grid, or what is left of it. All configs are checked before the first run starts.

    Args:
        overrides: The command line without `-m`.
        script: What is started instead of `lcp train`, for tests.

    Returns:
        0 if all ended well; the exit code of the first run that did not; 130 or 143 after a signal.
    """
    jobs, overrides = _jobs(overrides)
    grid, command = make_grid(overrides), command_for_record("train", ["-m", *overrides])
    return carry_out(
        grid.folder, lambda: Sweep(grid, script=script, jobs=jobs, command=command), kind="sweep", jobs=jobs
    )


class Sweep(TrialSource):
    """The trials of one grid, each point's latest one being what counts.

    Args:
        grid: All runs, checked.
        script: What is started instead of `lcp train`, for tests.
        jobs: How many run at the same time.
        command: The command line, for the record.

    Raises:
        ConfigError: The folder holds another sweep; or a run's folder is in use by something else, or by other
            settings.
    """

    def __init__(self, grid: SweepGrid, *, script: Path | None, jobs: int, command: str) -> None:
        self.grid, self.script, self.jobs, self.command = grid, script, jobs, command
        before = known_before(grid)
        for point in grid.points:
            refuse_foreign_folder(point, grid=grid, sessions=sessions_before(before, point))
        self.store = TrialStore(grid.folder / DATABASE, name=grid.name)
        if self.store.is_new and before is not None:
            self._take_in(before)
        self.store.study.set_user_attr("axes", grid.axes)
        self.store.study.set_user_attr("command", command)
        self._waiting = [point for point in reversed(grid.points) if self._has_work(point)]
        self._devices = visible_devices() if jobs > 1 else []
        if len(self._waiting) < len(grid.points):
            logger.info(
                "sweep: %d of %d runs are done already", len(grid.points) - len(self._waiting), len(grid.points)
            )
        self.write()

    # ---- the state of the grid ----

    @property
    def metric(self) -> str:
        """What runs are compared by: bits per byte where the tokenizer is swept, else the loss."""
        return metric_of(self.grid)

    @property
    def findings(self) -> SearchResults:
        """For tables and plots: one trial for each point, in the order of the grid."""
        latest = self._latest()
        trials = []
        for point in self.grid.points:
            known = latest.get(point.name)
            facts = (
                TrialFacts(number=None, name=point.name, state="waiting", params=point.values)
                if known is None
                else replace(facts_of(known), params=point.values)
            )
            trials.append(replace(facts, overrides=point.overrides))
        return findings_of(self.grid, trials, command=self.command)

    @property
    def exit_code(self) -> int:
        """Of the first run that did not end well."""
        bad = (trial for trial in self.findings.trials if trial.state in ("diverged", "failed"))
        return next((trial.exit_code or 1 for trial in bad), 0)

    def write(self) -> None:
        """Write `sweep.json`."""
        write_record(self.findings)

    # ---- what the loop asks ----

    def next_run(self, place: int) -> TrialRun | None:
        """The run of the next point that has something left to do."""
        if not self._waiting:
            return None
        point = self._waiting.pop()
        overrides = list(point.overrides)
        known = self._latest().get(point.name)
        if (known is not None and known.user_attrs.get("sessions")) or self.grid.resume:
            overrides.append("run.resume=auto")
        overrides = in_group(overrides, point.config, group=self.grid.name)
        side_by_side = self.jobs > 1
        return TrialRun(
            self._trial(point, known),
            config=point.config,
            command=training_command(overrides, script=self.script),
            folder=self.grid.folder,
            metric=self.metric,
            output=self.grid.folder / "output" / f"{point.name}.txt" if side_by_side else None,
            environment=share_of_machine(place, jobs=self.jobs, devices=self._devices) if side_by_side else None,
        )

    def starting(self, run: TrialRun) -> None:
        """Write that it runs, so that the command after a kill knows it."""
        super().starting(run)
        self.write()

    def settle(self, run: TrialRun, outcome: Outcome) -> None:
        """Write how a run ended; a failure is one of this run alone."""
        state = {"ended_early": "stopped", "mistaken": "failed"}.get(outcome.state, outcome.state)
        sessions = self.store.trials[run.trial.number].user_attrs.get("sessions", 0)
        self.store.note(
            run.trial,
            sessions=max(sessions, 1),
            exit_code=outcome.ending.exit_code,
            problem=outcome.ending.problem,
            result=result_of(run.config),
        )
        self.store.end(run.trial, state, value=outcome.value)  # type: ignore[arg-type]
        self.write()
        name, problem = run.config.run.name, outcome.ending.problem
        if state == "done":
            logger.info("sweep: %s is done: %s %.4f", name, self.metric, outcome.value)
        else:
            logger.warning("sweep: %s %s: %s", name, state, problem or f"exit code {outcome.ending.exit_code}")

    # ---- below ----

    def _latest(self) -> dict[str, FrozenTrial]:
        return {trial.user_attrs["name"]: trial for trial in self.store.trials}

    def _has_work(self, point: Point) -> bool:
        """Whether a point is not over; one that diverged would do so again."""
        known = self._latest().get(point.name)
        state = None if known is None else facts_of(known).state
        if is_done(point.config):
            return state != "done" or known.user_attrs["result"] != result_of(point.config)  # type: ignore[union-attr]
        if state == "done" or (state == "diverged" and not is_used(point.config.run.folder)):
            self._trial(point, known)  # it is wanted longer now, or its folder is gone
            return True
        return state != "diverged"

    def _trial(self, point: Point, known: FrozenTrial | None) -> Trial:
        """The point's unfinished trial, or another one for it."""
        from optuna.distributions import CategoricalDistribution

        if known is not None and not known.state.is_finished():
            return self.store.handle(known)
        used = is_used(point.config.run.folder)
        return self.store.add(
            point.values,
            distributions={key: CategoricalDistribution(tuple(sorted(self.grid.axes[key]))) for key in point.values},
            name=point.name,
            run=point.config.run.folder.as_posix(),
            sessions=known.user_attrs.get("sessions", 0) if known is not None and used else 0,
            outcome="stopped" if used and known is not None else "waiting",
        )

    def _take_in(self, before: dict[str, Any]) -> None:
        """Trials of a sweep that an earlier version ran, which kept `sweep.json` alone."""
        entries = {entry["name"]: entry for entry in before["runs"]}
        for point in self.grid.points:
            entry = entries.get(point.name, {})
            if sessions := sessions_before(before, point):
                trial = self._trial(point, None)
                self.store.note(trial, sessions=sessions, outcome="stopped")
                if entry["state"] == "diverged":
                    self.store.note(trial, exit_code=entry["exit_code"], problem=entry["problem"])
                    self.store.end(trial, "diverged")


def metric_of(grid: SweepGrid) -> str:
    """What runs of a grid are compared by."""
    return "val_bpb" if any(key.split(".")[0] == "tokenizer" for key in grid.axes) else "val_loss"


def findings_of(grid: SweepGrid, trials: Sequence[TrialFacts], *, command: str) -> SearchResults:
    """What a grid has found."""
    return SearchResults(
        kind="sweep",
        name=grid.name,
        folder=grid.folder,
        metric=metric_of(grid),
        axes=grid.axes,
        trials=list(trials),
        settings={"command": command, "axes": grid.axes},
    )


def _jobs(overrides: Sequence[str]) -> tuple[int, list[str]]:
    rest = [text for text in overrides if not text.startswith(f"{JOBS}=")]
    given = [text for text in overrides if text not in rest]
    number = given[-1].partition("=")[2] if given else "1"
    if not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"{JOBS}={number}", needed="how many runs at the same time, 1 or more", fix=f"{JOBS}=2")
    return int(number), rest
