"""What this machine can do at most, and which machine it is.

Training is compared with its matrix product (square matrices of several sizes, the best counts), decoding at batch 1
with the rate at which it reads memory (the sum of one large tensor).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192, 16384)}
SECONDS_PER_SIZE = 0.7
READ_MB = 512
"""Far larger than any cache."""


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Measure each number type at each size.

    Args:
        job: `device` (cpu or cuda), `threads`, and optionally `sizes` (edges of the square matrices) and `seconds` (for
            each size and number type).

    Returns:
        `gflops` (number type -> best GFLOP/s), `by_size` (number type -> edge -> GFLOP/s), `read_gb_per_s` (of memory),
        `environment` (description of the machine), and on CUDA `data_sheet_gflops`, None for an unknown device. On CUDA
        fp32 may use TF32 tensor cores, as nanoGPT and LitGPT do.
    """
    import torch

    from litgpt_core.core.environment import describe_environment
    from litgpt_core.core.rates import peak_flops

    device = job["device"]
    torch.set_num_threads(job["threads"])
    torch.backends.cuda.matmul.allow_tf32 = True
    by_size: dict[str, dict[str, float]] = {"fp32": {}, "bf16": {}}
    budget = job.get("seconds") or SECONDS_PER_SIZE
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for size in job.get("sizes") or SIZES[device]:
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            seconds = _best_seconds(partial(torch.matmul, a, b), device, budget)
            by_size[name][str(size)] = 2 * size**3 / seconds / 1e9
            if seconds > budget:  # this hardware has no fast product for the type: the next size would take minutes
                break
    large = torch.ones(READ_MB * 1_000_000 // 4, device=device)
    seconds = _best_seconds(large.sum, device, budget)
    found: dict[str, Any] = {
        "read_gb_per_s": large.nbytes / seconds / 1e9,
        "gflops": {name: max(rates.values()) for name, rates in by_size.items()},
        "by_size": by_size,
        "environment": describe_environment(device=device),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }
    if device == "cuda":
        peaks = {"fp32": peak_flops(device, precision="32-true")[0], "bf16": peak_flops(device, precision="bf16")[0]}
        found["data_sheet_gflops"] = {name: peak and peak / 1e9 for name, peak in peaks.items()}
    return found


def _best_seconds(operation: Callable[[], object], device: str, budget: float) -> float:
    import torch

    def timed() -> float:
        start = time.perf_counter()
        operation()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(2):  # warm up
        if (first := timed()) > budget:
            return first
    best, deadline = float("inf"), time.perf_counter() + budget
    while time.perf_counter() < deadline:
        best = min(best, timed())
    return best
