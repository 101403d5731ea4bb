"""What a plan is made for: what is trained and how (`Recipe`), on how many devices and who holds what (`DeviceLayout`).

And what follows from the two for the width of numbers. Memory is in `memory`, time and money in `step_time`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from litgpt_core.config.compose import TrainConfig
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.batch_rule import micro_batches
from litgpt_core.data.settings import makes_segments
from litgpt_core.model.config import GPTConfig
from litgpt_core.planning.activations import WIDE, Checkpointing, Device, Setup

Strategy = Literal["single", "ddp", "fsdp", "fsdp_hybrid"]
Precision = Literal["32-true", "bf16-mixed", "bf16-true", "bf16-master"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, and how."""

    model: GPTConfig
    """`block_size` is the length of the sequences."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    precision: Precision = "bf16-mixed"
    checkpointing: Checkpointing = "none"
    loss_chunk_size: int = 0
    z_loss: float = 0.0
    global_batch: int = 1
    """Sequences of an optimizer step, over all devices."""
    micro_batch: int = 1
    """Sequences that go through the model at once on one device."""
    device: Device = "cuda"
    segments: bool = False
    """Rows hold several conversations, which do not attend to each other."""

    @property
    def tokens_per_step(self) -> int:
        """Over all devices."""
        return self.global_batch * self.model.block_size


@dataclass(frozen=True, kw_only=True)
class DeviceLayout:
    """On how many devices, and who holds what."""

    strategy: Strategy = "single"
    devices: int = 1
    """Over all nodes."""
    per_node: int = 8
    shard_size: int | None = None
    """fsdp_hybrid: devices that share one copy; None: those of a node."""
    cpu_offload: bool = False
    """fsdp: weights, gradients and optimizer state live in the host's memory."""
    tensor: int = 1
    """fsdp: devices that compute each block together (tensor parallelism) and read the same data."""
    gradients_once: bool = False
    """fsdp: gradients are added up over devices once per step, and are whole on each until then."""

    def __post_init__(self) -> None:
        if self.strategy == "single" and self.devices != 1:
            raise ConfigError(f"{self.devices} devices with strategy single", needed="ddp, fsdp or fsdp_hybrid")
        if self.devices % self.tensor or (self.tensor > 1 and self.strategy != "fsdp"):
            given = f"{self.devices} devices with strategy {self.strategy}, {self.tensor} computing together"
            raise ConfigError(given, needed="fsdp, and a divisor of the devices")
        if self.devices % self.group:
            raise ConfigError(
                f"{self.devices} devices cannot be divided into groups of {self.group}", needed="groups of one size"
            )

    @property
    def sharded(self) -> bool:
        """FSDP2 casts weights itself, and gathers them block by block."""
        return self.strategy in ("fsdp", "fsdp_hybrid") and self.devices > 1

    @property
    def group(self) -> int:
        """Devices that share one copy of a block's weights and optimizer state, or of a share of it."""
        if self.strategy == "fsdp":
            return self.devices // self.tensor
        return min(self.shard_size or self.per_node, self.devices) if self.strategy == "fsdp_hybrid" else 1

    @property
    def readers(self) -> int:
        """Devices, or sets of devices that compute together, which read different data."""
        return self.devices // self.tensor

    @property
    def nodes(self) -> int:
        """Machines."""
        return -(-self.devices // self.per_node)


def recipe_of(config: TrainConfig, *, model: GPTConfig, precision: Precision, device: Device) -> Recipe:
    """What a config trains; the micro-batch is left open. Adapters count as if all weights were trained."""
    settings = config.trainer.batch
    return Recipe(
        model=model,
        optimizer="muon" if config.optim.kind == "muon" else "adamw",
        precision=precision,
        checkpointing=settings.activation_checkpointing,
        loss_chunk_size=settings.loss_chunk_size,
        z_loss=settings.z_loss,
        global_batch=settings.global_batch_size,
        device=device,
        segments=makes_segments(config.data),
    )


def accumulates(recipe: Recipe, layout: DeviceLayout) -> int:
    """Micro-batches per optimizer step on one device.

    Raises:
        ConfigError: The global batch does not divide.
    """
    found = micro_batches(recipe.global_batch, micro=recipe.micro_batch, processes=layout.readers)
    if not found:
        raise ConfigError(
            f"{recipe.global_batch} sequences per step on {layout.readers} devices, {recipe.micro_batch} at once each",
            needed=f"a multiple of {recipe.micro_batch * layout.readers}",
        )
    return found


def setup_of(recipe: Recipe, layout: DeviceLayout) -> Setup:
    """Widths of numbers in forward and backward."""
    product = WIDE if recipe.precision == "32-true" else 2
    casts = recipe.precision == "bf16-mixed" and not layout.sharded
    return Setup(
        length=recipe.model.block_size,
        product=product,
        residual=WIDE if casts else product,
        casts=casts,
        sequences=recipe.micro_batch,
        device=recipe.device,
        checkpointing=recipe.checkpointing,
        segments=recipe.segments,
    )


def state_width(recipe: Recipe) -> int:
    """Bytes of a number of weights, gradients and optimizer state."""
    return 2 if recipe.precision == "bf16-true" else WIDE


def reduced_width(recipe: Recipe, layout: DeviceLayout) -> int:
    """Bytes of a number of the gradients that FSDP adds up over devices."""
    return WIDE if recipe.precision == "bf16-mixed" else setup_of(recipe, layout).product


def is_flat(recipe: Recipe, layout: DeviceLayout) -> bool:
    """One process on a CPU keeps everything in one buffer each (`optim/flat.py`)."""
    alone = recipe.device == "cpu" and layout.devices == 1 and not recipe.model.n_expert
    return alone and recipe.precision != "bf16-true"
