"""What this machine has: processor, device, compiler, memory in use. Peak rates are in `rates`, what a record holds in
`environment`, packages in `packages`.

Facts only: nothing here decides anything (`training/hardware.py` does) and importing it does no work. torch is imported
inside the functions that need it, so that `--help` and the config checks stay fast.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from litgpt_core.core.text import count


def cpu_has_fast_bf16() -> bool:
    """True where the CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX, or an Arm core with BF16)."""
    if platform.machine() in ("arm64", "aarch64"):
        try:
            return "bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore")
        except OSError:
            return False
    return cpu_has_avx512_bf16() or cpu_has_amx()


def cpu_has_avx512_bf16() -> bool:
    """True where the CPU has AVX512-BF16."""
    return _torch_says("_is_avx512_bf16_supported")


def cpu_has_amx() -> bool:
    """True where the CPU multiplies bfloat16 by tiles, several times as fast as with AVX512-BF16."""
    return _torch_says("_is_amx_tile_supported")


def _torch_says(name: str) -> bool:
    import torch

    probe = getattr(torch.cpu, name, None)
    return probe is not None and bool(probe())


def has_tf32() -> bool:
    """Whether the current GPU has tensor cores for TF32, as NVIDIA's have from Ampere on."""
    import torch

    return torch.cuda.is_available() and torch.version.hip is None and torch.cuda.get_device_capability()[0] >= 8


def compile_obstacle(device: str) -> str | None:
    """Why `torch.compile` cannot generate code for `device` here, or None if it can.

    TorchInductor builds C++ on a CPU and a launcher in C beside Triton on CUDA: both need a compiler and Python's
    headers, which slim images and plain Windows machines lack, and CUDA needs Triton. A missing one would otherwise end
    the run minutes later with a compiler trace.
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
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (torch's wheels for Windows come without it)"
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
    with contextlib.suppress(OSError, StopIteration):  # Linux: getrusage also knows the program that started this one
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


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
    return (
        f"{cpu_name()}, {count(torch.get_num_threads(), 'thread')}" if device == "cpu" else f"{cpu_name()} ({device})"
    )
