"""Settings of the config groups that are null unless chosen: `lora`, `qat`, `distill`. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from litgpt_core.core.errors import ConfigError

Target = Literal["query", "key", "value", "projection", "mlp", "head"]
Divergence = Literal["forward", "reverse", "jsd"]
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
