"""Where a record's numbers come from: the command, the moment, the checkout, the peers' versions, the machine.

`measure_ceiling` is here because the process that measures it also describes the machine.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import child_command, child_result
from benchmarks.peers import NANOGPT_FILES, peer_versions
from benchmarks.processes import run_measured, thread_variables
from litgpt_core.core.source_code import git_state


def provenance(command: str, *, peers: Sequence[str] = (), nanogpt_dir: Path | None = None) -> dict[str, Any]:
    """Command, local time, git state of this checkout, and versions of the peers.

    Args:
        command: What was typed.
        peers: Names of the peers that take part.
        nanogpt_dir: The user's copy; its commit, where it is a checkout of its own, and its files' hashes are noted.
    """
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "command": command,
        "git": git_state(),
        "peers": peer_versions(peers),
    }
    if nanogpt_dir is not None and any(name.startswith("nanogpt") for name in peers):
        own = (nanogpt_dir / ".git").exists()
        facts["nanogpt"] = {
            "commit": git_state(nanogpt_dir).get("commit") if own else None,
            "sha256": {n: hashlib.sha256((nanogpt_dir / n).read_bytes()).hexdigest() for n in NANOGPT_FILES},
        }
    return facts


def measure_ceiling(folder: Path, *, device: str, threads: int) -> dict[str, Any]:
    """What `child_gemm.measure` finds, in a process of its own.

    Args:
        folder: A folder `ceiling` is made in it.
        device: cpu or cuda.
        threads: CPU threads.
    """
    place = folder / "ceiling"
    place.mkdir(parents=True)
    run_measured(
        child_command("child_gemm", {"device": device, "threads": threads}, folder=place),
        folder=place,
        environment=thread_variables(threads),
        timeout_s=300,
        name="the matrix product",
    )
    return child_result(place, name="the matrix product")
