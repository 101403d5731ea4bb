"""SkyPilot, in an environment of its own: the only file that runs `sky`.

SkyPilot's requirements and this project's exclude each other, so `uv tool run` keeps it apart. Set
`LIGHT_COMPUTE_SKY` to use one that is installed: a path, or a whole command. Credentials are where SkyPilot looks for
them; `sky check` says which clouds it can use.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litgpt_core.core.files import write_atomically
from litgpt_core.core.parsing import ParsingError, parse_json
from litgpt_core.core.uv import find_uv
from litgpt_core.deploy.rental.ledger import rentals_home
from litgpt_core.deploy.rental.provider import Created, Launch, NoCapacity, Provider, ProviderProblem, RentedMachine
from litgpt_core.deploy.rental.remote import RemoteShell, SshShell
from litgpt_core.deploy.rental.request import RentalRequest
from litgpt_core.deploy.rental.sky_task import VERSION, render

logger = logging.getLogger(__name__)

PROGRAM_VARIABLE = "LIGHT_COMPUTE_SKY"
LAUNCH_S, SHORT_S = 7200.0, 900.0
FOLDER_ON_SLURM = '~/.sky_clusters/"${SKY_CLUSTER_NAME:-}"/sky_workdir'
"""On SLURM, SkyPilot makes a home for each of its clusters. The shell of an SSH session takes it for `~` only if its
start-up file gets as far as the line that SkyPilot has added to its end; Debian's returns before.
"""
_NO_CAPACITY = (
    "ResourcesUnavailableError",
    "No launchable resource",
    "Failed to provision all possible",
    "not available",
)


class SkyPilot(Provider):
    """Clusters of one SkyPilot installation.

    Args:
        program: The command `sky`; None: that of the environment variable, else through uv.
        extras: Clouds whose libraries are needed.
    """

    name = "SkyPilot"
    ending_s = 60.0  # 33 to 77 s were measured

    def __init__(self, program: Sequence[str] | None = None, *, extras: Sequence[str] = ()) -> None:
        self.program = list(program) if program is not None else sky_program(extras)

    def launch(self, launch: Launch, *, created: Created) -> RentedMachine:
        """As `Provider.launch`: one `sky launch`, which copies the parcel and starts it."""
        file = rentals_home() / launch.request.key / f"{launch.name}.yaml"
        write_atomically(file, render(launch))
        options = [word for name in sorted(launch.secrets) for word in ("--secret", name)]
        command = ["launch", "--yes", "--detach-run", "--cluster", launch.name, *options, str(file)]
        done = self._run(command, timeout_s=LAUNCH_S, secrets=dict(launch.secrets))
        if done.returncode:
            said = _last_lines(done)
            kind = NoCapacity if any(word in said for word in _NO_CAPACITY) else ProviderProblem
            raise kind(
                f"sky launch failed with {done.returncode}: {said}", fix="sky check says which clouds can be used"
            )
        machine = RentedMachine(number=launch.name, name=launch.name, runs=True)
        created(machine)
        return machine

    def machines(self, prefix: str) -> list[RentedMachine]:
        """As `Provider.machines`: asked from the clouds, not from SkyPilot's memory of them."""
        done = self._run(["status", "--refresh", "--output", "json"], timeout_s=SHORT_S)
        if done.returncode:
            raise ProviderProblem(f"sky status failed with {done.returncode}: {_last_lines(done)}")
        found = []
        for row in _rows(done.stdout):
            name = str(row.get("name", ""))
            if name.startswith(prefix):
                state = str(row.get("status", "")).rpartition(".")[2].upper()
                found.append(
                    RentedMachine(
                        number=name, name=name, runs=state in ("UP", "INIT"), region=str(row.get("region", ""))
                    )
                )
        return found

    def end(self, machine: RentedMachine) -> None:
        """As `Provider.end`."""
        done = self._run(["down", "--yes", machine.number], timeout_s=SHORT_S)
        if done.returncode:
            raise ProviderProblem(f"sky down {machine.number} failed with {done.returncode}: {_last_lines(done)}")

    def shell(self, machine: RentedMachine, request: RentalRequest) -> RemoteShell:
        """As `Provider.shell`: through the entry that SkyPilot writes for every cluster.

        Its file and its key are named, because ssh looks for `~` in the home of the user's account, not in `$HOME`.
        """
        made = Path.home() / ".sky" / "generated"
        config, key = made / "ssh" / machine.name, made / "ssh-keys" / f"{machine.name}.key"
        return SshShell(
            machine.name,
            folder="~/sky_workdir",
            config=config if config.is_file() else None,
            key=str(key) if key.is_file() else "",
            preferred=FOLDER_ON_SLURM,
        )

    def _run(
        self, arguments: Sequence[str], *, timeout_s: float, secrets: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        # every one of SkyPilot's processes would compile all of it anew where this is set
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        kept |= {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1", **(secrets or {})}
        logger.info("sky %s", shlex.join(arguments))
        try:
            return subprocess.run(
                [*self.program, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                env=kept,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise ProviderProblem(f"sky {arguments[0]} did not work: {problem}") from None


def sky_program(extras: Sequence[str] = ()) -> list[str]:
    """The command that starts `sky`.

    Raises:
        EnvironmentProblem: There is no uv.
    """
    if given := os.environ.get(PROGRAM_VARIABLE):
        return [given] if Path(given).is_file() else shlex.split(given)
    uv = find_uv(f"SkyPilot {VERSION}", variable=PROGRAM_VARIABLE, example="/path/to/sky")
    clouds = f"[{','.join(sorted(set(extras)))}]" if extras else ""
    return [uv, "tool", "run", "--from", f"skypilot{clouds}=={VERSION}", "sky"]


def _rows(text: str) -> list[dict[str, Any]]:
    """The list of clusters in what `sky status` prints, which may have lines before it."""
    start = next((at for at in (text.find("[\n"), text.find("[{"), text.find("[]")) if at >= 0), -1)
    try:
        found = parse_json(text[start:]) if start >= 0 else None
    except ParsingError:
        found = None
    if not isinstance(found, list):
        raise ProviderProblem("the answer of sky status is not understood", needed="a list of clusters as JSON")
    return [row for row in found if isinstance(row, dict)]


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])[-3000:]
