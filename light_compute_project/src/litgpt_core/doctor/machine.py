"""Checks of the machine and of what is installed, for `doctor.py`. Nothing is changed.

torch is looked at in a process of its own: it starts while the other checks run, and a build that hangs or crashes on
this processor is a line of the report, not its end.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from litgpt_core.core.machine import compile_obstacle, cpu_name
from litgpt_core.core.text import count

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Level = Literal["ok", "warn", "fail"]

OLDEST_PYTHON, FIRST_UNSUPPORTED_PYTHON = (3, 11), (3, 14)
MALICIOUS = {"lightning": ("2.6.2", "2.6.3")}
"""Uploads that were not the project's own."""
SHOWN_PINS = 5
"""Packages with another version than the pinned one that are named."""
_GIGABYTE = 1e9

_LOOK_AT_TORCH = """
import json, torch
c = torch.cuda
facts = {"version": torch.__version__, "threads": torch.get_num_threads(), "cuda_build": torch.version.cuda,
         "cpu": torch.backends.cpu.get_cpu_capability(), "mps": torch.backends.mps.is_available()}
facts["gpus"] = [c.get_device_name(i) for i in range(c.device_count())] if c.is_available() else []
facts["sum"] = float((torch.ones(64, 64) @ torch.ones(64, 64)).sum())
print(json.dumps(facts))
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    level: Level
    """`fail`: something will not work; `warn`: slower or limited; `ok`."""
    name: str
    found: str
    fix: str = ""
    """What to type; empty where nothing needs it."""


def finding(name: str, found: str, *, level: Level = "ok", fix: str = "") -> Finding:
    """A finding; what to type is dropped where all is well."""
    return Finding(level=level, name=name, found=found, fix="" if level == "ok" else fix)


def start_torch() -> subprocess.Popen[str]:
    """Start the process that looks at torch; `check_torch` reads its answer."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _LOOK_AT_TORCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def check_torch(process: subprocess.Popen[str], *, timeout: float = 60) -> Iterator[Finding]:
    """torch, and the devices it sees."""
    reinstall = "uv sync --reinstall-package torch"
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        yield finding("torch", f"`import torch` did not finish within {timeout:.0f} s", level="fail", fix=reinstall)
        return
    if process.returncode:
        why = (errors.strip().splitlines() or [f"the process ended with code {process.returncode}"])[-1]
        yield finding("torch", f"cannot be used: {why}", level="fail", fix=reinstall)
        return
    facts = json.loads(output.splitlines()[-1])
    found = f"{facts['version']}, {count(facts['threads'], 'thread')}, {facts['cpu']}"
    if facts["sum"] != 64.0**3:
        yield finding("torch", f"{found}: matrix products are wrong", level="fail", fix=reinstall)
        return
    yield finding("torch", found)
    yield _device(facts["gpus"], mps=facts["mps"], cuda_build=facts["cuda_build"])


def _device(gpus: list[str], *, mps: bool, cuda_build: str | None) -> Finding:
    if gpus:
        return finding("GPU", f"{len(gpus)} x {gpus[0]}, CUDA {cuda_build}")
    if mps:
        return finding("GPU", "Apple MPS")
    present = _gpu_of_the_driver()
    if present is None:
        return finding("GPU", "none found; everything runs on the CPU")
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        hidden = f"{present}, hidden by an empty CUDA_VISIBLE_DEVICES"
        return finding("GPU", hidden, level="warn", fix="unset CUDA_VISIBLE_DEVICES")
    if cuda_build is None:
        fix = "uv sync --reinstall-package torch"
        return finding("GPU", f"{present} found, but this torch is a CPU-only build", level="warn", fix=fix)
    found = f"{present} found, but torch's CUDA {cuda_build} does not work with its driver"
    return finding("GPU", found, level="warn", fix="update the NVIDIA driver")


def _gpu_of_the_driver() -> str | None:
    if not (command := shutil.which("nvidia-smi")):
        return None
    try:
        query = [command, "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=4, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else None


def check_python(root: Path | None) -> Iterator[Finding]:
    """The interpreter, its environment, and whether this checkout is the one that is installed in it."""
    version = f"{platform.python_version()} ({sys.executable})"
    fits = OLDEST_PYTHON <= sys.version_info[:2] < FIRST_UNSUPPORTED_PYTHON
    yield finding("Python", version, level="ok" if fits else "fail", fix="uv run --python 3.12 ...")
    if sys.prefix == sys.base_prefix:
        yield finding("environment", "not a virtual environment", level="warn", fix="uv run python ...")
    import litgpt_core

    place = Path(str(litgpt_core.__file__)).resolve()
    inside = root is None or place.is_relative_to(root.resolve())
    found = f"imported from {place.parent}"
    yield finding("litgpt_core", found, level="ok" if inside else "fail", fix="uv sync, in this checkout")


def check_packages(root: Path | None) -> Iterator[Finding]:
    """Installed versions against pyproject.toml: the bounds that must hold, and the exact versions of this checkout.

    Without a checkout the bounds are those in the metadata of the installed package.
    """
    if root is None:
        needed = _applicable(importlib.metadata.requires("light-compute-project") or ())
        yield _check_bounds(needed, where="the package's metadata", fix="pip install --upgrade light-compute-project")
        return
    try:
        text = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        needed = _applicable(text["project"].get("dependencies", ()))
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        yield finding("pyproject.toml", str(error), level="fail", fix="git checkout pyproject.toml")
        return
    bounds = _check_bounds(needed, where="pyproject.toml", fix="uv sync")
    yield bounds
    pins = _applicable(text.get("tool", {}).get("uv", {}).get("constraint-dependencies", ()))
    if pins and bounds.level == "ok":
        yield _check_pins(pins)


def _check_bounds(needed: list[Requirement], *, where: str, fix: str) -> Finding:
    wrong = []
    for requirement in needed:
        version = _installed(requirement.name)
        if version is None:
            wrong.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}, needed {requirement.specifier}")
        if version in MALICIOUS.get(requirement.name, ()):
            wrong.append(f"{requirement.name} {version} is a malicious upload: consider this machine's keys stolen")
    found = "; ".join(wrong) if wrong else f"{len(needed)} of {len(needed)} within the bounds of {where}"
    return finding("packages", found, level="fail" if wrong else "ok", fix=fix)


def _check_pins(pins: list[Requirement]) -> Finding:
    """Installed packages against the exact versions; one that is not installed is not needed."""
    installed = [(pin, version) for pin in pins if (version := _installed(pin.name)) is not None]
    differing = [
        f"{pin.name} {version} (pinned {str(pin.specifier).removeprefix('==')})"
        for pin, version in installed
        if not pin.specifier.contains(version, prereleases=True)
    ]
    if not differing:
        return finding("pinned versions", f"{len(installed)} of {len(installed)} as pinned in pyproject.toml")
    more = f" and {len(differing) - SHOWN_PINS} more" if len(differing) > SHOWN_PINS else ""
    found = f"{len(differing)} of {len(installed)} differ: {', '.join(differing[:SHOWN_PINS])}{more}"
    return finding("pinned versions", found, level="warn", fix="uv sync, which installs the pinned versions")


def _applicable(lines: Iterable[str]) -> list[Requirement]:
    """Requirements whose marker fits this interpreter and system."""
    from packaging.requirements import Requirement

    found = [Requirement(line) for line in lines]
    return [each for each in found if each.marker is None or each.marker.evaluate()]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_machine(root: Path) -> Iterator[Finding]:
    """Processor, memory, disk, compiler, temporary folder and variables that change what runs."""
    flags = _cpu_flags()
    useful = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16", "asimd") if name in flags]
    found = f"{cpu_name()}, {os.cpu_count()} cores, {' '.join(useful) or 'vector units unknown'}"
    yield finding("CPU", found if useful or not flags else f"{found}: training will be slow")

    memory = psutil.virtual_memory()
    found = f"{memory.available / _GIGABYTE:.1f} of {memory.total / _GIGABYTE:.1f} GB free"
    low = memory.available < 2 * _GIGABYTE
    yield finding("memory", found, level="warn" if low else "ok", fix="close other programs; the baseline takes 1.8 GB")

    free = shutil.disk_usage(root).free
    level: Level = "fail" if free < 0.5 * _GIGABYTE else "warn" if free < 5 * _GIGABYTE else "ok"
    found = f"{free / _GIGABYTE:.1f} GB free"
    yield finding("disk", found, level=level, fix="free disk space, or run.dir=OTHER_FOLDER")

    obstacle = compile_obstacle("cpu")
    found = f"{obstacle}: training runs without torch.compile" if obstacle else "C++ compiler and Python's headers"
    fix = "install them (Debian: apt-get install g++ python3-dev)"
    yield finding("compiler", found, level="warn" if obstacle else "ok", fix=fix)

    yield _writable("temporary files", Path(tempfile.gettempdir()), fix="export TMPDIR=WRITABLE_FOLDER")
    for name, why in (
        ("OMP_NUM_THREADS", "limits torch's threads"),
        ("PYTHONPATH", "takes precedence over installed packages"),
    ):
        if value := os.environ.get(name):
            yield finding(name, f"is set to {value}: {why}", level="warn", fix=f"unset {name}, unless intended")


def check_runs(folder: Path) -> Finding:
    """Whether runs can be written below `folder`, the working directory."""
    return _writable("runs folder", folder / "runs", fix="run.dir=WRITABLE_FOLDER")


def _writable(name: str, folder: Path, *, fix: str) -> Finding:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        return finding(name, f"{there} is not writable: {error.strerror}", level="fail", fix=fix)
    return finding(name, f"{folder} is writable")


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore")
    except OSError:
        return set()
    rows = (line.split(":", 1)[1] for line in text.splitlines() if line.startswith(("flags", "Features")))
    return set(next(rows, "").split())
