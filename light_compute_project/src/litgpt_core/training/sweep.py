"""`train.py -m`: one run after the other over comma-separated values, each in a process of its own.

Separate processes, because a Trainer, a compiler cache and a CUDA context of one trial must not colour the next.
Expanding the values is Hydra's grammar; launching is a plain subprocess, so a killed sweep continues with
`run.resume=auto`.
"""

from __future__ import annotations

import itertools
import logging
import re
import subprocess
import sys
from collections.abc import Sequence

from litgpt_core.config import load, normalise_overrides

logger = logging.getLogger(__name__)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The grid: every combination of the swept values, as lists of plain overrides.

    `run.name` gets the swept values as a suffix unless it is swept itself, because two runs cannot share a folder.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    normalise_overrides(overrides)  # so that a slip is refused with its suggestion, not by the parser below
    parser = OverridesParser.create()
    axes: list[list[str]] = []
    for text, override in zip(overrides, map(parser.parse_override, overrides), strict=True):
        if override.is_sweep_override():
            key = override.input_line.split("=", 1)[0]  # type: ignore[union-attr]
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([text])
    names_given = any(axis[0].lstrip("+").startswith("run.name=") and len(axis) > 1 for axis in axes)
    jobs = []
    for combination in itertools.product(*axes):
        job = list(combination)
        swept = [value for value, axis in zip(combination, axes, strict=True) if len(axis) > 1]
        if swept and not names_given:
            base = load(job).run.name
            suffix = "-".join(s.split("=", 1)[0].split(".")[-1] + "_" + s.split("=", 1)[1] for s in swept)
            clean = re.sub(r"[^A-Za-z0-9._]+", "-", suffix).strip("-")
            job = [o for o in job if not o.lstrip("+").startswith("run.name=")] + [f"run.name={base}-{clean}"]
        jobs.append(job)
    return jobs


def sweep(overrides: Sequence[str]) -> int:
    """Run the grid. All configs are checked before the first run starts; the exit code is the first failure's."""
    jobs = expand(overrides)
    for job in jobs:
        load(job)
    failure = 0
    for number, job in enumerate(jobs, start=1):
        logger.info("sweep: run %d of %d: %s", number, len(jobs), " ".join(job))
        done = subprocess.run([sys.executable, sys.argv[0], *job], check=False)
        if done.returncode in (130, 143):
            return done.returncode
        failure = failure or done.returncode
    return failure
