"""Settings of the `lora` config group. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from litgpt_core.core.errors import ConfigError

Target = Literal["query", "key", "value", "projection", "mlp", "head"]
TARGETS: tuple[Target, ...] = ("query", "key", "value", "projection", "mlp", "head")


@dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """Low-rank adapters: the base model stays as it is, only two thin matrices per adapted layer are trained."""

    r: int = 8
    """Rank: rows of A and columns of B."""
    alpha: int = 16
    """The adapter's output is multiplied by alpha / r."""
    dropout: float = 0.05
    """Probability of dropping an input of the adapter in training."""
    targets: list[Target] = field(default_factory=lambda: ["query", "key", "value", "projection", "mlp"])
    """Which layers get an adapter: parts of the attention's `qkv`, its `proj`, the MLP's layers, the output layer."""

    def __post_init__(self) -> None:
        problems = []
        if self.r < 1:
            problems.append(f"lora.r={self.r}: needed 1 or more")
        if self.alpha < 1:
            problems.append(f"lora.alpha={self.alpha}: needed 1 or more")
        if not 0 <= self.dropout < 1:
            problems.append(f"lora.dropout={self.dropout}: needed a number from 0 up to, not including, 1")
        wrong = [name for name in self.targets if name not in TARGETS]
        if wrong or not self.targets or len(set(self.targets)) < len(self.targets):
            problems.append(f"lora.targets={self.targets}: needed some of {', '.join(TARGETS)}, each once")
        if problems:
            raise ConfigError("; ".join(problems))

    def to_litgpt(self) -> dict[str, Any]:
        """The keys under which LitGPT's `hyperparameters.yaml` has them: `lora_r`, ..., `lora_query`, ..."""
        chosen = {f"lora_{name}": name in self.targets for name in TARGETS}
        return {"lora_r": self.r, "lora_alpha": self.alpha, "lora_dropout": self.dropout, **chosen}

    @classmethod
    def from_litgpt(cls, hyperparameters: dict[str, Any]) -> LoRASettings:
        """Read back what `to_litgpt` or `litgpt finetune lora` wrote.

        Raises:
            ConfigError: The keys are missing or out of range.
        """
        if "lora_r" not in hyperparameters:
            raise ConfigError(
                "hyperparameters.yaml names no adapter",
                needed="lora_r, lora_alpha, lora_query and so on, as training with lora=default writes them",
            )
        return cls(
            r=int(hyperparameters["lora_r"]),
            alpha=int(hyperparameters.get("lora_alpha", 1)),
            dropout=float(hyperparameters.get("lora_dropout", 0.0)),
            targets=[name for name in TARGETS if hyperparameters.get(f"lora_{name}")],
        )
