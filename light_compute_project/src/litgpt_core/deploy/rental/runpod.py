"""RunPod through its own API: one pod a machine, the parcel over SSH, a deadline that is armed as its first command."""

from __future__ import annotations

import shlex
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.rental.ledger import rentals_home
from litgpt_core.deploy.rental.provider import (
    Created,
    Launch,
    NoCapacity,
    Provider,
    ProviderProblem,
    RentedMachine,
)
from litgpt_core.deploy.rental.remote import RemoteProblem, RemoteShell, SshShell
from litgpt_core.deploy.rental.request import RentalRequest
from litgpt_core.deploy.rental.runpod_api import RunPodAPI, UnansweredRequest

IMAGE = "runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04"
FOLDER = "/workspace/lcp"
READY_S = 1200.0
"""How long a pod may take until it answers over SSH."""
UNANSWERED_LOOKS, UNANSWERED_PAUSE_S = 6, 10.0
"""How often an unanswered request for a pod is looked for by name."""
COPY_S = 7200.0

GPU_TYPES = {
    "B200": "NVIDIA B200",
    "H200": "NVIDIA H200",
    "H100": "NVIDIA H100 80GB HBM3",
    "H100 PCIe": "NVIDIA H100 PCIe",
    "A100": "NVIDIA A100 80GB PCIe",
    "L40S": "NVIDIA L40S",
    "L40": "NVIDIA L40",
    "L4": "NVIDIA L4",
    "RTX 4090": "NVIDIA GeForce RTX 4090",
    "RTX 3090": "NVIDIA GeForce RTX 3090",
    "V100": "Tesla V100-SXM2-32GB",
    "T4": "Tesla T4",
}
"""The planner's name -> RunPod's `gpuTypeId`, as its API lists them."""


class RunPod(Provider):
    """Pods of one account.

    Args:
        api: Requests; None: with the key of the environment.
        pause: Waits, seconds.
        clock: Seconds that only grow.
        ssh: The SSH client.
    """

    name = "runpod"

    def __init__(
        self,
        api: RunPodAPI | None = None,
        *,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        ssh: tuple[str, ...] = ("ssh",),
    ) -> None:
        self.api = api or RunPodAPI()
        self._pause, self._clock, self._ssh = pause, clock, ssh

    def launch(self, launch: Launch, *, created: Created) -> RentedMachine:
        """As `Provider.launch`."""
        machine = self._create(launch)
        created(machine)
        shell = self._when_ready(machine, launch.request)
        _send(shell, launch.parcel)
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in launch.secrets.items())
        # the values travel over standard input: neither a file nor a command line holds them
        start = ". /dev/stdin && (setsid nohup /bin/bash node.sh </dev/null >/dev/null 2>&1 &)"
        shell.run(start, given=exports.encode(), timeout_s=120)
        return machine

    def _create(self, launch: Launch) -> RentedMachine:
        """Make the pod; if nobody answers, the one of its name, if there is one."""
        try:
            return _machine(self.api.create(pod_body(launch)))
        except UnansweredRequest as problem:
            for _ in range(UNANSWERED_LOOKS):
                if found := [machine for machine in self.machines(launch.name) if machine.name == launch.name]:
                    return found[0]
                self._pause(UNANSWERED_PAUSE_S)
            raise NoCapacity(f"{problem.given}; no pod of the name {launch.name} has appeared") from None

    def machines(self, prefix: str) -> list[RentedMachine]:
        """As `Provider.machines`."""
        return [_machine(pod) for pod in self.api.pods() if str(pod.get("name", "")).startswith(prefix)]

    def end(self, machine: RentedMachine) -> None:
        """As `Provider.end`."""
        self.api.delete(machine.number)

    def shell(self, machine: RentedMachine, request: RentalRequest) -> RemoteShell:
        """As `Provider.shell`."""
        pod = self.api.pod(machine.number)
        place = None if pod is None else _address(pod)
        if place is None:
            raise RemoteProblem(f"{machine.name} has no address yet")
        known_hosts = rentals_home() / request.key / "known_hosts"
        known_hosts.parent.mkdir(parents=True, exist_ok=True)
        return SshShell(
            f"root@{place[0]}",
            folder=FOLDER,
            port=place[1],
            key=request.ssh_key,
            known_hosts=known_hosts,
            program=self._ssh,
        )

    def _when_ready(self, machine: RentedMachine, request: RentalRequest) -> RemoteShell:
        until = self._clock() + READY_S
        while True:
            try:
                shell = self.shell(machine, request)
                shell.run("true", timeout_s=60)
            except RemoteProblem as problem:
                if self._clock() > until:
                    raise ProviderProblem(
                        f"{machine.name} did not answer over SSH within {READY_S / 60:.0f} minutes: {problem.given}",
                        needed="an SSH key that your RunPod account knows",
                        fix="add your public key in the console under Settings, or name the key: --ssh_key FILE",
                    ) from None
                self._pause(5.0)
            else:
                return shell


def pod_body(launch: Launch) -> dict[str, Any]:
    """The request for a pod. It holds no secret.

    Raises:
        ConfigError: RunPod has no such GPU.
    """
    place, request = launch.place, launch.request
    if place.gpu not in GPU_TYPES:
        raise ConfigError(f"RunPod has no {place.gpu}", needed=f"one of {', '.join(GPU_TYPES)}")
    zones = [region.rpartition("/")[2] for region in place.regions]
    body: dict[str, Any] = {
        "name": launch.name,
        "imageName": request.image or IMAGE,
        "cloudType": "SECURE",
        "computeType": "GPU",
        "gpuTypeIds": [GPU_TYPES[place.gpu]],
        "gpuCount": place.count,
        "interruptible": place.spot,
        "containerDiskInGb": request.disk_gb,
        "volumeInGb": 0,  # a volume outlives the pod and costs money
        "ports": ["22/tcp"],
        "supportPublicIp": True,
        "env": {},
        "dockerStartCmd": ["/bin/bash", "-c", f"{launch.arming}\nexec /start.sh"],
    }
    return body | ({"dataCenterIds": zones, "dataCenterPriority": "availability"} if zones else {})


def _machine(pod: Mapping[str, Any]) -> RentedMachine:
    prices = [pod.get(key) for key in ("adjustedCostPerHr", "costPerHr")]
    numbers = [float(str(each)) for each in prices if _is_number(each)]
    where = pod.get("machine")
    return RentedMachine(
        number=str(pod["id"]),
        name=str(pod.get("name", "")),
        runs=pod.get("desiredStatus", "RUNNING") == "RUNNING",
        hourly=max(numbers, default=None),
        region=str(where.get("dataCenterId", "")) if isinstance(where, Mapping) else "",
    )


def _is_number(value: object) -> bool:
    try:
        return float(str(value)) > 0
    except ValueError:
        return False


def _address(pod: Mapping[str, Any]) -> tuple[str, int] | None:
    """Public address and port of SSH, once the pod has them."""
    host, ports = pod.get("publicIp"), pod.get("portMappings")
    port = ports.get("22") if isinstance(ports, Mapping) else None
    if not isinstance(host, str) or not host or host.startswith("-") or not isinstance(port, int):
        return None
    return host, port


def _send(shell: RemoteShell, parcel: Path) -> None:
    """Copy the parcel as one archive."""
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in sorted(parcel.iterdir()):
                tar.add(path, arcname=path.name)
        archive.seek(0)
        shell.run("tar xf -", given=archive, timeout_s=COPY_S)
