"""One rental as it was requested: everything that another process needs to follow, relaunch or end it.

It is the first line of the rental in the ledger. Secrets are named, never held.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.redaction import redact_command

PREFIX = "lcp-"
"""Of every machine's name: what distinguishes ours from others of the same account."""

TRAINING_SHARE, NODE_SHARE = 0.91, 0.97
"""Of the budget: where the training saves and ends, and where the machine ends itself. The guard ends it at 1.0."""

ENGINES = ("sky", "runpod", "local")
"""SkyPilot; RunPod's own API; a process of this machine, for trying everything out without an account."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One kind of machine in one or more regions, cheapest first in a request.

    Attributes match `prices.Offer`; `hourly` is the whole machine with its disk, dollars.
    """

    provider: str
    gpu: str
    count: int
    accelerator: str
    hourly: float
    storage_hourly: float = 0.0
    """Of `hourly`, for the disk: a provider's answer about the price of a machine does not contain it."""
    regions: tuple[str, ...] = ()
    spot: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RentalRequest:
    """What is rented for what, and what it may cost.

    Raises:
        ConfigError: With every problem that was found.
    """

    name: str
    """Of the run."""
    rental_id: str
    """Six hex digits: two rentals of one run are different machines."""
    engine: str
    places: tuple[Place, ...]
    overrides: tuple[str, ...]
    """Of the training, as given on the command line."""
    run_dir: str
    """Absolute folder of runs on this machine; the far run is mirrored to `run_dir/name`."""
    parcel: str
    """Absolute folder that is copied to the machine."""
    budget: float
    """Dollars, all machines of this rental together."""
    max_hourly_cost: float
    disk_gb: int = 50
    secret_names: tuple[str, ...] = ()
    """Environment variables that the training gets from the environment of whoever launches."""
    setup: tuple[str, ...] = ()
    """Shell lines that install the project; empty: the default of the engine."""
    image: str = ""
    ssh_key: str = ""
    """File of a private key; empty: what ssh uses by itself."""
    poll_s: float = 60.0
    pull_every_s: float = 300.0
    """Seconds between copies of checkpoints to this machine."""
    max_relaunches: int = 20
    linger_s: float = 1800.0
    """How long a finished machine waits for its results to be fetched before it ends itself."""

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", self.name):
            problems.append(
                f"run.name={self.name!r}: needed letters, digits, dots, hyphens and underscores, at most 61"
            )
        if not re.fullmatch(r"[0-9a-f]{6}", self.rental_id):
            problems.append(f"rental id {self.rental_id!r}: needed six hex digits")
        if self.engine not in ENGINES:
            problems.append(f"--engine={self.engine}: needed one of {', '.join(ENGINES)}")
        for option in ("budget", "max_hourly_cost", "poll_s", "pull_every_s"):
            if not 0 < getattr(self, option) < 1e9:
                problems.append(f"{option}={getattr(self, option)}: needed a number above 0")
        if not self.places:
            problems.append("no machine is requested")
        for place in self.places:
            if place.hourly > self.max_hourly_cost:
                problems.append(
                    f"{place.count} x {place.gpu} at {place.provider} for ${place.hourly:.2f} an hour is above "
                    f"--max_hourly_cost={self.max_hourly_cost:g}"
                )
        for name in self.secret_names:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                problems.append(f"--secret {name.partition('=')[0]}=...: needed the name of an environment variable")
        for text in self.overrides:
            if redact_command(text) != text:
                problems.append(
                    f"{text.partition('=')[0]}=...: looks like a secret; it would be written into the ledger and the "
                    "machine's scripts. Set an environment variable and name it: --secret NAME"
                )
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def key(self) -> str:
        """Name of this rental in the ledger: `NAME-ID`."""
        return f"{self.name}-{self.rental_id}"

    def machine_name(self, attempt: int) -> str:
        """Name of the machine of an attempt (from 1), by which it is found if nobody noted its number."""
        short = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:24].strip("-") or "run"
        return f"{self.prefix}{short}-{attempt}"

    @property
    def prefix(self) -> str:
        """Beginning of the names of this rental's machines."""
        return f"{PREFIX}{self.rental_id}-"

    def to_plain(self) -> dict[str, Any]:
        """Plain values, for the ledger."""
        return dataclasses.asdict(self)

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> RentalRequest:
        """Back from the ledger.

        Raises:
            ConfigError: It is no request.
        """
        try:
            places = tuple(
                Place(**{**row, "regions": tuple(row["regions"]), "overrides": tuple(row["overrides"])})
                for row in plain["places"]
            )
            lists = {key: tuple(plain[key]) for key in ("overrides", "secret_names", "setup")}
            return cls(**{**plain, **lists, "places": places})
        except (KeyError, TypeError) as problem:
            raise ConfigError(f"the ledger's record of a rental cannot be read: {problem}") from problem


def new_id(taken: Sequence[str] = ()) -> str:
    """A fresh rental id."""
    while (made := secrets.token_hex(3)) in taken:
        pass
    return made
