"""Everything about machine, torch and packages that a record holds, in one call."""

from __future__ import annotations

import platform
from datetime import datetime
from typing import Any

from litgpt_core.core import machine as this_machine
from litgpt_core.core.provenance import machine
from litgpt_core.core.provenance.packages import installed_packages, packages_sha256


def machine_facts(*, device: str) -> dict[str, Any]:
    """Plain values only; takes about a tenth of a second.

    Args:
        device: `cpu`, `cuda` or `mps`, where the computation happens.
    """
    packages = installed_packages()
    return {
        **this_machine.describe_environment(device=device),
        "recorded_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
        },
        "torch_build": machine.torch_build(),
        "processor": machine.processor(),
        "gpus": machine.gpus(device),
        "driver": machine.nvidia_driver(),
        "threads": machine.threads(),
        "variables": machine.recorded_variables(),
        "determinism": machine.determinism(),
        "packages_sha256": packages_sha256(packages),
        "packages": packages,
    }
