"""The rehearsal: a "machine" is a process group of this computer, in a folder of its own. Costs nothing.

Everything else is as with a rented machine: parcel, `node.sh`, self-destruct, guard, ledger, checkpoints that are
pulled, relaunch. `lcp deploy up --engine local` shows what a rental does; tests kill such machines at any moment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from litgpt_core.deploy.rental.ledger import rentals_home
from litgpt_core.deploy.rental.provider import (
    Created,
    Launch,
    PriceAboveCeiling,
    Provider,
    ProviderProblem,
    RentedMachine,
)
from litgpt_core.deploy.rental.remote import LocalShell, RemoteShell
from litgpt_core.deploy.rental.request import RentalRequest

GROUP = "group"
"""File in a machine's folder: the number of its process group."""


class LocalMachines(Provider):
    """Machines of this computer.

    Args:
        folder: Where they live; None: below the folder of rentals.
        hourly: The price that this provider pretends to ask, dollars an hour.
    """

    name = "local"
    settle_s = 0.0

    def __init__(self, folder: Path | None = None, *, hourly: float | None = None) -> None:
        self.folder = rentals_home() / "machines" if folder is None else folder
        self.hourly = hourly

    def launch(self, launch: Launch, *, created: Created) -> RentedMachine:
        """As `Provider.launch`."""
        place = self.folder / launch.name
        if self.hourly is not None and self.hourly > launch.ceiling:
            raise PriceAboveCeiling(f"this computer pretends to cost ${self.hourly:.2f} an hour")
        shutil.copytree(launch.parcel, place)
        (place / GROUP).write_text("", encoding="ascii")
        machine = RentedMachine(number=launch.name, name=launch.name, runs=True, hourly=self.hourly, region="here")
        created(machine)
        try:
            process = subprocess.Popen(
                ["/bin/bash", "-c", f"echo $$ > {GROUP} && exec /bin/bash node.sh"],
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **launch.secrets},
                start_new_session=True,
            )
        except OSError as problem:
            raise ProviderProblem(f"bash could not be started: {problem}") from problem
        while not self._group(place) and process.poll() is None:
            time.sleep(0.01)
        return machine

    def machines(self, prefix: str) -> list[RentedMachine]:
        """As `Provider.machines`; one whose processes have ended is gone."""
        if not self.folder.is_dir():
            return []
        found = []
        for place in sorted(self.folder.glob(f"{prefix}*")):
            group = self._group(place)
            if (place / GROUP).is_file() and (group is None or _lives(place, group)):
                found.append(
                    RentedMachine(
                        number=place.name, name=place.name, runs=group is not None, hourly=self.hourly, region="here"
                    )
                )
        return found

    def end(self, machine: RentedMachine) -> None:
        """As `Provider.end`: kills the process group. Its folder stays, without the file that makes it a machine."""
        place = self.folder / machine.number
        group = self._group(place)
        if group is not None and _lives(place, group):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            for _ in range(500):
                if not _lives(place, group):
                    break
                time.sleep(0.01)
        (place / GROUP).unlink(missing_ok=True)

    def shell(self, machine: RentedMachine, request: RentalRequest) -> RemoteShell:
        """As `Provider.shell`."""
        return LocalShell(self.folder / machine.number)

    @staticmethod
    def _group(place: Path) -> int | None:
        try:
            text = (place / GROUP).read_text(encoding="ascii").strip()
        except OSError:
            return None
        return int(text) if text.isdecimal() else None


def _lives(place: Path, group: int) -> bool:
    """Whether a process of the group lives that works in the machine's folder; a number may have been given again."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    return any(_works_in(entry, place, group) for entry in Path("/proc").glob("[0-9]*"))


def _works_in(entry: Path, place: Path, group: int) -> bool:
    try:
        state, _, found = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
        return int(found) == group and state not in "ZX" and (entry / "cwd").resolve().is_relative_to(place.resolve())
    except OSError:
        return False
