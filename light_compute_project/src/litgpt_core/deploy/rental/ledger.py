"""The append-only record of every rental: what was requested, what was given, at which price, from when to when.

One JSON object a line, each flushed to disk before the action that it announces: a machine is in here **before** it is
requested, so that one whose request was never answered is looked for by its name. Lines are never changed. A line that
a killed process left incomplete is skipped, and the next one begins on a line of its own.

    opened    a rental, with the whole request
    asked     a machine is about to be requested: attempt, name, ceiling of its price
    given     it exists: provider's number and price; without a price, the ceiling counts
    lost      it is gone, and nobody here ended it: taken away, or ended by itself
    ended     it was ended, and the provider has none of its name any more
    closed    nothing of this rental will be requested again; how it ended

Dollars are counted from `asked` on, at the price with the disk, until `lost` or `ended`: at least what is billed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.lock import exclusive
from litgpt_core.core.parsing import ParsingError, parse_json
from litgpt_core.core.private_files import open_private
from litgpt_core.core.text import nearest
from litgpt_core.deploy.rental.request import RentalRequest

HOME_VARIABLE = "LIGHT_COMPUTE_RENTALS"
"""Environment variable: the folder of ledger, parcels and logs instead of `~/.light_compute_project/rentals`."""

MAX_LEDGER_BYTES = 200_000_000


def rentals_home() -> Path:
    """The folder of everything that is known about rentals; not made here."""
    given = os.environ.get(HOME_VARIABLE)
    return Path(given).expanduser().resolve() if given else Path.home() / ".light_compute_project" / "rentals"


@dataclass(kw_only=True)
class MachineRecord:
    """One machine of a rental, as the ledger tells it."""

    attempt: int
    name: str
    hourly: float
    """Dollars an hour with the disk: the ceiling until the provider has said its price."""
    asked_at: float
    """Seconds since the epoch."""
    ceiling: float = math.inf
    """What `hourly` may be at most."""
    storage: float = 0.0
    """Of `hourly`, for the disk."""
    number: str | None = None
    """The provider's; None if it never answered."""
    provider: str = ""
    ended_at: float | None = None
    ending: str = ""
    """How it ended."""

    def dollars(self, now: float) -> float:
        """Up to `now`, or up to its end."""
        until = now if self.ended_at is None else self.ended_at
        return max(0.0, until - self.asked_at) / 3600.0 * self.hourly


@dataclass(kw_only=True)
class RentalState:
    """A rental, folded from its lines."""

    request: RentalRequest
    opened_at: float
    machines: list[MachineRecord] = field(default_factory=list)
    closed: str | None = None
    """How it ended; None while something of it may still cost money."""

    @property
    def open_machines(self) -> list[MachineRecord]:
        """Those that were not proven to be gone."""
        return [machine for machine in self.machines if machine.ended_at is None]

    @property
    def is_over(self) -> bool:
        """Nothing of it costs money, and nothing will be requested."""
        return self.closed is not None and not self.open_machines

    def dollars(self, now: float) -> float:
        """Of all its machines up to `now`."""
        return sum(machine.dollars(now) for machine in self.machines)

    def hourly(self) -> float:
        """Dollars an hour of what runs now."""
        return sum(machine.hourly for machine in self.open_machines)


class Ledger:
    """The file, read and appended to.

    Args:
        path: Made, with its folder, at the first line; readable by this user alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = rentals_home() / "ledger.jsonl" if path is None else path
        self._read = 0
        self._states: dict[str, RentalState] = {}

    # ---- writing

    def append(self, *, time: float, rental: str, event: str, **facts: Any) -> None:
        """Write one line and flush it to disk; OSError if that fails, and then nothing may be requested."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = json.dumps({"time": time, "rental": rental, "event": event, **facts}, ensure_ascii=False)
        lock = self.path.with_name(f".{self.path.name}.lock")
        with exclusive(lock, purpose="writing the ledger of rentals", keep=True), open_private(self.path) as file:
            end = file.seek(0, os.SEEK_END)
            broken = end > 0 and (file.seek(end - 1), file.read(1))[1] != b"\n"
            file.seek(0, os.SEEK_END)
            file.write((b"\n" if broken else b"") + line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def opened(self, request: RentalRequest, *, time: float) -> None:
        """A rental begins."""
        self.append(time=time, rental=request.key, event="opened", request=request.to_plain())

    def asked(self, request: RentalRequest, *, time: float, attempt: int, hourly: float, storage: float = 0.0) -> None:
        """A machine is about to be requested; it may cost `hourly` dollars an hour, `storage` of it for the disk."""
        facts = {"attempt": attempt, "name": request.machine_name(attempt), "hourly": hourly, "storage": storage}
        self.append(time=time, rental=request.key, event="asked", **facts)

    def given(
        self, request: RentalRequest, *, time: float, attempt: int, number: str, hourly: float, provider: str
    ) -> None:
        """The provider has made it, at this price with the disk."""
        self.append(
            time=time,
            rental=request.key,
            event="given",
            attempt=attempt,
            number=number,
            hourly=hourly,
            provider=provider,
        )

    def gone(self, request: RentalRequest, *, time: float, attempt: int, ended: bool, why: str) -> None:
        """The provider has no machine of this attempt any more: ended from here, or lost."""
        event = "ended" if ended else "lost"
        self.append(time=time, rental=request.key, event=event, attempt=attempt, why=why)

    def closed(self, request: RentalRequest, *, time: float, why: str) -> None:
        """Nothing of this rental will be requested again."""
        self.append(time=time, rental=request.key, event="closed", why=why)

    # ---- reading

    def _new_rows(self) -> Iterator[dict[str, Any]]:
        """Complete lines that were not read before, in order. Raises ConfigError if the file is not a ledger at all."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._read:
                    self._read, self._states = 0, {}  # another file
                file.seek(self._read)
                data = file.read(MAX_LEDGER_BYTES + 1)
        except FileNotFoundError:
            return
        if len(data) > MAX_LEDGER_BYTES:
            raise ConfigError(f"{self.path} has {len(data):,} bytes", needed=f"at most {MAX_LEDGER_BYTES:,}")
        whole, _, _ = data.rpartition(b"\n")
        self._read += len(whole) + 1 if whole else 0
        for line in whole.split(b"\n"):
            try:
                row = parse_json(line) if line.strip() else None
            except ParsingError:
                continue  # a process was killed while it wrote
            if isinstance(row, dict) and {"time", "rental", "event"} <= row.keys():
                yield row

    def rentals(self) -> dict[str, RentalState]:
        """Every rental by its key, in the order in which they began."""
        self._catch_up()
        return {key: _copied(state) for key, state in self._states.items()}

    def find(self, name: str) -> RentalState:
        """The rental with this key, or the most recent one of the run with this name.

        Raises:
            ConfigError: There is none.
        """
        self._catch_up()
        fitting = [state for key, state in self._states.items() if name in (key, state.request.name)]
        if not fitting:
            raise ConfigError(
                f"there is no rental {name!r}{nearest(name, self._states)}", fix="lcp deploy ledger lists all of them"
            )
        return _copied(fitting[-1])

    def _catch_up(self) -> None:
        for row in self._new_rows():
            if row["event"] == "opened":
                request = RentalRequest.of_plain(row["request"])
                self._states[request.key] = RentalState(request=request, opened_at=float(row["time"]))
            elif row["rental"] in self._states:
                _fold(self._states[row["rental"]], row)


def _copied(state: RentalState) -> RentalState:
    return dataclasses.replace(state, machines=[dataclasses.replace(machine) for machine in state.machines])


def _fold(state: RentalState, row: Mapping[str, Any]) -> None:
    """Apply one line after `opened`."""
    event = row["event"]
    if event == "closed":
        state.closed = str(row.get("why", ""))
        return
    attempt = int(row["attempt"])
    if event == "asked":
        hourly, asked_at = float(row["hourly"]), float(row["time"])
        state.machines.append(
            MachineRecord(
                attempt=attempt,
                name=str(row["name"]),
                hourly=hourly,
                asked_at=asked_at,
                ceiling=hourly,
                storage=float(row.get("storage", 0.0)),
            )
        )
        return
    for machine in state.machines:
        if machine.attempt == attempt and machine.ended_at is None:
            if event == "given":
                machine.number, machine.hourly = str(row["number"]), float(row["hourly"])
                machine.provider = str(row.get("provider", ""))
            else:
                machine.ended_at, machine.ending = float(row["time"]), f"{event}: {row.get('why', '')}"
