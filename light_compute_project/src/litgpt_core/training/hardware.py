"""Decide where and how to compute from what the user asked and what the machine has. Every decision comes with its
reason.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from litgpt_core.config.trainer import HardwareSettings
from litgpt_core.core import machine
from litgpt_core.core.errors import EnvironmentProblem

COMPILE_BREAK_EVEN_FLOPS: dict[str, float] = {"cpu": 3e12, "cuda": 3e15}
"""Training work (FLOP) from which `compile: auto` compiles. Provisional: the break-even itself has not been measured.

Known so far, on 2 CPU cores at the baseline's shape: compiling takes 18 to 39 s cold and brings 7,798 instead of 6,843
tokens/s (docs/log.md). At that gain the baseline's 320 steps do not yet earn a cold compile back.
"""

CPU_BF16_WIDTH = 256
"""n_embd from which bfloat16 autocast pays on a CPU without the compiler, which otherwise fuses the casts away."""

AMX_KERNEL_WIDTH = 256
"""n_embd up to which the training kernels take the compiler's place on a CPU with AMX. They keep activations in
float32, the compiler in bfloat16: with products this fast, memory decides (docs/log.md, 2026-11-30)."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is to compute with."""

    device: str
    """`cpu`, `cuda` or `mps`."""
    fast_bf16: bool
    """The device multiplies bfloat16 in hardware."""
    compile_obstacle: str | None
    """Why torch.compile cannot work here, None if it can."""
    kernel_bf16: bool = False
    """The training kernels multiply bfloat16 (AVX512-BF16, AMX)."""
    amx: bool = False
    """The CPU has AMX."""
    builds_kernels: bool = True
    """The training kernels can be built here, and are tested on such processors: x86-64."""


def look_at_machine(accelerator: str) -> Machine:
    """The machine, for `trainer.accelerator`.

    Raises:
        EnvironmentProblem: The requested device is not here.
    """
    device = find_device(accelerator)
    obstacle = machine.compile_obstacle(device)
    return Machine(
        device=device,
        fast_bf16=_fast_bf16(device),
        compile_obstacle=obstacle,
        kernel_bf16=device == "cpu" and machine.cpu_has_avx512_bf16(),
        amx=device == "cpu" and machine.cpu_has_amx(),
        builds_kernels=sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64"),
    )


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """How this run computes."""

    device: str
    """`cpu`, `cuda` or `mps`."""
    precision: str
    """`trainer.precision`, resolved."""
    compile: bool
    compile_reason: str
    fast_bf16: bool
    """The device multiplies bfloat16 in hardware."""
    flat: bool
    """Weights, gradients and optimizer state in one buffer each (`optim/flat.py`)."""

    cpu_kernels: bool = False
    """Blocks and loss are computed by the kernels of `cpu_kernels.py`, in place of the compiler."""

    sharded: bool = False
    """Weights are shared out over processes (FSDP2), which casts them itself."""

    @property
    def lightning_precision(self) -> str:
        """The Trainer's precision; it does not know of a bfloat16 copy of the weights."""
        casts = self.precision == "bf16-master" or (self.sharded and self.precision == "bf16-mixed")
        return "32-true" if casts else self.precision


def choose_hardware(
    settings: HardwareSettings,
    found: Machine,
    *,
    total_flops: float,
    width: int,
    experts: bool = False,
    adapters: bool = False,
    fake_quantized: bool = False,
    custom_optimizer: bool = False,
    processes: int = 1,
    kernel_obstacle: str | None = None,
) -> Hardware:
    """Resolve the `auto` settings.

    Args:
        settings: What is requested.
        found: What there is.
        total_flops: Floating-point operations of the whole run, for `compile: auto`.
        width: The model's n_embd, for `precision: auto`.
        experts: The model is a mixture of experts, of which some may get no gradient in a step.
        adapters: Only adapters are trained: then most weights have neither gradient nor master copy.
        fake_quantized: Weights are rounded in the forward pass: those that are rounded are the float32 ones.
        custom_optimizer: Its class is another than those whose updates are written over one buffer.
        processes: That train together; several keep weights as separate tensors, whose gradients are sent early.
        kernel_obstacle: Why the training kernels do not compute this run, None if they can.

    Raises:
        EnvironmentProblem: `compile=true` where nothing can compile, or a precision that this cannot be trained in.
    """
    device, several = found.device, _several(processes, device=found.device)
    obstacles = {
        " for a mixture of experts": experts,
        " for adapters": adapters,
        " for quantization-aware training": fake_quantized,
        " with optim=custom": custom_optimizer,
        f" in {processes} processes": several,
    }
    one_buffer = device == "cpu" and not any(obstacles.values())
    sharded = several and settings.strategy in ("fsdp", "fsdp_hybrid")
    compiled, reason = _compile(settings, found, total_flops=total_flops)
    kernels = _cpu_kernels(settings, found, compiled=compiled, sharded=sharded, width=width, obstacle=kernel_obstacle)
    casts_pay = device != "cpu" or compiled or width >= CPU_BF16_WIDTH
    fastest = _fastest_precision(fast_bf16=found.fast_bf16 and casts_pay, one_buffer=one_buffer)
    precision = fastest if settings.precision == "auto" else settings.precision
    if kernels:
        compiled, reason, precision = False, "the training kernels take its place", kernel_precision(settings, found)
    flat = one_buffer and precision in ("32-true", "bf16-master", "bf16-mixed")
    _check_single_buffer(precision, flat=flat, device=device, obstacles=obstacles)
    _check_float16(settings, device=device, sharded=sharded)
    return Hardware(
        sharded=sharded,
        cpu_kernels=kernels,
        device=device,
        precision=precision,
        compile=compiled,
        compile_reason=reason,
        fast_bf16=found.fast_bf16,
        flat=flat,
    )


def _several(processes: int, *, device: str) -> bool:
    if processes > 1 and device == "mps":
        given = f"{processes} processes on mps, which has one device"
        raise EnvironmentProblem(given, needed="one process", fix="trainer.devices=1")
    return processes > 1


def _fastest_precision(*, fast_bf16: bool, one_buffer: bool) -> str:
    """For PyTorch."""
    return ("bf16-master" if one_buffer else "bf16-mixed") if fast_bf16 else "32-true"


def kernel_precision(settings: HardwareSettings, found: Machine) -> str:
    """The precision of a run that the training kernels compute: the requested one, or the fastest that they have."""
    return ("bf16-mixed" if found.kernel_bf16 else "32-true") if settings.precision == "auto" else settings.precision


def _cpu_kernels(
    settings: HardwareSettings, found: Machine, *, compiled: bool, sharded: bool, width: int, obstacle: str | None
) -> bool:
    """Whether the training kernels take the place of the compiler.

    Raises:
        EnvironmentProblem: `cpu_kernels=true` where they cannot.
    """
    precision = kernel_precision(settings, found)
    known = {"32-true": True, "bf16-mixed": found.kernel_bf16}.get(precision, False)
    possible = found.device == "cpu" and known and not sharded
    if settings.cpu_kernels == "auto":
        bf16_is_faster = precision == "32-true" and settings.precision == "auto" and found.fast_bf16
        compiler_is_faster = bf16_is_faster or (found.amx and precision == "bf16-mixed" and width > AMX_KERNEL_WIDTH)
        return possible and found.builds_kernels and compiled and obstacle is None and not compiler_is_faster
    if settings.cpu_kernels and not possible:
        where = f"{precision} on {found.device}{' with shards' if sharded else ''}"
        also = " or bf16-mixed" if found.kernel_bf16 else ""
        raise EnvironmentProblem(
            f"trainer.cpu_kernels=true with {where}",
            needed=f"trainer.precision=32-true{also} on a CPU, without shards",
            fix="trainer.precision=32-true, or trainer.cpu_kernels=auto",
        )
    return settings.cpu_kernels


def _check_single_buffer(precision: str, *, flat: bool, device: str, obstacles: Mapping[str, bool]) -> None:
    if precision != "bf16-master" or flat:
        return
    raise EnvironmentProblem(
        f"trainer.precision=bf16-master on {device}{''.join(text for text, there in obstacles.items() if there)}",
        needed="one process on a CPU, optim=adamw or muon, and a gradient for every weight in every step",
        fix="trainer.precision=bf16-mixed",
    )


def _check_float16(settings: HardwareSettings, *, device: str, sharded: bool) -> None:
    if settings.precision != "16-mixed":
        return
    if device == "cpu":
        raise EnvironmentProblem(
            "trainer.precision=16-mixed on a CPU", needed="a GPU for float16", fix="trainer.precision=auto"
        )
    if sharded:
        raise EnvironmentProblem(
            f"trainer.precision=16-mixed with trainer.strategy={settings.strategy}",
            needed="a precision without loss scaling",
            fix="trainer.precision=bf16-mixed, or trainer.strategy=ddp",
        )


def find_device(accelerator: str) -> str:
    """`cpu`, `cuda` or `mps` for `trainer.accelerator`.

    Raises:
        EnvironmentProblem: The requested device is not here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return next(name for name, there in available.items() if there)
    if not available[accelerator]:
        raise EnvironmentProblem(
            f"trainer.accelerator={accelerator}, but torch {torch.__version__} sees no such device here",
            needed="one of " + ", ".join(name for name, there in available.items() if there),
            fix="trainer.accelerator=auto",
        )
    return accelerator


def _fast_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and machine.cpu_has_fast_bf16()


def _compile(settings: HardwareSettings, found: Machine, *, total_flops: float) -> tuple[bool, str]:
    if settings.compile is False:
        return False, "trainer.compile=false"
    obstacle = found.compile_obstacle
    if settings.compile is True:
        if obstacle:
            raise EnvironmentProblem(
                f"trainer.compile=true, but {obstacle}",
                needed="a C++ compiler and Python's headers",
                fix="trainer.compile=auto, or install them (Debian: apt-get install g++ python3-dev)",
            )
        return True, "trainer.compile=true"
    if obstacle:
        return False, obstacle
    threshold = COMPILE_BREAK_EVEN_FLOPS.get(found.device, float("inf"))
    if total_flops < threshold:
        return False, f"compilation would not pay off for a run this short ({total_flops:.1e} of {threshold:.0e} FLOP)"
    return True, "the run is long enough"
