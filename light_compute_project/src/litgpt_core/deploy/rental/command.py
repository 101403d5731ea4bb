"""The command line of `lcp deploy` and `lcp runpod`: arguments in, one call, text out."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from litgpt_core.core.command_line import CommandParser, child_command, shown_command
from litgpt_core.core.durations import seconds_of
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.text import nearest

if TYPE_CHECKING:
    from litgpt_core.deploy.rental.ledger import Ledger, RentalState
    from litgpt_core.deploy.rental.provider import Provider
    from litgpt_core.deploy.rental.request import RentalRequest

logger = logging.getLogger(__name__)

ACTIONS = {
    "plan": "what it would cost where, what travels; needs no account",
    "up": "rent, train, bring home, end",
    "watch": "follow a rental from another terminal, and go on with it",
    "fetch": "copy what the machine has now",
    "down": "end a rental and prove that nothing of it is left; --all: every one",
    "ledger": "every rental ever: machines, hours, dollars, how it ended",
    "guard": "only the stop on this computer; up starts it by itself",
}


def parse(
    arguments: Sequence[str], *, description: str, verb: str = "deploy", engine: str = "sky"
) -> argparse.Namespace:
    """The parsed command line; prints help and exits where that is requested."""
    listed = "\n".join(f"  {name:<7} {text}" for name, text in ACTIONS.items())
    parser = CommandParser(verb, description=f"{description}\n\nactions:\n{listed}", allow_abbrev=False)
    add = parser.add_argument
    add("action", help="see above")
    add("words", nargs="*", metavar="OVERRIDE", help="plan, up: settings of the training; else the name of a rental")
    where = parser.add_argument_group("which machines")
    where.add_argument("--gpu", metavar="KIND[:N],...", help="GPUs, and how many in one machine: H100:1,A100,RTX4090:2")
    where.add_argument("--cloud", metavar="NAME,...", help="providers: runpod, lambda, nebius (all of the price table)")
    where.add_argument("--region", metavar="PATTERN,...", help="regions and zones: US, eu-*, runpod/US (all)")
    where.add_argument("--spot", action="store_true", help="only machines that may be taken away, at their lower price")
    where.add_argument("--no_spot", action="store_true", help="none of those")
    where.add_argument(
        "--prices", type=Path, metavar="FILE", help="a YAML file of offers instead of the built-in table"
    )
    where.add_argument("--disk", type=int, default=50, metavar="GB", help="disk of a machine (50)")
    where.add_argument(
        "--engine", default=engine, help=f"sky: SkyPilot; runpod: its own API; local: a rehearsal ({engine})"
    )
    cost = parser.add_argument_group("what it may cost")
    cost.add_argument("--budget", type=float, default=20.0, metavar="DOLLARS", help="of the whole rental (20)")
    cost.add_argument("--max_hourly_cost", type=float, default=5.0, metavar="DOLLARS", help="of a machine (5)")
    cost.add_argument(
        "--setup_minutes", type=float, default=10.0, metavar="N", help="assumed until the first step (10)"
    )
    cost.add_argument("--mfu", type=float, default=0.4, help="assumed model FLOPs utilisation, as for lcp plan (0.4)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--secret", action="append", default=[], metavar="NAME", help="environment variable to pass on; repeatable"
    )
    how.add_argument("--dirty", action="store_true", help="send changed files as they are")
    how.add_argument(
        "--setup", action="append", default=[], metavar="LINE", help="shell line that installs; repeatable"
    )
    how.add_argument("--image", default="", help="container image of the machine")
    how.add_argument("--ssh_key", default="", metavar="FILE", help="private key for RunPod's machines")
    how.add_argument("--poll", default="60s", metavar="TIME", help="between two looks (60s)")
    how.add_argument("--pull_every", default="5m", metavar="TIME", help="between two copies of checkpoints (5m)")
    how.add_argument("--yes", action="store_true", help="do not ask before money is spent")
    how.add_argument("--all", action="store_true", help="down: every rental that is not over")
    return parser.parse_intermixed_args(list(arguments))


def carry_out(options: argparse.Namespace) -> int:
    """Do what the action says; the exit code.

    Raises:
        LightComputeError: With everything that is wrong.
    """
    if options.action not in ACTIONS:
        raise ConfigError(
            f"there is no action {options.action!r}{nearest(options.action, ACTIONS)}", fix="lcp deploy --help"
        )
    if options.action in ("plan", "up"):
        return _plan_or_up(options)
    from litgpt_core.deploy.rental.ledger import Ledger
    from litgpt_core.deploy.rental.report import ledger_text

    ledger = Ledger()
    if options.action == "ledger":
        sys.stdout.write(ledger_text(ledger.rentals().values(), now=time.time(), path=ledger.path))
        return 0
    if options.action == "down" and options.all:
        states = [state for state in ledger.rentals().values() if not state.is_over]
        return max([_down(state, ledger) for state in states], default=_say("no rental is open\n"))
    if len(options.words) != 1:
        raise ConfigError(
            f"lcp deploy {options.action} needs the name of one rental", fix="lcp deploy ledger lists them"
        )
    state = ledger.find(options.words[0])
    if options.action == "down":
        return _down(state, ledger)
    return {"watch": _watch, "fetch": _fetch, "guard": _guard}[options.action](state, ledger)


def provider_of(request: RentalRequest) -> Provider:
    """The provider of a request's engine. Raises EnvironmentProblem where a key or program is missing."""
    if request.engine == "local":
        from litgpt_core.deploy.rental.local_machine import LocalMachines

        return LocalMachines(hourly=request.places[0].hourly)
    if request.engine == "runpod":
        from litgpt_core.deploy.rental.runpod import RunPod

        return RunPod()
    from litgpt_core.deploy.rental.skypilot import SkyPilot

    return SkyPilot(extras=sorted({place.provider for place in request.places}))


# ---- plan and up


def _plan_or_up(options: argparse.Namespace) -> int:
    from litgpt_core.deploy.rental.planning import make_plan
    from litgpt_core.deploy.rental.report import plan_text

    plan = make_plan(options, poll_s=seconds_of(options.poll), pull_every_s=seconds_of(options.pull_every))
    sys.stdout.write(plan_text(plan))
    if options.action == "plan":
        return 0
    _confirm(options, budget=options.budget)
    from litgpt_core.deploy.rental.ledger import Ledger

    ledger, request = Ledger(), plan.request
    provider = provider_of(request)
    for name in request.secret_names:
        if name not in os.environ:
            raise ConfigError(f"--secret {name}: this variable is not set", fix=f"export {name}")
    if not options.dirty and plan.contents.changed:
        raise AssertionError("the survey has refused a changed tree")
    ledger.opened(request, time=time.time())
    _start_guard(request)
    logger.info(
        "%s: Ctrl-C ends this display, not the rental: %s",
        request.key,
        shown_command("deploy", "down", request.key),
    )
    return _session(request, provider, ledger)


def _confirm(options: argparse.Namespace, *, budget: float) -> None:
    if options.yes or options.engine == "local":
        return
    if not sys.stdin.isatty():
        raise ConfigError("this spends money, and nobody is here to confirm it", fix="--yes")
    sys.stdout.write(f"Type the budget to spend up to ${budget:g}: ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lstrip("$") != f"{budget:g}":
        raise ConfigError("not confirmed: nothing was rented")


def _start_guard(request: RentalRequest) -> None:
    """The stop on this computer, in a process of its own that outlives this one and its terminal."""
    from litgpt_core.deploy.rental.ledger import rentals_home

    log = rentals_home() / request.key / "guard.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        subprocess.Popen(
            child_command("deploy", "guard", request.key),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _session(request: RentalRequest, provider: Provider, ledger: Ledger) -> int:
    from litgpt_core.deploy.rental.report import ending_text
    from litgpt_core.deploy.rental.session import RentalSession

    session = RentalSession(request, provider=provider, ledger=ledger)
    ending = session.run()
    sys.stdout.write(ending_text(session.state, now=time.time()))
    return 0 if ending == "finished" else 1


# ---- the other actions


def _watch(state: RentalState, ledger: Ledger) -> int:
    if state.is_over:
        from litgpt_core.deploy.rental.report import ending_text

        sys.stdout.write(ending_text(state, now=time.time()))
        return 0
    return _session(state.request, provider_of(state.request), ledger)


def _fetch(state: RentalState, ledger: Ledger) -> int:
    from litgpt_core.deploy.rental.session import RentalSession

    session = RentalSession(state.request, provider=provider_of(state.request), ledger=ledger)
    new = session.fetch()
    return _say(f"{session.mirror.folder}: rows and records are here{'; new: ' + ', '.join(new) if new else ''}\n")


def _guard(state: RentalState, ledger: Ledger) -> int:
    from litgpt_core.deploy.rental.guard import guard

    guard(state.request.key, provider=provider_of(state.request), ledger=ledger, now=time.time, pause=time.sleep)
    return 0


def _down(state: RentalState, ledger: Ledger) -> int:
    """End one rental; 0 only if the provider has nothing of it any more."""
    from litgpt_core.deploy.rental.session import RentalSession

    request = state.request
    provider = provider_of(request)
    session = RentalSession(request, provider=provider, ledger=ledger)
    left = session.close("ended by hand")
    if left:
        raise EnvironmentProblem(
            f"{request.key} is not proven to be gone:\n    " + "\n    ".join(left),
            needed=f"{provider.name} to answer and to have no machine named {request.prefix}*",
            fix=f"{shown_command('deploy', 'down', request.key)} again, or the provider's console",
        )
    spent = session.state.dollars(time.time())
    return _say(f"{request.key}: {provider.name} has no machine of it; ${spent:.2f} by this computer's count\n")


def _say(text: str) -> int:
    sys.stdout.write(text)
    return 0
