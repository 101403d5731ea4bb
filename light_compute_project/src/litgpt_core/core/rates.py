"""How fast matrix products can be at most: GPUs from NVIDIA's data sheets, a CPU measured."""

from __future__ import annotations

import re
import time

PEAK_DENSE_FLOPS: dict[str, dict[str, float]] = {
    # Dense tensor-core rates without sparsity, from NVIDIA's data sheets of each part; FLOP/s.
    # The first entry of which a device's name holds all words counts, so "H100 NVL" stands before "H100".
    "H200 NVL": {"bf16": 835e12, "fp16": 835e12, "tf32": 417e12, "fp32": 60e12},
    "H200": {"bf16": 989e12, "fp16": 989e12, "tf32": 494e12, "fp32": 67e12},
    "H100 NVL": {"bf16": 835e12, "fp16": 835e12, "tf32": 417e12, "fp32": 60e12},
    "H100 PCIe": {"bf16": 756e12, "fp16": 756e12, "tf32": 378e12, "fp32": 51e12},
    "H100": {"bf16": 989e12, "fp16": 989e12, "tf32": 494e12, "fp32": 67e12},
    "GH200": {"bf16": 989e12, "fp16": 989e12, "tf32": 494e12, "fp32": 67e12},
    "H20": {"bf16": 148e12, "fp16": 148e12, "tf32": 74e12, "fp32": 44e12},
    "B200": {"bf16": 2250e12, "fp16": 2250e12, "tf32": 1100e12, "fp32": 75e12},
    "A100": {"bf16": 312e12, "fp16": 312e12, "tf32": 156e12, "fp32": 19.5e12},
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
    fp16 or fp32 (which may be tf32 on a GPU: `peak_flops`).
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
        if kind == "fp32" and torch.get_float32_matmul_precision() != "highest":
            kind = "tf32"
        return PEAK_DENSE_FLOPS[part].get(kind), f"data sheet, {part}, dense {kind}"
    return None, f"no figure known for {device}"


def known_part(device_name: str) -> str | None:
    """The key of `PEAK_DENSE_FLOPS` for a GPU's name, or None: whole words only, no laptop part, no slice of a GPU."""
    if "laptop" in device_name.lower() or re.search(r"\bMIG\b", device_name):
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
