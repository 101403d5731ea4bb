"""Decide where and how to compute from what the user asked and what the machine has. Every decision comes with its
reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from litgpt_core.config.trainer import TrainerSettings
from litgpt_core.core import machine
from litgpt_core.core.errors import EnvironmentProblem

COMPILE_BREAK_EVEN_FLOPS: dict[str, float] = {"cpu": 3e12, "cuda": 3e15}
"""Training work (FLOP) from which `compile: auto` compiles. Provisional: the break-even itself has not been measured.

Known so far, on 2 CPU cores at the baseline's shape: compiling takes 18 to 39 s cold and brings 7,798 instead of 6,843
tokens/s (docs/log.md). At that gain the baseline's 320 steps do not yet earn a cold compile back.
"""

CPU_BF16_WIDTH = 256
"""n_embd from which bfloat16 autocast pays on a CPU without the compiler, which otherwise fuses the casts away."""


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

    sharded: bool = False
    """Weights are shared out over processes (FSDP2), which casts them itself."""

    @property
    def lightning_precision(self) -> str:
        """What the Trainer is told; a bfloat16 copy of the weights is none of its business."""
        casts = self.precision == "bf16-master" or (self.sharded and self.precision == "bf16-mixed")
        return "32-true" if casts else self.precision


def choose_hardware(
    settings: TrainerSettings,
    *,
    total_flops: float,
    width: int,
    experts: bool = False,
    adapters: bool = False,
    custom_optimizer: bool = False,
    processes: int = 1,
) -> Hardware:
    """Resolve the `auto` settings.

    Args:
        settings: The trainer section.
        total_flops: Floating-point operations of the whole run, for `compile: auto`.
        width: The model's n_embd, for `precision: auto`.
        experts: The model is a mixture of experts, of which some may get no gradient in a step.
        adapters: Only adapters are trained: then most weights have neither gradient nor master copy.
        custom_optimizer: Its class is another than those whose updates are written over one buffer.
        processes: That train together; several keep weights as separate tensors, whose gradients are sent early.

    Raises:
        EnvironmentProblem: A device was asked for that is not here, or `compile=true` where nothing can compile.
    """
    device, several = find_device(settings.accelerator), processes > 1
    if several and device == "mps":
        raise EnvironmentProblem(
            f"{processes} processes on mps, which has one device", needed="one process", fix="trainer.devices=1"
        )
    obstacles = {
        " for a mixture of experts": experts,
        " for adapters": adapters,
        " with optim=custom": custom_optimizer,
        f" in {processes} processes": several,
    }
    one_buffer = device == "cpu" and not any(obstacles.values())
    fast_bf16 = _fast_bf16(device)
    compiled, reason = _compile(settings, device=device, total_flops=total_flops)
    precision: str = settings.precision
    if precision == "auto":
        casts_pay = device != "cpu" or compiled or width >= CPU_BF16_WIDTH
        wanted = "bf16-master" if one_buffer else "bf16-mixed"
        precision = wanted if fast_bf16 and casts_pay else "32-true"
    flat = one_buffer and precision in ("32-true", "bf16-master", "bf16-mixed")
    if precision == "bf16-master" and not flat:
        raise EnvironmentProblem(
            f"trainer.precision=bf16-master on {device}" + "".join(text for text, found in obstacles.items() if found),
            needed="one process on a CPU, optim=adamw or muon, and a model whose every weight gets a gradient in every "
            "step",
            fix="trainer.precision=bf16-mixed",
        )
    if precision == "16-mixed" and device == "cpu":
        raise EnvironmentProblem(
            "trainer.precision=16-mixed on a CPU", needed="a GPU for float16", fix="trainer.precision=auto"
        )
    sharded = several and settings.strategy in ("fsdp", "fsdp_hybrid")
    if sharded and precision == "16-mixed":
        raise EnvironmentProblem(
            f"trainer.precision=16-mixed with trainer.strategy={settings.strategy}",
            needed="a precision without loss scaling",
            fix="trainer.precision=bf16-mixed, or trainer.strategy=ddp",
        )
    return Hardware(
        sharded=sharded,
        device=device,
        precision=precision,
        compile=compiled,
        compile_reason=reason,
        fast_bf16=fast_bf16,
        flat=flat,
    )


def find_device(accelerator: str) -> str:
    """`cpu`, `cuda` or `mps` for `trainer.accelerator`.

    Raises:
        EnvironmentProblem: The device that was asked for is not here.
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


def _compile(settings: TrainerSettings, *, device: str, total_flops: float) -> tuple[bool, str]:
    if settings.compile is False:
        return False, "trainer.compile=false"
    obstacle = machine.compile_obstacle(device)
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
    threshold = COMPILE_BREAK_EVEN_FLOPS.get(device, float("inf"))
    if total_flops < threshold:
        return False, f"the run is too short to earn compiling back ({total_flops:.1e} of {threshold:.0e} FLOP)"
    return True, "the run is long enough"
