"""Ledger and guard: whatever is killed whenever, the budget holds to one poll, and nothing is left running.

The provider, the clock and the machines are simulated; the ledger is the real file. Killing a process is an exception
that is raised at a random point of its work, after which it cannot do anything any more.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.rental.guard import end_machines, guard_once, judge
from litgpt_core.deploy.rental.ledger import Ledger
from litgpt_core.deploy.rental.provider import (
    Created,
    Launch,
    NoCapacity,
    PriceAboveCeiling,
    Provider,
    ProviderProblem,
    Refused,
    RentedMachine,
)
from litgpt_core.deploy.rental.remote import RemoteShell
from litgpt_core.deploy.rental.request import NODE_SHARE, Place, RentalRequest
from litgpt_core.deploy.rental.session import CEILING, RentalSession

POLL_S, BUDGET, HOURLY = 60.0, 10.0, 2.0


class Killed(BaseException):
    """kill -9 of the process on the laptop."""


class Simulated(Provider):
    """Machines that cost money from their making to their end; a clock that only this class moves.

    Attributes:
        obeys: Whether machines end themselves at their deadline.
        kill_at: Count of calls after which the calling process is dead; None: it lives.
        failing: Whether the provider's API is out of order.
    """

    name = "simulated"

    def __init__(self) -> None:
        self.time, self.obeys, self.failing = 1_000_000.0, True, False
        self.kill_at: int | None = None
        self.price: float = HOURLY
        self.mode = "fine"
        self.hidden_s = 0.0  # a fresh machine is not listed for so long
        self.alive: dict[str, tuple[str, float, float, float, bool]] = {}  # number -> name, from, price, deadline, runs
        self.billed = 0.0
        self.made = 0

    def step(self) -> None:
        """A point at which the calling process may be killed."""
        if self.kill_at is not None:
            self.kill_at -= 1
            if self.kill_at < 0:
                raise Killed

    def advance(self, seconds: float) -> None:
        until = self.time + seconds
        for number, (name, since, price, deadline, runs) in list(self.alive.items()):
            if self.obeys and deadline <= until:
                self._stop(number, at=max(deadline, since))
            else:
                self.alive[number] = (name, since, price, deadline, runs)
        self.time = until

    def _stop(self, number: str, *, at: float | None = None) -> None:
        _, since, price, _, _ = self.alive.pop(number)
        self.billed += ((self.time if at is None else at) - since) / 3600 * price

    def dollars(self) -> float:
        return self.billed + sum((self.time - since) / 3600 * price for _, since, price, _, _ in self.alive.values())

    def preempt(self, number: str) -> None:
        """Taken away: stopped, still listed and still billed, as RunPod does."""
        name, since, price, deadline, _ = self.alive[number]
        self.alive[number] = (name, since, price, deadline, False)

    # ---- Provider

    def launch(self, launch: Launch, *, created: Created) -> RentedMachine:
        self.step()
        if self.mode == "none":
            raise Refused("nobody has one")
        self.made += 1
        number = f"m{self.made}"
        self.alive[number] = (launch.name, self.time, self.price, launch.deadline, True)
        self.step()
        if self.mode == "half-open":
            raise ProviderProblem("the connection broke after the request")
        machine = RentedMachine(number=number, name=launch.name, runs=True, hourly=self.price)
        created(machine)
        self.step()
        if self.mode == "setup":
            raise ProviderProblem("copying failed")
        return machine

    def machines(self, prefix: str) -> list[RentedMachine]:
        self.step()
        if self.failing:
            raise ProviderProblem("503")
        return [
            RentedMachine(number=number, name=name, runs=runs, hourly=price)
            for number, (name, since, price, _, runs) in self.alive.items()
            if name.startswith(prefix) and self.time - since >= self.hidden_s
        ]

    def end(self, machine: RentedMachine) -> None:
        self.step()
        if self.failing:
            raise ProviderProblem("503")
        if machine.number in self.alive:
            self._stop(machine.number)

    def shell(self, machine: RentedMachine, request: RentalRequest) -> RemoteShell:
        raise ProviderProblem("simulated machines cannot be reached")


class BareSession(RentalSession):
    """A session whose parcel is empty."""

    def _prepared(self, place: Place, *, attempt: int, ceiling: float, now: float, left_s: float) -> Launch:
        return Launch(
            request=self.request,
            name=self.request.machine_name(attempt),
            place=place,
            ceiling=ceiling,
            parcel=Path("/nowhere"),
            arming="",
            deadline=now + left_s,
            secrets={},
        )


def rental(**changes: Any) -> RentalRequest:
    place = Place(provider="simulated", gpu="A100", count=1, accelerator="A100", hourly=HOURLY)
    values: dict[str, Any] = {
        "name": "r",
        "rental_id": "0a0a0a",
        "engine": "sky",
        "places": (place,),
        "overrides": (),
        "run_dir": "/nowhere",
        "parcel": "/nowhere",
        "budget": BUDGET,
        "max_hourly_cost": 2.5,
        "poll_s": POLL_S,
    }
    return RentalRequest(**{**values, **changes})


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("LIGHT_COMPUTE_RENTALS", str(tmp_path))
    return Ledger()


def opened(ledger: Ledger, provider: Simulated, **changes: Any) -> RentalSession:
    request = rental(**changes)
    ledger.opened(request, time=provider.time)
    return BareSession(request, provider=provider, ledger=ledger, now=lambda: provider.time, pause=provider.advance)


# ---- the ledger


def test_lines_that_a_killed_process_left_incomplete_cost_nothing_else(ledger: Ledger) -> None:
    request = rental()
    ledger.opened(request, time=1.0)
    ledger.asked(request, time=2.0, attempt=1, hourly=3.6)
    with ledger.path.open("ab") as file:
        file.write(b'{"time": 3.0, "rental": "r-0a0a0a", "event": "giv')
    ledger.given(request, time=4.0, attempt=1, number="n", hourly=1.8, provider="p")
    state = ledger.find("r")
    assert [machine.number for machine in state.machines] == ["n"] == [m.number for m in Ledger().find("r").machines]
    assert state.dollars(2.0 + 3600) == pytest.approx(1.8)
    assert ledger.path.stat().st_mode & 0o077 == 0, "readable by its owner alone"


def test_dollars_are_counted_from_the_request_at_the_ceiling_until_a_price_is_known(ledger: Ledger) -> None:
    request = rental()
    ledger.opened(request, time=0.0)
    ledger.asked(request, time=0.0, attempt=1, hourly=2.5)
    assert ledger.find("r").dollars(7200.0) == pytest.approx(5.0)
    ledger.given(request, time=10.0, attempt=1, number="n", hourly=2.0, provider="p")
    ledger.gone(request, time=3600.0, attempt=1, ended=False, why="taken away")
    ledger.asked(request, time=7200.0, attempt=2, hourly=2.5)
    state = ledger.find(request.key)
    assert state.dollars(10_800.0) == pytest.approx(2.0 + 2.5) and [m.attempt for m in state.open_machines] == [2]
    ledger.gone(request, time=10_800.0, attempt=2, ended=True, why="x")
    ledger.closed(request, time=10_900.0, why="finished")
    assert ledger.find("r").is_over and ledger.find("r").dollars(1e9) == pytest.approx(4.5)
    with pytest.raises(ConfigError, match="there is no rental 'other'"):
        ledger.find("other")


def test_garbage_in_the_ledger_is_skipped(ledger: Ledger) -> None:
    ledger.path.parent.mkdir(exist_ok=True)
    ledger.path.write_bytes(b"\xff\xfe\n{}\n[1]\nnull\n" + b'{"time": 1, "rental": "ghost", "event": "asked"}\n')
    assert ledger.rentals() == {}


# ---- the rule


def test_the_guard_ends_before_the_next_poll_would_be_too_late(ledger: Ledger) -> None:
    request = rental()
    ledger.opened(request, time=0.0)
    ledger.asked(request, time=0.0, attempt=1, hourly=2.0)
    unanswered = judge(ledger.find("r"), now=3601.0, poll_s=POLL_S)
    assert unanswered.end and "never confirmed" in unanswered.why
    ledger.given(request, time=1.0, attempt=1, number="n", hourly=2.0, provider="p")
    last = BUDGET / 2.0 * 3600
    assert not judge(ledger.find("r"), now=last - POLL_S - 1, poll_s=POLL_S).end
    assert "budget" in judge(ledger.find("r"), now=last - POLL_S, poll_s=POLL_S).why
    for ending_s in (60.0, 0.5 * last):  # never before the machine would end itself
        first = max(last - ending_s, NODE_SHARE * last) - POLL_S
        assert not judge(ledger.find("r"), now=first - 1, poll_s=POLL_S, ending_s=ending_s).end
        assert judge(ledger.find("r"), now=first + 1, poll_s=POLL_S, ending_s=ending_s).end
    ledger.closed(request, time=2.0, why="finished")
    assert judge(ledger.find("r"), now=3.0, poll_s=POLL_S).end, "closed, with a machine that is not proven to be gone"


def test_a_rental_that_nobody_goes_on_with_is_closed(ledger: Ledger) -> None:
    ledger.opened(rental(), time=0.0)
    assert not judge(ledger.find("r"), now=6 * 3600.0, poll_s=POLL_S).end
    assert "nobody" in judge(ledger.find("r"), now=6 * 3600.0 + 1, poll_s=POLL_S).why


def test_a_price_that_the_killed_process_did_not_note_is_noted_by_the_guard(ledger: Ledger) -> None:
    provider = Simulated()
    session = opened(ledger, provider)
    provider.price, provider.kill_at = 2.3, 2
    with pytest.raises(Killed):
        session.look()
    provider.kill_at = None
    assert session.state.open_machines[0].number is None and provider.alive
    guard_once(session.request.key, provider=provider, ledger=ledger, now=lambda: provider.time, poll_s=POLL_S)
    assert not provider.alive and "above its ceiling" in str(session.state.closed)
    assert session.state.machines[0].hourly == pytest.approx(2.3)


def test_nothing_above_the_ceiling_is_kept(ledger: Ledger) -> None:
    provider = Simulated()
    session = opened(ledger, provider)
    provider.price = HOURLY * CEILING + 0.01
    with pytest.raises(NoCapacity, match="more than the ceiling"):
        session.launch()
    assert not provider.alive and provider.dollars() == 0.0
    (machine,) = session.state.machines
    assert machine.ended_at is not None and "more than the ceiling" in machine.ending
    dear = Place(provider="simulated", gpu="H100", count=1, accelerator="H100", hourly=2.4)
    two = opened(ledger, provider, rental_id="0b0b0b", places=(session.request.places[0], dear))
    provider.price = 2.4
    assert two.launch() is not None and [m.hourly for m in two.state.open_machines] == [2.4]


@pytest.mark.parametrize("mode", ["half-open", "setup"])
def test_a_launch_that_fails_after_the_machine_was_made_leaves_none(ledger: Ledger, mode: str) -> None:
    provider = Simulated()
    provider.mode = mode
    session = opened(ledger, provider)
    with pytest.raises(ProviderProblem):
        session.launch()
    assert provider.made == 1 and not provider.alive and not session.state.open_machines


def test_a_preempted_machine_is_ended_for_good_and_another_is_requested(ledger: Ledger) -> None:
    provider = Simulated()
    session = opened(ledger, provider)
    assert not session.look() and list(provider.alive) == ["m1"]
    provider.advance(2 * POLL_S)
    provider.preempt("m1")
    assert not session.look() and list(provider.alive) == ["m2"], "the stopped one would cost money for its disk"
    assert [machine.name for machine in session.state.machines] == ["lcp-0a0a0a-r-1", "lcp-0a0a0a-r-2"]
    assert session.close("by hand") == [] and not provider.alive and session.close("again") == []


def test_relaunching_stops_when_the_money_is_used_up_or_too_many_were_taken_away(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litgpt_core.deploy.rental.session.LOST_STARTS", 1000)  # nobody can see simulated training
    provider = Simulated()
    session = opened(ledger, provider)
    for _ in range(100_000):
        if session.look():
            break
        for number in list(provider.alive):
            if random.Random(provider.made).random() < 0.02:
                provider.preempt(number)
        provider.advance(POLL_S)
    assert session.state.is_over and not provider.alive and provider.dollars() <= BUDGET
    few = opened(ledger, provider, rental_id="0c0c0c", max_relaunches=2)
    for _ in range(10):
        few.look()
        provider.advance(2 * POLL_S)
        for number in list(provider.alive):
            provider.preempt(number)
    assert few.state.closed == "3 machines were used" and not provider.alive


def test_a_machine_that_is_not_listed_yet_is_neither_lost_nor_proven_to_be_gone(ledger: Ledger) -> None:
    provider = Simulated()
    provider.hidden_s = 100.0
    session = opened(ledger, provider)
    assert not session.look() and provider.made == 1
    provider.advance(POLL_S)
    assert not session.look() and provider.made == 1, "no second machine is requested"
    provider.advance(POLL_S)
    assert [machine.number for machine in session.state.open_machines] == ["m1"]
    assert session.close("by hand") == [] and not provider.alive, "ended by its number"
    killed = opened(ledger, provider, rental_id="0e0e0e")
    provider.kill_at = 2
    with pytest.raises(Killed):
        killed.look()
    provider.kill_at = None
    assert provider.alive and "may still appear" in killed.close("by hand")[0]
    provider.advance(provider.settle_s)
    assert killed.close("again") == [] and not provider.alive and killed.state.is_over


def test_a_rental_that_was_closed_elsewhere_requests_nothing(ledger: Ledger) -> None:
    provider = Simulated()
    session = opened(ledger, provider)
    ledger.closed(session.request, time=provider.time, why="by hand")
    assert session.launch() is None and session.look() and provider.made == 0


# ---- random interleavings


def run_to_the_end(ledger: Ledger, provider: Simulated, key: str, *, limit: int = 2000) -> None:
    """What a laptop that works does: guard every poll until the rental is over."""
    for _ in range(limit):
        if guard_once(key, provider=provider, ledger=ledger, now=lambda: provider.time, poll_s=POLL_S):
            return
        provider.advance(POLL_S)
    raise AssertionError("the guard never ended it")


class Money(RuleBasedStateMachine):
    """The laptop's guard looks every poll, machines do not end themselves; everything else goes wrong at random."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.provider = Simulated()
        self.provider.obeys = False
        self.ledger = Ledger(Path(self.folder.name) / "ledger.jsonl")
        self.session = opened(self.ledger, self.provider)
        self.outage = 0  # polls that the provider did not answer, in a row
        self.longest_outage = 0

    def _poll(self) -> None:
        self.outage = self.outage + 1 if self.provider.failing else 0
        self.longest_outage = max(self.longest_outage, self.outage)
        guard_once(
            self.session.request.key,
            provider=self.provider,
            ledger=self.ledger,
            now=lambda: self.provider.time,
            poll_s=POLL_S,
        )

    @rule(mode=st.sampled_from(["fine", "none", "half-open", "setup"]), price=st.sampled_from([1.0, 2.0, 2.1, 2.3]))
    def look(self, mode: str, price: float) -> None:
        self.provider.mode, self.provider.price = mode, price
        with contextlib.suppress(ProviderProblem):
            self.session.look()

    @rule(after=st.integers(0, 8), price=st.sampled_from([1.0, 2.0, 2.3]))
    def killed_at_a_random_moment(self, after: int, price: float) -> None:
        self.provider.mode, self.provider.price, self.provider.kill_at = "fine", price, after
        with contextlib.suppress(Killed, ProviderProblem):
            self.session.look()
        self.provider.kill_at = None

    @rule(seconds=st.sampled_from([0.0, 30.0, 100.0]))
    def lists_lag(self, seconds: float) -> None:
        self.provider.hidden_s = seconds

    @rule(polls=st.integers(1, 90))
    def time_passes(self, polls: int) -> None:
        for _ in range(polls):
            self.provider.advance(POLL_S)
            self._poll()

    @rule()
    def outage_begins_or_ends(self) -> None:
        self.provider.failing = not self.provider.failing

    @precondition(lambda self: self.provider.alive)
    @rule()
    def preempted(self) -> None:
        self.provider.preempt(next(iter(self.provider.alive)))

    @invariant()
    def the_budget_holds(self) -> None:
        if not hasattr(self, "provider"):
            return
        slack = (1 + self.longest_outage) * POLL_S / 3600 * 2.5 * max(1, len(self.provider.alive))
        assert self.provider.dollars() <= BUDGET + slack

    def teardown(self) -> None:
        if not hasattr(self, "provider"):
            return
        self.provider.failing = False
        self.session.close("by hand")
        self.provider.advance(self.provider.settle_s)
        left = self.session.close("again")
        assert left == [] and not self.provider.alive, "nothing is left after down"
        assert self.session.state.is_over
        assert self.session.state.dollars(self.provider.time) >= self.provider.dollars() - 1e-9, (
            "never less than the bill"
        )
        self.folder.cleanup()


Money.TestCase.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMoney = Money.TestCase


def test_no_machine_is_left_after_a_hundred_kills_at_random_moments(ledger: Ledger) -> None:
    rng, provider = random.Random(7), Simulated()
    provider.obeys = False
    for number in range(100):
        session = opened(ledger, provider, rental_id=f"{number:06x}")
        provider.mode = rng.choice(["fine", "fine", "half-open", "setup", "none"])
        provider.kill_at = rng.randrange(7)
        before = provider.dollars()
        try:
            for _ in range(rng.randrange(1, 4)):
                session.look()
        except (Killed, ProviderProblem):
            pass
        provider.kill_at = None
        if rng.random() < 0.5:
            session.close("by hand")
            provider.advance(provider.settle_s)
            assert session.close("again, when a machine that was requested must have appeared") == []
        else:
            run_to_the_end(ledger, provider, session.request.key)
        assert not [name for name, *_ in provider.alive.values() if name.startswith(session.request.prefix)]
        assert provider.dollars() - before <= BUDGET + POLL_S / 3600 * 2.5
    assert not provider.alive and all(state.is_over for state in ledger.rentals().values())


def test_with_the_laptop_dead_the_machine_ends_itself_below_the_budget(ledger: Ledger) -> None:
    """The second stop alone: nobody looks any more after the launch."""
    for number, price in enumerate((1.0, 2.0, HOURLY * CEILING)):
        provider = Simulated()
        provider.price = price
        session = opened(ledger, provider, rental_id=f"{number:06x}")
        assert session.launch() is not None
        provider.advance(1e6)
        assert not provider.alive and provider.dollars() <= NODE_SHARE * BUDGET + 1e-9
        # the laptop comes back a week later: nothing is there, and the ledger says so
        run_to_the_end(ledger, provider, session.request.key)


def test_what_cannot_be_proven_is_said_and_tried_again(ledger: Ledger) -> None:
    provider = Simulated()
    session = opened(ledger, provider)
    session.launch()
    provider.failing = True
    left = session.close("by hand")
    assert left and "could not be asked" in left[0] and not session.state.is_over
    provider.failing = False
    now: Callable[[], float] = lambda: provider.time  # noqa: E731
    assert end_machines(session.state, provider=provider, ledger=ledger, now=now, why="again") == []
    assert session.state.is_over and not provider.alive


def test_the_price_error_is_a_provider_problem() -> None:
    assert issubclass(PriceAboveCeiling, ProviderProblem)
