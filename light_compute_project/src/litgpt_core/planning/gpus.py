"""GPUs that can be rented, as their data sheets describe them: memory, its bandwidth, links. Facts only.

Memory is the data sheet's number of GB, as 10^9 bytes, which is a little less than drivers report. Links are one
direction of one GPU to the others of its machine: half of what data sheets print for NVLink and PCIe. Peak rates are
`core.rates`'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError
from litgpt_core.core.rates import PEAK_DENSE_FLOPS
from litgpt_core.core.text import close_names

NVLINK_3, NVLINK_4, NVLINK_5 = 300e9, 450e9, 900e9
"""Bytes per second of the third (A100: 600 GB/s in both directions), fourth (H100: 900) and fifth generation."""

PCIE_3, PCIE_4, PCIE_5 = 16e9, 32e9, 64e9
"""Sixteen lanes of PCI Express."""


@dataclass(frozen=True, kw_only=True)
class GPU:
    """One kind."""

    name: str
    part: str
    """Its key in `rates.PEAK_DENSE_FLOPS`."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Of its memory, bytes per second."""
    link: float
    """To another GPU of the same machine, bytes per second."""
    bf16: bool = True
    """Multiplies bfloat16 in hardware."""

    def peak(self, kind: str) -> float:
        """FLOP/s of dense matrix products in `bf16` or `fp32`."""
        return PEAK_DENSE_FLOPS[self.part][kind]


def _gpu(name: str, gigabytes: float, bandwidth_tb: float, link: float, *, part: str = "", bf16: bool = True) -> GPU:
    return GPU(
        name=name, part=part or name, memory=gigabytes * 1e9, bandwidth=bandwidth_tb * 1e12, link=link, bf16=bf16
    )


GPUS = (
    _gpu("B200", 180, 7.7, NVLINK_5),
    _gpu("H200", 141, 4.8, NVLINK_4),
    _gpu("H100", 80, 3.35, NVLINK_4),
    _gpu("H100 PCIe", 80, 2.0, PCIE_5),
    _gpu("A100", 80, 2.04, NVLINK_3),
    _gpu("A100 40GB", 40, 1.56, NVLINK_3, part="A100"),
    _gpu("L40S", 48, 0.86, PCIE_4),
    _gpu("L40", 48, 0.86, PCIE_4),
    _gpu("L4", 24, 0.30, PCIE_4),
    _gpu("A10", 24, 0.60, PCIE_4),
    _gpu("A10G", 24, 0.60, PCIE_4),
    _gpu("RTX 4090", 24, 1.01, PCIE_4),
    _gpu("RTX 3090", 24, 0.94, PCIE_4),
    _gpu("V100", 32, 0.90, 150e9, bf16=False),
    _gpu("T4", 16, 0.32, PCIE_3, bf16=False),
)
"""SXM parts where there are several, unless the name says otherwise."""


def find_gpu(name: str) -> GPU:
    """The GPU that somebody means by `h100`, `H100-PCIe`, `4090` or `a100 40gb`.

    Raises:
        ConfigError: There is none of that name.
    """
    wanted = _key(name)
    for gpu in GPUS:
        if wanted in (_key(gpu.name), _key(gpu.name).removeprefix("rtx"), _key(f"{gpu.name}-{gpu.memory / 1e9:.0f}GB")):
            return gpu
    names = [gpu.name for gpu in GPUS]
    near = close_names(wanted, [_key(each) for each in names], n=1, cutoff=0.4)
    raise ConfigError(
        f"unknown GPU {name!r}",
        needed=f"one of {', '.join(names)}",
        fix=f"--gpu {near[0]}" if near else "--gpu h100",
    )


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower().replace("nvidia", ""))
