"""Settings of the `qat` config group. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from litgpt_core.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class QatSettings:
    """Quantization-aware training: the blocks multiply by rounded weights, the unrounded ones are trained."""

    bits: int = 4
    """Of the linear layers in blocks: 8, 4, 3 or 2; 3 and 2 are stored as 4."""
    head: int | None = 8
    """Bits of output layer and embedding in the directory that the run leaves; they are rounded after training.
    null: as they are."""

    def __post_init__(self) -> None:
        problems = []
        if self.bits not in (2, 3, 4, 8):
            problems.append(f"qat.bits={self.bits}: needed 8, 4, 3 or 2")
        if self.head not in (4, 8, None):
            problems.append(f"qat.head={self.head}: needed 8, 4 or null")
        if problems:
            raise ConfigError("; ".join(problems))
