"""What a result depends on besides its config and its code: machine, torch, packages, threads, switches.

`machine_facts` is what `environment.json` of a run records, gathered in about a tenth of a second; nothing here decides
anything. The code itself is `source_code`'s; comparing two records is `audit`'s.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from litgpt_core.core.machine import cpu_name, device_name
from litgpt_core.core.packages import installed_packages, package_versions, packages_sha256
from litgpt_core.core.source_code import git_state

VARIABLES = (
    *("OMP_NUM_THREADS", "OMP_DYNAMIC", "OMP_PROC_BIND", "OMP_PLACES", "OMP_SCHEDULE", "GOMP_CPU_AFFINITY"),
    *("MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_THREADING_LAYER"),
    *("OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "KMP_AFFINITY", "KMP_BLOCKTIME"),
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUDA_VISIBLE_DEVICES"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "NCCL_ALGO", "NCCL_PROTO", "PYTHONHASHSEED"),
)
"""Environment variables that can change a result; no other one is ever recorded."""


def machine_facts(*, device: str) -> dict[str, Any]:
    """Everything about machine, torch and packages that a record holds; plain values only.

    Args:
        device: `cpu`, `cuda` or `mps`, where the computation happens.
    """
    packages = installed_packages()
    return {
        **describe_environment(device=device),
        "recorded_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
        },
        "torch_build": torch_build(),
        "processor": processor(),
        "gpus": gpus(device),
        "driver": nvidia_driver(),
        "threads": threads(),
        "variables": recorded_variables(),
        "determinism": determinism(),
        "packages_sha256": packages_sha256(packages),
        "packages": packages,
    }


def describe_environment(*, device: str) -> dict[str, Any]:
    """The machine in a few lines: system, processor, device, versions, commit; plain values only."""
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


def recorded_variables() -> dict[str, str]:
    """Those of `VARIABLES` that are set."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def torch_build() -> dict[str, Any]:
    """Which torch this is: version, commit, libraries it was built with, and a hash of its whole build text."""
    import torch

    text = torch.__config__.show()
    build = "\n".join(line for line in text.splitlines() if "CPU capability usage" not in line)  # that is the machine

    def said(pattern: str) -> str | None:
        match = re.search(pattern, text, re.MULTILINE)
        return match[1].strip() if match else None

    return {
        "version": torch.__version__,
        "commit": torch.version.git_version,
        "debug": bool(torch.version.debug),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": said(r"CUDNN_VERSION=([\d.]+)"),
        "compiler": said(r"^ *- (GCC .*|clang .*|MSVC .*)$"),
        "mkl": said(r"Math Kernel Library Version (\S+)"),
        "onednn": said(r"MKL-DNN (v\S+)"),
        "openmp": said(r"^ *- (OpenMP .*)$"),
        "blas": said(r"BLAS_INFO=(\w+)"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "config_sha256": hashlib.sha256(build.encode()).hexdigest(),
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str | None]:
    """Vendor, family, model, stepping and a hash of the instruction sets of the first core; nulls off Linux."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="ignore").split("\n\n", 1)[0]
    except OSError:
        text = ""
    rows = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = rows.get("flags") or rows.get("Features")
    return {
        "vendor": rows.get("vendor_id") or rows.get("CPU implementer"),
        "family": rows.get("cpu family") or rows.get("CPU architecture"),
        "model": rows.get("model") or rows.get("CPU part"),
        "stepping": rows.get("stepping") or rows.get("CPU revision"),
        "flags_sha256": hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest() if flags else None,
    }


def gpus(device: str) -> list[dict[str, Any]]:
    """CUDA devices that torch sees: name, compute capability, memory in MB (10^6 bytes)."""
    if device != "cuda":
        return []
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {"name": p.name, "capability": f"{p.major}.{p.minor}", "memory_mb": round(p.total_memory / 1e6)} for p in found
    ]


def nvidia_driver(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of the NVIDIA kernel driver, or None where there is none (or no Linux)."""
    try:
        match = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)", file.read_text(encoding="utf-8", errors="ignore"))
    except OSError:
        return None
    return match[1] if match else None


def threads() -> dict[str, int | None]:
    """Threads of torch and of its libraries, and processors that this process may use."""
    import torch

    text = torch.__config__.parallel_info()

    def number(name: str) -> int | None:
        match = re.search(rf"{name}\(\) : (\d+)", text)
        return int(match[1]) if match else None

    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "torch": torch.get_num_threads(),
        "torch_interop": torch.get_num_interop_threads(),
        "omp": number("omp_get_max_threads"),
        "mkl": number("mkl_get_max_threads"),
        "usable_processors": len(affinity(0)) if affinity else os.cpu_count(),
    }


def determinism() -> dict[str, Any]:
    """torch's switches that choose between algorithms, as they stand now; null for one that cannot be read."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    switches: dict[str, Callable[[], Any]] = {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled,
        "cudnn_deterministic": lambda: cudnn.deterministic,
        "cudnn_benchmark": lambda: cudnn.benchmark,
        "cudnn_allow_tf32": lambda: cudnn.allow_tf32,
        "matmul_allow_tf32": lambda: matmul.allow_tf32,
        "matmul_bf16_reduced_precision": lambda: bool(matmul.allow_bf16_reduced_precision_reduction),
        "float32_matmul_precision": torch.get_float32_matmul_precision,
        "mkldnn": lambda: torch.backends.mkldnn.enabled,
    }
    found = {}
    for name, read in switches.items():
        try:
            found[name] = read()
        except RuntimeError:  # torch refuses the old names once a program has used the new ones
            found[name] = None
    return found
