"""Settings of the `distill` config group. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from litgpt_core.core.errors import ConfigError

Divergence = Literal["forward", "reverse", "jsd"]


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Knowledge distillation: learning a teacher's distribution over the next token, in addition to the text."""

    teacher: str | None = None
    """Run name, run folder or checkpoint directory of the teacher, which has the same tokenizer."""
    loss: Divergence = "forward"
    """forward: KL(teacher || model); reverse: KL(model || teacher); jsd: Jensen-Shannon; see `distillation.py`."""
    weight: float = 0.5
    """Share of the divergence in the loss; the rest is the cross entropy of the text."""
    temperature: float = 1.0
    """Divides the logits of both in the divergence, which is then multiplied by its square."""

    def __post_init__(self) -> None:
        problems = []
        if self.loss not in ("forward", "reverse", "jsd"):
            problems.append(f"distill.loss={self.loss}: needed forward, reverse or jsd")
        if not 0 < self.weight <= 1:
            problems.append(f"distill.weight={self.weight}: needed a number above 0, at most 1")
        if not self.temperature > 0:
            problems.append(f"distill.temperature={self.temperature}: needed a number above 0")
        if problems:
            raise ConfigError("; ".join(problems))
