"""The stop on the laptop: a pure rule when a rental has to end, and ending it until the provider has nothing of it.

Independent of the other two stops: it needs neither the training nor the machine to do anything, only the provider.
It looks one poll and the time that ending takes ahead, so that the budget is not exceeded by more than what one missed
poll costs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from litgpt_core.deploy.rental.ledger import Ledger, RentalState
from litgpt_core.deploy.rental.provider import Provider, ProviderProblem, RentedMachine
from litgpt_core.deploy.rental.request import NODE_SHARE

logger = logging.getLogger(__name__)

UNANSWERED_S = 3600.0
"""A machine that was requested this long ago and never confirmed is looked for by name and ended."""
ABANDONED_S = 6 * 3600.0
"""A rental that is open, without a machine, and that nobody has requested one for since, is closed."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What has to happen to a rental now."""

    end: bool
    why: str = ""


def judge(state: RentalState, *, now: float, poll_s: float, ending_s: float = 0.0) -> Verdict:
    """Whether a rental has to end now.

    Args:
        state: From the ledger.
        now: Seconds since the epoch.
        poll_s: Until this is asked again.
        ending_s: That ending a machine takes. For its sake nothing is ended before the machine would end itself.
    """
    if not state.open_machines:
        idle = now - max([state.opened_at, *(machine.ended_at or 0.0 for machine in state.machines)])
        abandoned = state.closed is None and idle > ABANDONED_S
        return Verdict(end=abandoned, why="nobody has gone on with it" if abandoned else "")
    if state.closed is not None:
        return Verdict(end=True, why=state.closed)  # whoever closed it may have been killed before it ended the machine
    budget = state.request.budget
    late = state.dollars(now + poll_s) >= NODE_SHARE * budget
    if late and state.dollars(now + poll_s + ending_s) >= budget:
        return Verdict(end=True, why=f"the budget of ${budget:.2f} is used up")
    dear = [m for m in state.open_machines if m.hourly > m.ceiling + 1e-9]
    if dear:
        return Verdict(end=True, why=f"{dear[0].name} costs ${dear[0].hourly:.2f} an hour, above its ceiling")
    unanswered = [m for m in state.open_machines if m.number is None and now - m.asked_at > UNANSWERED_S]
    if unanswered:
        return Verdict(end=True, why=f"{unanswered[0].name} was requested and never confirmed")
    return Verdict(end=False)


def adopt(state: RentalState, *, provider: Provider, ledger: Ledger, now: Callable[[], float]) -> list[RentedMachine]:
    """The machines of a rental as the provider lists them; prices that nobody had noted yet are noted.

    The process that requested a machine may have been killed before it noted the answer.
    """
    found = provider.machines(state.request.prefix)
    for record in state.open_machines:
        for machine in found:
            if record.number is None and machine.name == record.name:
                hourly = record.ceiling if machine.hourly is None else machine.hourly + record.storage
                ledger.given(
                    state.request,
                    time=now(),
                    attempt=record.attempt,
                    number=machine.number,
                    hourly=hourly,
                    provider=provider.name,
                )
    return found


def end_machines(
    state: RentalState,
    *,
    provider: Provider,
    ledger: Ledger,
    now: Callable[[], float],
    why: str,
    refused: bool = False,
) -> list[str]:
    """End every machine of a rental, found by number and by name, and note those that are proven to be gone.

    A machine whose request was not answered and that is not listed is gone only after `provider.settle_s`.

    Args:
        state: From the ledger.
        provider: Where they are.
        ledger: To note them in.
        now: Seconds since the epoch.
        why: For the ledger.
        refused: The provider has said of the last one that it was not made.

    Returns:
        What could not be ended or not be proven; empty when nothing of the rental is left.
    """
    problems: dict[str, str] = {}
    try:
        listed = adopt(state, provider=provider, ledger=ledger, now=now)
        numbers = {machine.number for machine in listed}
        noted = [
            RentedMachine(number=record.number, name=record.name, runs=True)
            for record in state.open_machines
            if record.number is not None and record.number not in numbers
        ]
        for machine in [*listed, *noted]:
            try:
                provider.end(machine)
            except ProviderProblem as problem:
                problems[machine.name] = f"{machine.name} ({machine.number}): {problem.given}"
        left = {machine.name for machine in provider.machines(state.request.prefix)}
    except ProviderProblem as problem:
        return [*problems.values(), f"{provider.name} could not be asked what is left: {problem.given}"]
    for name in sorted(left - problems.keys()):
        problems[name] = f"{name} still exists"
    seen = {machine.name for machine in [*listed, *noted]}
    for record in state.open_machines:
        fresh = now() - record.asked_at < provider.settle_s
        if record.name in problems:
            continue
        if record.name not in seen and fresh and not (refused and record is state.open_machines[-1]):
            problems[record.name] = f"{record.name} was requested a moment ago and may still appear"
            continue
        ledger.gone(state.request, time=now(), attempt=record.attempt, ended=True, why=why)
    return list(problems.values())


def guard_once(key: str, *, provider: Provider, ledger: Ledger, now: Callable[[], float], poll_s: float) -> bool:
    """One look at one rental: ends it if it has to.

    Returns:
        Whether the rental is over: closed, and proven to have no machine.
    """
    state = ledger.find(key)
    if any(machine.number is None for machine in state.open_machines):
        with contextlib.suppress(ProviderProblem):
            adopt(state, provider=provider, ledger=ledger, now=now)
            state = ledger.find(key)
    verdict = judge(state, now=now(), poll_s=poll_s, ending_s=provider.ending_s)
    if verdict.end:
        logger.warning("%s: ending it: %s", key, verdict.why)
        if state.closed is None:
            ledger.closed(state.request, time=now(), why=verdict.why)
        for problem in end_machines(state, provider=provider, ledger=ledger, now=now, why=verdict.why):
            logger.warning("%s: %s; trying again in %.0f s", key, problem, poll_s)
    return ledger.find(key).is_over


def guard(
    key: str, *, provider: Provider, ledger: Ledger, now: Callable[[], float], pause: Callable[[float], None]
) -> None:
    """Look at a rental until it is over."""
    poll_s = ledger.find(key).request.poll_s
    while not guard_once(key, provider=provider, ledger=ledger, now=now, poll_s=poll_s):
        pause(poll_s)
