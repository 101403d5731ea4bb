"""Facts about the machine and the checkout: devices, peak rates, compilers, versions, git state.

Facts only: nothing here decides anything (`training/hardware.py` does) and importing it does no work. torch is imported
inside the functions that need it, so that `--help` and the config checks stay fast.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

PROJECT_DIR = Path(__file__).resolve().parents[3]
"""The `light_compute_project` folder of this checkout."""

REPORTED_PACKAGES = (
    "torch",
    "lightning",
    "litgpt",
    "hydra-core",
    "omegaconf",
    "numpy",
    "tokenizers",
    "sentencepiece",
    "wandb",
)

PEAK_DENSE_FLOPS: dict[str, dict[str, float]] = {
    # Dense tensor-core rates without sparsity, from NVIDIA's data sheets of each part; FLOP/s.
    "H200": {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12},
    "H100 PCIe": {"bf16": 756e12, "fp16": 756e12, "fp32": 51e12},
    "H100": {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12},
    "B200": {"bf16": 2250e12, "fp16": 2250e12, "fp32": 75e12},
    "A100": {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12},
    "A10G": {"bf16": 70e12, "fp16": 70e12, "fp32": 35e12},
    "A10": {"bf16": 125e12, "fp16": 125e12, "fp32": 31.2e12},
    "L40S": {"bf16": 362e12, "fp16": 362e12, "fp32": 91.6e12},
    "L40": {"bf16": 181e12, "fp16": 181e12, "fp32": 90.5e12},
    "L4": {"bf16": 121e12, "fp16": 121e12, "fp32": 30.3e12},
    "T4": {"bf16": 65e12, "fp16": 65e12, "fp32": 8.1e12},
    "V100": {"bf16": 125e12, "fp16": 125e12, "fp32": 15.7e12},
    "RTX 4090": {"bf16": 165e12, "fp16": 165e12, "fp32": 82.6e12},
    "RTX 3090": {"bf16": 71e12, "fp16": 71e12, "fp32": 35.6e12},
}


def number_kind(precision: str) -> str:
    """Map a Lightning precision string (`bf16-mixed`, `32-true`, ...) to the kind its matrix products run in: bf16,
    fp16 or fp32.
    """
    return {"bf16": "bf16", "16": "fp16"}.get(precision.split("-")[0], "fp32")


def peak_flops(device: str, *, precision: str) -> tuple[float | None, str]:
    """Peak matrix-product rate of one device.

    Args:
        device: `cpu`, `cuda` or `mps`.
        precision: Lightning's precision string.

    Returns:
        `(FLOP/s, where the figure comes from)`. A CPU's rate is measured here, in about a third of a second, because no
        data sheet knows how many cores and which clock this process gets. `None` where nothing is known (MPS, a GPU
        missing from the table).
    """
    kind = number_kind(precision)
    if device == "cpu":
        return _measured_cpu_flops(kind), f"measured {kind} matrix product, 1024 x 1024 x 1024"
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
        part = known_part(name)
        if part is None:
            return None, f"no data-sheet figure known for {name}"
        return PEAK_DENSE_FLOPS[part][kind], f"data sheet, {part}, dense {kind}"
    return None, f"no figure known for {device}"


def known_part(device_name: str) -> str | None:
    """The key of `PEAK_DENSE_FLOPS` for a GPU's name, or None: whole words only, and no laptop part."""
    if "laptop" in device_name.lower():
        return None
    for part in PEAK_DENSE_FLOPS:
        if all(re.search(rf"\b{re.escape(word)}\b", device_name) for word in part.split()):
            return part
    return None


def _measured_cpu_flops(kind: str) -> float:
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind, torch.float32)
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1024, 1024, generator=generator).to(dtype)
    a @ a
    best, deadline = float("inf"), time.perf_counter() + 0.3
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


def cpu_has_fast_bf16() -> bool:
    """True where the CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX, or an Arm core with BF16)."""
    import torch

    if platform.machine() in ("arm64", "aarch64"):
        try:
            return "bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore")
        except OSError:
            return False
    return any(
        bool(probe())
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if (probe := getattr(torch.cpu, name, None)) is not None
    )


def compile_obstacle(device: str) -> str | None:
    """Why `torch.compile` cannot generate code for `device` here, or None if it can.

    TorchInductor builds C++ on a CPU and a launcher in C beside Triton on CUDA: both need a compiler and Python's
    headers, which slim images and plain Windows machines lack. A missing one would otherwise end the run minutes later
    with a compiler trace.
    """
    if device == "mps":
        return "torch.compile is experimental on MPS"
    names = ("cl",) if sys.platform == "win32" else ("g++", "clang++", "c++")
    if os.environ.get("CXX"):
        names = (os.environ["CXX"].split()[0], *names)
    if not any(shutil.which(name) for name in names):
        return f"no C++ compiler found ({', '.join(names)})"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "Python's headers (Python.h) are not installed"
    return None


def peak_memory_mb(device: str) -> float:
    """Peak memory of this process so far, in MB (10^6 bytes): device memory on CUDA, resident memory elsewhere."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(getattr(psutil.Process().memory_info(), "peak_wset", 0)) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes; `absent` where one is not installed."""
    versions = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def git_state(folder: Path = PROJECT_DIR) -> dict[str, Any]:
    """Commit, branch and whether tracked files differ from it; an empty dict outside a git checkout or without git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def cpu_name() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """A name a reader recognises: the GPU's, or the CPU's with the number of threads torch uses."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{cpu_name()}, {torch.get_num_threads()} threads" if device == "cpu" else f"{cpu_name()} ({device})"


def describe_environment(*, device: str) -> dict[str, Any]:
    """Everything that `environment.json` of a run records; plain values only."""
    import torch

    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": device,
        "device_name": device_name(device),
        "cuda": torch.version.cuda if device == "cuda" else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": package_versions(),
        "git": git_state(),
    }
