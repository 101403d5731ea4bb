"""What every step of a recipe has. Plain values, so that a recipe is checked without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Stage = Literal["structure", "heal", "transform", "prune", "quantize", "finish"]
"""When a method may run: a plain smaller model first, then its training, then equivalent weights, then zeros or ranks,
then integers, and at last the training of integers."""

STAGES: tuple[Stage, ...] = ("structure", "heal", "transform", "prune", "quantize", "finish")
BITS = (2, 3, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a recipe."""

    method: ClassVar[str]
    stage: ClassVar[Stage]
    calibrated: ClassVar[bool] = True

    @property
    def needs_text(self) -> bool:
        """Whether it reads calibration text."""
        return self.calibrated

    def problems(self) -> list[str]:
        """What is wrong with the values, as `key=value: what is needed`."""
        return []


def one_of(name: str, value: object, allowed: tuple[object, ...]) -> list[str]:
    """What is wrong with a value that must be one of some."""
    return [] if value in allowed else [f"{name}={value!r}: one of {', '.join(map(str, allowed))}"]


def share(name: str, value: float) -> list[str]:
    """What is wrong with a value that must be between 0 and 1."""
    return [] if 0 < value < 1 else [f"{name}={value!r}: a number between 0 and 1"]
