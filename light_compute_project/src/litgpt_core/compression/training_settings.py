"""The steps of a recipe that train: one frozen dataclass per method."""

from __future__ import annotations

from dataclasses import dataclass

from litgpt_core.compression.step import BITS, Step, one_of


@dataclass(frozen=True, kw_only=True)
class Healing(Step):
    """What both kinds of training have in common: AdamW on random windows of the calibration text."""

    steps: int = 100
    """Optimizer steps."""
    batch: int = 4
    """Windows per step."""
    lr: float = 1e-4
    """Largest learning rate."""
    loss: str = "forward"
    """forward, reverse or jsd: a divergence from the source's distribution; ce: the text alone."""
    seed: int = 0
    """Of the windows."""

    def problems(self) -> list[str]:
        """See `Step`."""
        numbers = [
            f"{name}={value!r}: above 0" for name in ("steps", "batch", "lr") if (value := getattr(self, name)) <= 0
        ]
        return [*numbers, *one_of("loss", self.loss, ("forward", "reverse", "jsd", "ce"))]


@dataclass(frozen=True, kw_only=True)
class Distill(Healing):
    """Trains the model towards its source: heals what fewer blocks, units or heads have cost."""

    method = "distill"
    stage = "heal"


@dataclass(frozen=True, kw_only=True)
class Qat(Healing):
    """Quantization-aware training of integers that a step before has made."""

    method = "qat"
    stage = "finish"
    bits: int = 4
    """As the step before."""

    def problems(self) -> list[str]:
        """See `Step`."""
        return [*super().problems(), *one_of("bits", self.bits, BITS)]


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Step):
    """Trains the integers of one block after the other to the source's activations (BRECQ, arXiv 2102.05426)."""

    method = "reconstruct"
    stage = "finish"
    bits: int = 4
    """As the step before."""
    steps: int = 48
    """Optimizer steps per block."""
    batch: int = 2
    """Windows per step."""
    lr: float = 0.01
    """Largest learning rate of the weights, in steps of the grid."""
    scale_lr: float = 3e-4
    """Of the scales, as a share of them."""
    norm_lr: float = 1e-4
    """Of norms and biases."""
    seed: int = 0
    """Of the order of the windows."""

    def problems(self) -> list[str]:
        """See `Step`."""
        names = ("steps", "batch", "lr", "scale_lr", "norm_lr")
        numbers = [f"{name}={value!r}: above 0" for name in names if (value := getattr(self, name)) <= 0]
        return [*numbers, *one_of("bits", self.bits, BITS)]
