"""Our training without Lightning's Trainer, without logging, validation and checkpoints.

The model, the order of the data, the compiler, the precision and the optimizer are those of `scripts/train.py`.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from litgpt_core.core.errors import ConfigError

INTERVAL = 10
"""Most steps that are timed together, as in `programs.ours`."""


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train; returns `seconds` of a step, one number for each interval, `precision` and the last `train_loss`."""
    from litgpt_core.config.compose import load
    from litgpt_core.training.compiler_start import prepare_compiler

    config = load(job["overrides"])
    prepare_compiler(config.trainer.hardware)

    import torch

    from litgpt_core.optim.build import set_learning_rate
    from litgpt_core.optim.schedule import learning_rate_factor
    from litgpt_core.training.gather import make_plan
    from litgpt_core.training.lean_import import import_lightning_lean

    plan = make_plan(config, command="bare loop")
    import_lightning_lean()

    from litgpt_core.training.inputs import build_data, build_model
    from litgpt_core.training.module import TrainingModule
    from litgpt_core.training.random_state import seed_rank
    from litgpt_core.training.trainer import quiet_third_parties

    quiet_third_parties()
    seed_rank(config.seed, rank=0)
    hardware, steps = plan.resolved.hardware, config.trainer.stop.max_steps
    device = torch.device(hardware.device)
    model, data = build_model(plan).to(device), build_data(plan)
    module = TrainingModule(model, optim=config.optim, batch=config.trainer.batch, max_steps=steps, hardware=hardware)
    optimizer = module.configure_optimizers()
    module.train()
    module.on_fit_start()
    if hardware.precision == "16-mixed":
        raise ConfigError(
            "the bare loop has no loss scaling for float16",
            needed="bfloat16 or float32",
            fix="--set trainer.precision=32-true, or leave bare out of --against",
        )
    mixed = hardware.precision == "bf16-mixed"
    batches = iter(data.train_dataloader())
    seconds: list[float] = []
    loss = torch.zeros(())
    interval = max(1, min(INTERVAL, steps // 20))
    began = time.perf_counter()
    for step in range(steps):
        for _ in range(plan.resolved.accumulate):
            batch = [part.to(device, non_blocking=True) for part in next(batches)]
            with torch.autocast(device.type, torch.bfloat16) if mixed else contextlib.nullcontext():
                loss = module.training_step(tuple(batch), 0)
            torch.autograd.backward(loss / plan.resolved.accumulate)
            module.on_after_backward()
        module.configure_gradient_clipping(optimizer)
        set_learning_rate(optimizer, learning_rate_factor(step, config.optim.schedule, max_steps=steps))
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % interval == 0:
            last = float(loss)  # waits for the device
            seconds.append((time.perf_counter() - began) / interval)
            began = time.perf_counter()
    return {"seconds": seconds, "precision": hardware.precision, "train_loss": last}
