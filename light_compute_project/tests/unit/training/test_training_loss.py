"""z-loss and label smoothing reach the training loss from the settings, and stay out of validation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from litgpt_core.config.compose import load
from litgpt_core.config.trainer import BatchSettings, HardwareSettings
from litgpt_core.core.errors import ConfigError
from litgpt_core.doctor.model_checks import build
from litgpt_core.optim.settings import AdamWSettings
from litgpt_core.training.hardware import choose_hardware, look_at_machine
from litgpt_core.training.module import TrainingModule

Z, SMOOTHING = 0.03, 0.2


def module(**settings: float) -> TrainingModule:
    hardware = choose_hardware(
        HardwareSettings(accelerator="cpu", precision="32-true", compile=False),
        look_at_machine("cpu"),
        total_flops=1.0,
        width=32,
    )
    batch = BatchSettings(**settings)  # type: ignore[arg-type]
    return TrainingModule(build("MHA"), optim=AdamWSettings(), batch=batch, max_steps=1000, hardware=hardware)


def batch() -> tuple[Tensor, Tensor]:
    idx = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))
    return idx[:, :-1], idx[:, 1:]


def parts(trained: TrainingModule) -> tuple[float, float, float]:
    """Mean over tokens of the cross-entropy, the squared log-partition, and the cost of a uniform target."""
    inputs, targets = batch()
    with torch.no_grad():
        logits = trained.model(inputs).double()
    partition = logits.logsumexp(-1)
    plain = partition - logits.gather(-1, targets[..., None])[..., 0]
    return float(plain.mean()), float(partition.square().mean()), float((partition - logits.mean(-1)).mean())


@pytest.mark.parametrize("chunk", [0, 5])
@pytest.mark.parametrize(("z", "smoothing"), [(0.0, 0.0), (Z, 0.0), (0.0, SMOOTHING), (Z, SMOOTHING)])
def test_the_training_loss_has_both_and_validation_neither(z: float, smoothing: float, chunk: int) -> None:
    trained = module(loss_chunk_size=chunk, z_loss=z, label_smoothing=smoothing)
    plain, squared, uniform = parts(trained)
    expected = (1 - smoothing) * plain + smoothing * uniform + z * squared
    assert float(trained.training_step(batch(), 0).detach()) == pytest.approx(expected, rel=1e-5)
    trained.on_validation_epoch_start()
    trained.validation_step(batch(), 0)
    total, count = trained._eval_parts[0]
    assert float(total / count) == pytest.approx(plain, rel=1e-5)
    assert math.isclose(expected, plain) == (z == smoothing == 0.0)


@pytest.mark.parametrize(
    ("field", "value"), [("z_loss", -1e-4), ("z_loss", math.inf), ("label_smoothing", 1.0), ("label_smoothing", -0.1)]
)
def test_impossible_values_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"trainer.{field}={value}"):
        load([f"trainer.{field}={value}"])
