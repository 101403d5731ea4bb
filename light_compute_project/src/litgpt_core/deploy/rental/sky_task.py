"""One machine of a rental as a SkyPilot task: a pure function to YAML text.

Only the regions of one kind of machine stand in a task: which kind comes next, when nobody has it, is decided here, so
that the deadline on the machine follows from a price that is known. `max_hourly_cost` is the ceiling of that kind.
The task has no `setup`: what that starts in the background blocks it (SLURM) or is killed with it, and its failure
leaves the machine running. Arming the deadline is the first thing that `node.sh` does, installing the second, whose
failure ends the machine.
"""

from __future__ import annotations

from typing import Any

from litgpt_core.deploy.rental.provider import Launch

VERSION = "0.14.1"
"""Of SkyPilot: the one whose command line and schema this was written for."""
IDLE_MINUTES = 10
"""After which SkyPilot's own autodown ends a machine that runs nothing."""


def task(launch: Launch) -> dict[str, Any]:
    """The task's content."""
    place, request = launch.place, launch.request
    kinds: dict[str, Any] = {
        "accelerators": f"{place.accelerator}:{place.count}",
        "use_spot": place.spot,
        "disk_size": request.disk_gb,
        "max_hourly_cost": round(launch.ceiling, 4),
        "autostop": {"idle_minutes": IDLE_MINUTES, "down": True},
    }
    if request.image:
        kinds["image_id"] = f"docker:{request.image}"
    if len(place.regions) > 1:
        kinds["any_of"] = [{"infra": f"{place.provider}/{region}"} for region in place.regions]
    else:
        kinds["infra"] = "/".join([place.provider, *place.regions])
    if place.gpu == "":  # a cluster without GPUs, as in tests
        del kinds["accelerators"]
        kinds["cpus"] = f"{place.count}+"
    return {
        "name": launch.name,
        "workdir": str(launch.parcel),
        "resources": kinds,
        **({"secrets": dict.fromkeys(sorted(launch.secrets))} if launch.secrets else {}),
        "run": "exec /bin/bash node.sh",
    }


def render(launch: Launch) -> str:
    """The YAML text. Secrets are names without values."""
    import yaml

    head = "# Written by lcp deploy. The first command on the machine makes it end itself at its deadline.\n"
    return head + yaml.safe_dump(task(launch), sort_keys=False, allow_unicode=True, width=1000)
