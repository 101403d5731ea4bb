"""One rental from its first machine to its end: launch, follow, bring home, relaunch where a machine was taken away.

    for every kind of machine, cheapest first:
        ledger: asked      before anything is requested
        provider: launch   the ledger notes the price; above the ceiling the machine is ended
        anything raised -> every machine of that name is ended
    every poll:
        guard              ends the rental where it has to
        provider: machines ours is gone -> ended for good, the next attempt begins with the newest complete checkpoint
        mirror             rows, then checkpoints every `pull_every`
        the machine says   ended: final/ is fetched, the machine ended; failed: its log is fetched, the machine ended

State is in the ledger alone, so that another process can go on at any moment: `lcp deploy watch NAME`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from litgpt_core.config.compose import load
from litgpt_core.core.durations import duration_text
from litgpt_core.core.errors import ConfigError, LightComputeError
from litgpt_core.deploy.rental import parcel
from litgpt_core.deploy.rental.guard import end_machines, guard_once
from litgpt_core.deploy.rental.ledger import Ledger, RentalState, rentals_home
from litgpt_core.deploy.rental.mirror import FarState, Mirror
from litgpt_core.deploy.rental.node_script import FAILED_LINGER_S, NodeWork, arming, node_script
from litgpt_core.deploy.rental.progress import progress_line
from litgpt_core.deploy.rental.provider import (
    Launch,
    NoCapacity,
    PriceAboveCeiling,
    Provider,
    ProviderProblem,
    Refused,
    RentedMachine,
)
from litgpt_core.deploy.rental.remote import RemoteProblem, RemoteShell
from litgpt_core.deploy.rental.request import NODE_SHARE, TRAINING_SHARE, Place, RentalRequest
from litgpt_core.deploy.rental.setup_lines import setup_lines, training_command

logger = logging.getLogger(__name__)

CEILING = 1.05
"""Above the planned price of a kind of machine, what is still taken; never above `--max_hourly_cost`."""
SILENT_S = 3600.0
"""A machine on which `node.sh` has not begun by then is ended: its start failed where nobody said so."""
LOST_STARTS = 3
"""Machines in a row that ended before their training was seen to begin: the next one would not fare better."""
SHORTEST_S = 300.0
"""A machine is not requested for less training than this: the budget is as good as used up."""


class RentalClosed(LightComputeError):
    """Somebody has closed the rental meanwhile."""


class NothingRequested(RentalClosed):
    """Before the machine was requested."""


class RentalSession:
    """Carries out one rental.

    Args:
        request: As it is in the ledger.
        provider: Where its machines are.
        ledger: Its record.
        now: Seconds since the epoch.
        pause: Waits, seconds.
        shortest_s: Of training that a machine is still requested for.
    """

    def __init__(
        self,
        request: RentalRequest,
        *,
        provider: Provider,
        ledger: Ledger,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        shortest_s: float = SHORTEST_S,
    ) -> None:
        self.request, self.provider, self.ledger = request, provider, ledger
        self._now, self._pause, self._shortest_s = now, pause, shortest_s
        self.home = rentals_home() / request.key
        self.mirror = Mirror(Path(request.run_dir) / request.name, far=f"runs/{request.name}", logs=self.home / "logs")
        self._pulled_at = -1e18
        self._lost_starts = 0

    @property
    def state(self) -> RentalState:
        """From the ledger."""
        return self.ledger.find(self.request.key)

    # ---- the whole

    def run(self) -> str:
        """Follow the rental until it is over, with a machine or without one.

        Returns:
            How it ended.
        """
        while not self.look():
            self._pause(self.request.poll_s)
        return self.state.closed or ""

    def look(self) -> bool:
        """One poll. Returns whether the rental is over."""
        poll_s = self.request.poll_s
        if guard_once(self.request.key, provider=self.provider, ledger=self.ledger, now=self._now, poll_s=poll_s):
            return True
        state = self.state
        if state.closed is not None:
            return state.is_over
        try:
            machines = self.provider.machines(self.request.prefix)
        except ProviderProblem as problem:
            logger.warning("%s: %s", self.request.key, problem.given)
            return False
        running = [machine for machine in machines if machine.runs]
        if not running:
            return self._relaunch(state)
        try:
            return self._follow(running[-1])
        except (RemoteProblem, ProviderProblem) as problem:
            logger.warning("%s: %s", running[-1].name, problem.given)
            return False

    def close(self, why: str) -> list[str]:
        """End everything of the rental; what is left is returned."""
        if self.state.closed is None:
            self.ledger.closed(self.request, time=self._now(), why=why)
        return self._end(why)

    def _end(self, why: str, *, refused: bool = False) -> list[str]:
        """End all machines; what is left."""
        return end_machines(
            self.state, provider=self.provider, ledger=self.ledger, now=self._now, why=why, refused=refused
        )

    def fetch(self) -> list[str]:
        """Bring home what the machine has now; names of new checkpoints. Raises RemoteProblem, ProviderProblem."""
        running = [machine for machine in self.provider.machines(self.request.prefix) if machine.runs]
        if not running:
            return []
        shell = self.provider.shell(running[-1], self.request)
        self.mirror.pull_small(shell)
        new = self.mirror.pull_checkpoints(shell)
        return [*new, *(["final"] if self.mirror.pull_final(shell) else [])]

    # ---- one machine

    def launch(self) -> RentedMachine | None:
        """Request a machine, kind by kind; None if the rental is over instead (closed, or no money left).

        Raises:
            LightComputeError: Nobody has any of them, or something failed; nothing is left of it.
        """
        reasons = []
        for place in self.request.places:
            state = self.state
            if state.closed is not None:
                return None
            ceiling = min(self.request.max_hourly_cost, CEILING * place.hourly)
            left_s = (NODE_SHARE * self.request.budget - state.dollars(self._now())) / ceiling * 3600
            if left_s < self._shortest_s:
                self.close(f"the budget is used up: ${state.dollars(self._now()):.2f} of ${self.request.budget:.2f}")
                return None
            try:
                return self._launch(place, attempt=len(state.machines) + 1, ceiling=ceiling, left_s=left_s)
            except (NoCapacity, PriceAboveCeiling) as problem:
                reasons.append(f"{place.count} x {place.gpu} at {place.provider}: {problem.given}")
                logger.info("%s; trying the next kind", reasons[-1])
            except RentalClosed:
                return None
        raise NoCapacity("no machine could be had:\n    " + "\n    ".join(reasons))

    def _launch(self, place: Place, *, attempt: int, ceiling: float, left_s: float) -> RentedMachine:
        request, now = self.request, self._now()
        launch = self._prepared(place, attempt=attempt, ceiling=ceiling, now=now, left_s=left_s)
        self.ledger.asked(request, time=now, attempt=attempt, hourly=ceiling, storage=place.storage_hourly)

        def created(machine: RentedMachine) -> None:
            hourly = ceiling if machine.hourly is None else machine.hourly + place.storage_hourly
            self.ledger.given(
                request,
                time=self._now(),
                attempt=attempt,
                number=machine.number,
                hourly=hourly,
                provider=place.provider,
            )
            if hourly > ceiling + 1e-9:
                raise PriceAboveCeiling(f"it costs ${hourly:.2f} an hour, more than the ceiling of ${ceiling:.2f}")
            if self.state.closed is not None:
                raise RentalClosed("the rental was closed while its machine was made")

        try:
            if self.state.closed is not None:
                raise NothingRequested("the rental was closed")
            machine = self.provider.launch(launch, created=created)
        except BaseException as problem:
            why = problem.given if isinstance(problem, LightComputeError) else type(problem).__name__
            refused = isinstance(problem, (Refused, NothingRequested))
            for left in self._end(why, refused=refused):
                logger.warning("%s: %s: see lcp deploy down %s", launch.name, left, request.key)
            raise
        logger.info("%s runs; it ends itself in %s", machine.name, duration_text(launch.deadline - self._now()))
        return machine

    def _prepared(self, place: Place, *, attempt: int, ceiling: float, now: float, left_s: float) -> Launch:
        """The parcel and its scripts."""
        request, folder = self.request, Path(self.request.parcel)
        secrets = {name: os.environ[name] for name in request.secret_names if name in os.environ}
        if missing := sorted(set(request.secret_names) - secrets.keys()):
            raise ConfigError(f"--secret {missing[0]}: this variable is not set", fix=f"export {missing[0]}")
        local = request.engine == "local"
        contents = parcel.survey(
            load([*request.overrides, f"run.name={request.name}", f"run.dir={request.run_dir}"]), dirty=True
        )
        deadline = now + left_s
        spent = self.state.dollars(now)
        arming_lines = arming(deadline=deadline, now=now, local=local)
        work = NodeWork(
            setup=request.setup or setup_lines(local=local),
            command=training_command(request, place, contents.overrides, local=local),
            stop_at=now + (TRAINING_SHARE * request.budget - spent) / ceiling * 3600,
            now=now,
            linger_s=request.linger_s,
            run_folder=f"runs/{request.name}",
            failed_linger_s=max(FAILED_LINGER_S, 3 * request.poll_s),
        )
        parcel.pack(contents, folder, texts={"node.sh": node_script(work, arming_lines=arming_lines)})
        return Launch(
            request=request,
            name=request.machine_name(attempt),
            place=place,
            ceiling=ceiling - place.storage_hourly,
            parcel=folder,
            arming=arming_lines,
            deadline=deadline,
            secrets=secrets,
        )

    def _follow(self, machine: RentedMachine) -> bool:
        """Look at a running machine; whether the rental is over."""
        shell = self.provider.shell(machine, self.request)
        far = self.mirror.state(shell)
        self.mirror.pull_small(shell)
        if far.word in ("training", "ended"):
            self._lost_starts = 0
        if far.word in ("ended", "failed"):
            return self._finish(shell, far)
        record = next((each for each in self.state.open_machines if each.name == machine.name), None)
        if not far.word and record is not None and self._now() - record.asked_at > SILENT_S:
            for problem in self.close("node.sh never began on the machine"):
                logger.warning("%s: %s", self.request.key, problem)
            return self.state.is_over
        if self._now() - self._pulled_at >= self.request.pull_every_s:
            for name in self.mirror.pull_checkpoints(shell):
                logger.info("%s: %s is here", self.request.name, name)
            self._pulled_at = self._now()
        logger.info("%s", progress_line(self.state, self.mirror.folder, now=self._now(), word=far.word))
        return False

    def _finish(self, shell: RemoteShell, far: FarState) -> bool:
        """The machine has done its work, or could not: bring everything home, then end it."""
        if far.word == "failed":
            why = f"set-up failed with {far.code}: see {self.mirror.logs / 'setup.log'}"
            self._show_end("setup.log")
        else:
            self.mirror.pull_checkpoints(shell)
            done = self.mirror.pull_final(shell)
            if far.code:
                why = f"training failed with {far.code}: see {self.mirror.logs / 'train.log'}"
                self._show_end("train.log")
            else:
                why = "finished" if done else "the training stopped before its end: its share of the budget is used up"
        for problem in self.close(why):
            logger.warning("%s: %s", self.request.key, problem)
        return self.state.is_over

    def _show_end(self, name: str) -> None:
        """Log the last lines of what set-up or training wrote on the machine."""
        lines = self.mirror.last_lines(name)
        logger.warning("%s, the end of %s:%s", self.request.key, name, "".join(f"\n    {line}" for line in lines))

    def _relaunch(self, state: RentalState) -> bool:
        """No machine of ours runs: end what was stopped, and request the next one. Whether the rental is over."""
        if any(self._now() - machine.asked_at < self.provider.settle_s for machine in state.open_machines):
            return False  # it may not be listed yet
        problems = self._end("taken away, or ended by itself") if state.open_machines else []
        if problems:
            logger.warning("%s: %s", self.request.key, "; ".join(problems))
            return False
        self._lost_starts += bool(state.open_machines)
        if self._lost_starts >= LOST_STARTS:
            self.close(f"{LOST_STARTS} machines ended before their training was seen to begin: see {self.mirror.logs}")
            return True
        if len(state.machines) > self.request.max_relaunches:
            self.close(f"{len(state.machines)} machines were used")
            return True
        if state.machines:
            logger.warning("%s: the machine is gone; requesting another one", self.request.key)
        self._pulled_at = -1e18
        try:
            self.launch()
        except NoCapacity as problem:
            logger.warning("%s; trying again in %s", problem.given, duration_text(self.request.poll_s))
        except LightComputeError as problem:
            self.close(problem.given)
            raise
        return self.state.is_over
