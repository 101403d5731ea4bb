"""Where a record's numbers come from: command, date, git state, versions of the peers, the machine and its limits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import run_child
from benchmarks.options import BenchmarkOptions
from benchmarks.peers import peer_versions
from benchmarks.processes import available_threads
from benchmarks.programs.nanogpt import FILES
from litgpt_core.core.files import sha256_of
from litgpt_core.core.source_code import git_state


def provenance(command: str, *, peers: Sequence[str] = (), nanogpt_dir: Path | None = None) -> dict[str, Any]:
    """Command, local time, git state of this checkout, and versions of the peers.

    Args:
        command: As given on the command line.
        peers: Names of the peers that take part.
        nanogpt_dir: The user's copy; its commit, where it is a checkout of its own, and its files' hashes are recorded.
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
            "sha256": {name: sha256_of(nanogpt_dir / name) for name in FILES},
        }
    return facts


def measure_ceiling(folder: Path, *, device: str, threads: int) -> dict[str, Any]:
    """The result of `children.ceiling.measure`; its process runs in `folder`/ceiling."""
    job = {"device": device, "threads": threads}
    return run_child(
        "ceiling:measure", job, folder=folder / "ceiling", threads=threads, name="the matrix product", timeout_s=300
    )


def run_ceiling(options: BenchmarkOptions, *, folder: Path) -> dict[str, Any]:
    """`benchmark.py ceiling`: the limits of this machine alone."""
    found = measure_ceiling(folder, device=options.device, threads=options.threads or available_threads())
    return {"kind": "ceiling", **provenance(options.command), **found}
