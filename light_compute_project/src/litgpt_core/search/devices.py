"""What each of several runs at the same time gets of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence


def share_of_machine(place: int, *, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    """Variables for one of several runs at the same time: GPUs of its own, as far as there are, and its share of cores.

    Args:
        place: 0 to jobs - 1.
        jobs: How many run at the same time.
        devices: As `visible_devices` returns them.
    """
    share: dict[str, str] = {}
    if devices:
        mine = [device for number, device in enumerate(devices) if number % jobs == place]
        share["CUDA_VISIBLE_DEVICES"] = ",".join(mine or [devices[place % len(devices)]])
    if "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    return share


def visible_devices() -> list[str]:
    """GPUs that runs may be given, as `CUDA_VISIBLE_DEVICES` names them; asks the driver's tool, not torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device.strip() for device in given.split(",") if device.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    question = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(question, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []
