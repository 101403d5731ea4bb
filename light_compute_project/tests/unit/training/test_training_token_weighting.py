"""Where not every token is learnt, a step is the same however its global batch is split into micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from litgpt_core.config.trainer import BatchSettings, HardwareSettings
from litgpt_core.doctor.model_checks import build
from litgpt_core.model.loss import cross_entropy
from litgpt_core.optim.settings import AdamWSettings, ScheduleSettings
from litgpt_core.training.hardware import choose_hardware, look_at_machine
from litgpt_core.training.module import TrainingModule

ROWS, T, V = 8, 12, 61


def global_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Rows with 1 to 11 targets each, in two texts a row."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(V, (ROWS, T + 1), generator=generator)
    targets = ids[:, 1:].clone()
    for row, learnt in enumerate((11, 1, 2, 9, 1, 5, 3, 10)):
        targets[row, : T - learnt] = -100
    return ids[:, :-1], targets, (torch.arange(T) >= 5).long().expand(ROWS, T).contiguous()


def train(micro: int, folder: Path, *, flat: bool, steps: int = 2) -> tuple[dict[str, Tensor], list[float]]:
    """Weights after some steps on the same global batch, cut into micro-batches; and each step's loss."""
    inputs, targets, segments = global_batch()
    count = (targets != -100).sum().float()
    parts = [
        (inputs[i : i + micro], targets[i : i + micro], segments[i : i + micro], count) for i in range(0, 8, micro)
    ]
    settings = HardwareSettings(accelerator="cpu", precision="32-true", compile=False)
    hardware = choose_hardware(
        settings, look_at_machine(settings.accelerator), total_flops=1.0, width=32, adapters=not flat
    )
    optim = AdamWSettings(lr=1e-3, schedule=ScheduleSettings(kind="constant", lr_warmup_steps=0))
    losses: list[float] = []

    class Recorded(TrainingModule):
        def on_train_batch_end(self, *_: Any) -> None:
            if self.global_step > len(losses):
                losses.append(float(self.step_loss))

    module = Recorded(build("GQA + QK-norm"), optim=optim, batch=BatchSettings(), max_steps=steps, hardware=hardware)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=ROWS // micro,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(parts, batch_size=None))  # type: ignore[arg-type]
    return {name: value.detach().clone() for name, value in module.model.state_dict().items()}, losses


@pytest.mark.parametrize("flat", [True, False], ids=["one buffer", "separate tensors"])
def test_accumulating_gives_the_weights_of_one_large_batch(tmp_path: Path, flat: bool) -> None:
    whole, losses = train(8, tmp_path, flat=flat)
    for micro in (1, 2, 4):
        parts, other_losses = train(micro, tmp_path, flat=flat)
        assert other_losses == pytest.approx(losses, rel=1e-5), f"micro-batches of {micro}"
        worst = max(float((parts[name] - value).abs().max()) for name, value in whole.items())
        assert worst < 2e-5, f"micro-batches of {micro}: a weight differs by {worst:.1e} after steps of 1e-3"


def test_a_step_s_loss_is_the_mean_over_all_its_targets(tmp_path: Path) -> None:
    _, losses = train(2, tmp_path, flat=True, steps=1)
    inputs, targets, segments = global_batch()
    model = build("GQA + QK-norm")
    expected = cross_entropy(model.hidden(inputs, segments=segments), model.head, targets)
    assert losses == pytest.approx([float(expected.detach())], rel=1e-5)
    means = []
    for i in range(0, 8, 2):
        part = slice(i, i + 2)
        loss = cross_entropy(model.hidden(inputs[part], segments=segments[part]), model.head, targets[part])
        means.append(float(loss.detach()))
    assert abs(sum(means) / 4 - float(expected.detach())) > 1e-3, "a mean of the micro-batches' means is another number"


def test_shares_of_several_processes_add_up_to_the_same_gradient() -> None:
    """DDP averages gradients over processes: each one's loss is scaled so that the average is the whole's gradient."""
    inputs, targets, segments = global_batch()
    count = (targets != -100).sum().float()
    model = build("MHA")

    def gradient(rows: slice, divisor: Tensor | None) -> Tensor:
        model.zero_grad()
        hidden = model.hidden(inputs[rows], segments=segments[rows])
        cross_entropy(hidden, model.head, targets[rows], count=divisor).backward()
        grad = model.transformer.wte.weight.grad
        assert grad is not None
        return grad.clone()

    whole = gradient(slice(0, 8), None)
    shares = [gradient(slice(0, 4), count / 2), gradient(slice(4, 8), count / 2)]
    torch.testing.assert_close(sum(shares) / 2, whole, atol=1e-7, rtol=1e-4)
