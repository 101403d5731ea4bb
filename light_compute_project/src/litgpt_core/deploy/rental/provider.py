"""What every place to rent at can do: make a machine with the parcel on it, list ours, end one, run a command there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import LightComputeError
from litgpt_core.deploy.rental.remote import RemoteShell
from litgpt_core.deploy.rental.request import Place, RentalRequest


class ProviderProblem(LightComputeError):
    """The provider refused, could not be reached, or answered something that is not understood."""


class NoCapacity(ProviderProblem):
    """There is no such machine now; another place may have one."""


class Refused(NoCapacity):
    """As the provider says: so nothing was made."""


class PriceAboveCeiling(ProviderProblem):
    """The machine that was given costs more than the ceiling. It must be ended."""


@dataclass(frozen=True, kw_only=True)
class RentedMachine:
    """A machine as the provider lists it."""

    number: str
    """The provider's."""
    name: str
    runs: bool
    """False once it was stopped or taken away; a stopped one may still cost money for its disk."""
    hourly: float | None = None
    """Dollars an hour as the provider says, without the disk; None where it does not say."""
    region: str = ""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a provider needs to make one machine."""

    request: RentalRequest
    name: str
    place: Place
    """The kind of machine, in any of its regions."""
    ceiling: float
    """Dollars an hour without the disk, above which it is refused."""
    parcel: Path
    """Folder to copy; its `node.sh` is started when all of it is there."""
    arming: str
    """Shell lines that make the machine end itself at its deadline: the first that it runs."""
    deadline: float
    """Seconds since the epoch."""
    secrets: Mapping[str, str]
    """Environment variables of the training. Never written to a file, never part of a command line."""


Created = Callable[[RentedMachine], None]
"""Called as soon as a machine exists: notes it, and raises `PriceAboveCeiling` where it costs too much."""


class Provider(ABC):
    """One place to rent at."""

    name: str
    ending_s: float = 0.0
    """How long it takes to end a machine and to prove it."""
    settle_s: float = 120.0
    """How long a machine that was requested may be missing from `machines`: an absence before that proves nothing."""

    @abstractmethod
    def launch(self, launch: Launch, *, created: Created) -> RentedMachine:
        """Make a machine, copy the parcel, start `node.sh`.

        Whatever is raised after the request was sent may leave a machine: the caller ends all of that name.

        Raises:
            Refused: Nothing was made, and nobody has such a machine.
            NoCapacity: As far as is known, nothing was made.
            ProviderProblem: Something failed.
        """

    @abstractmethod
    def machines(self, prefix: str) -> list[RentedMachine]:
        """All machines whose names begin with `prefix`, stopped ones included, as the provider knows them now.

        Raises:
            ProviderProblem: It cannot be asked: then nothing is known.
        """

    @abstractmethod
    def end(self, machine: RentedMachine) -> None:
        """End a machine for good, its disk included; one that is gone already is fine. Raises ProviderProblem."""

    @abstractmethod
    def shell(self, machine: RentedMachine, request: RentalRequest) -> RemoteShell:
        """Commands on the machine, in the folder of the parcel. Raises ProviderProblem where it cannot be reached."""
