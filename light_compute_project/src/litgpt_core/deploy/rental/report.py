"""What `lcp deploy` prints: the plan, the ledger, the end of a rental. Text from values; nothing is looked up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from litgpt_core.core.command_line import shown_command
from litgpt_core.core.durations import duration_text
from litgpt_core.core.text import byte_size, count
from litgpt_core.deploy.rental.candidates import Candidate
from litgpt_core.deploy.rental.ledger import RentalState
from litgpt_core.deploy.rental.planning import RentalPlan
from litgpt_core.deploy.rental.request import NODE_SHARE, TRAINING_SHARE
from litgpt_core.deploy.rental.session import CEILING


def plan_text(plan: RentalPlan) -> str:
    """The whole plan."""
    parts = [_candidates(plan.found)] if plan.found else ["A rehearsal on this computer: nothing is rented.\n"]
    parts += [_stops(plan), _travels(plan)]
    if plan.sources:
        parts.append("Prices, which change by the week:\n" + "".join(f"  {line}\n" for line in plan.sources))
    if plan.task:
        parts.append(f"The first task for SkyPilot:\n{_indented(plan.task)}")
    return "\n".join(parts)


def _candidates(found: Sequence[Candidate]) -> str:
    head = ("", "provider", "GPUs", "kind", "regions", "$/hour", "training", "$ in all", "")
    rows = []
    for number, each in enumerate(found):
        fits = each.train_hours == each.train_hours
        rows.append(
            (
                "->" if number == 0 and not each.obstacle else "",
                each.offer.provider,
                f"{each.count} x {each.offer.gpu}",
                "spot" if each.offer.spot else "on demand",
                str(len(each.offer.regions)) if each.offer.regions else "any",
                f"{each.hourly:.2f}",
                duration_text(each.train_hours * 3600) if fits else "-",
                f"{each.dollars:.2f}" if fits else "-",
                each.obstacle,
            )
        )
    minutes = found[0].conditions.setup_minutes
    note = (
        f"$ in all: with {minutes:g} minutes of set-up and the disk. Training: the planner's estimate at a model FLOPs "
        f"utilisation of {found[0].conditions.mfu:g}.\n"
    )
    return _table(head, rows) + note


def _stops(plan: RentalPlan) -> str:
    request = plan.request
    place = request.places[0]
    ceiling = min(request.max_hourly_cost, CEILING * place.hourly)
    hours = request.budget / ceiling
    return (
        f"Three stops under one budget of ${request.budget:.2f}, at a ceiling of ${ceiling:.2f} an hour:\n"
        f"  the training saves and ends at ${TRAINING_SHARE * request.budget:.2f},"
        f" after {_time(TRAINING_SHARE * hours)}\n"
        f"  the machine ends itself at     ${NODE_SHARE * request.budget:.2f}, after {_time(NODE_SHARE * hours)}\n"
        f"  this computer ends it at       ${request.budget:.2f}, after {_time(hours)}\n"
        f"Nothing above ${request.max_hourly_cost:.2f} an hour is taken (--max_hourly_cost).\n"
    )


def _travels(plan: RentalPlan) -> str:
    found = plan.contents
    code = [item for item in found.items if item.kind == "code"]
    size = byte_size(found.bytes_of("code"))
    lines = [f"  code    {size:>8}  {count(len(code), 'file')} that git tracks, commit {found.commit[:12]}"]
    if found.changed:
        lines.append(f"          {'':>8}  of these {count(len(found.changed), 'file')} changed since (needs --dirty)")
    if found.fingerprint:
        lines.append(
            f"  data    {byte_size(found.bytes_of('data')):>8}  prepared, fingerprint {found.fingerprint[:12]}"
        )
    for kind, what in (("inputs", "corpus and base model"), ("runs", "the run so far: rows and checkpoints")):
        if found.bytes_of(kind):
            lines.append(f"  {kind:<7} {byte_size(found.bytes_of(kind)):>8}  {what}")
    lines.append("  stays            .git, .venv, files that git does not track, other runs and data")
    if plan.request.secret_names:
        lines.append(f"  secrets          by name: {', '.join(plan.request.secret_names)}")
    return "What travels:\n" + "\n".join([*lines, *(f"  note: {note}" for note in found.notes)]) + "\n"


def ledger_text(states: Iterable[RentalState], *, now: float, path: Path) -> str:
    """Every rental and its machines, and dollars by provider."""
    rows, sums = [], dict[str, float]()
    for state in states:
        request = state.request
        for machine in state.machines:
            provider = machine.provider or request.engine
            spent, until = machine.dollars(now), now if machine.ended_at is None else machine.ended_at
            sums[provider] = sums.get(provider, 0.0) + (0.0 if request.engine == "local" else spent)
            rows.append(
                (
                    request.key,
                    str(machine.attempt),
                    provider,
                    time.strftime("%Y-%m-%d %H:%M", time.localtime(machine.asked_at)),
                    duration_text(until - machine.asked_at),
                    f"{machine.hourly:.2f}",
                    f"{spent:.2f}",
                    "RUNNING" if machine.ended_at is None else machine.ending,
                )
            )
        if not state.machines:
            rows.append(
                (request.key, "-", request.engine, "-", "-", "-", "0.00", state.closed or "open, without a machine")
            )
    if not rows:
        return f"No rental yet: {path}\n"
    head = ("rental", "machine", "provider", "since", "for", "$/hour", "$", "")
    total = "".join(f"  {name}: ${dollars:.2f}\n" for name, dollars in sorted(sums.items()))
    return (
        f"{_table(head, rows)}\nDollars by provider, counted from the request of a machine to its proven end:\n{total}"
    )


def ending_text(state: RentalState, *, now: float) -> str:
    """How a rental ended, and what to do next."""
    run = Path(state.request.run_dir) / state.request.name
    text = (
        f"{state.request.key}: {state.closed or 'open'}; {count(len(state.machines), 'machine')}, "
        f"${state.dollars(now):.2f} of ${state.request.budget:.2f}\n  the run: {run}\n"
    )
    if not state.is_over:
        text += f"  NOT PROVEN TO BE GONE: {shown_command('deploy', 'down', state.request.key)}\n"
    return text


def _time(hours: float) -> str:
    return duration_text(hours * 3600)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return "\n".join(lines) + "\n"


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
