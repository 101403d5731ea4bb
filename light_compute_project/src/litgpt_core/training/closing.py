"""After the last step: its own validation if it is due, the weights that `final/` is to hold, and their loss on the
whole split for the record.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from lightning import Trainer

from litgpt_core.data.module import TokenDataModule
from litgpt_core.training.metrics import MetricsRecorder
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.saving import CheckpointSaver

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Closing:
    """How a run ended."""

    whole_split_loss: float
    """Of the weights that `final/` holds, nats per token."""
    best_step: int | None
    """Step of the lowest validation loss; None if there was no validation."""
    final_step: int
    """Step of the weights that `final/` holds."""


def close_run(
    trainer: Trainer,
    *,
    module: TrainingModule,
    data: TokenDataModule,
    recorder: MetricsRecorder,
    saver: CheckpointSaver,
    restore_best: bool,
) -> Closing:
    """Validate, put the best weights back if they are wanted, validate those on every token of the split.

    First the last step gets a validation of the same kind as all the others, if it has none, because curves and `best`
    must compare like with like. The whole split's value stands apart from them.
    """
    if not recorder.last_step_is_validated:
        trainer.validate(module, datamodule=data, verbose=False)
    recorder.flush(trainer)
    step = final = int(trainer.global_step)
    best_step = saver.best_step if saver.has_best else None
    best = saver.folder.checkpoints / "best"
    if restore_best and best_step not in (None, step) and best.is_dir():
        trainer.strategy.load_model_state_dict(trainer.strategy.load_checkpoint(best), strict=module.strict_loading)
        module.weights_replaced()
        assert best_step is not None
        final = best_step
        logger.info("final/ holds the weights of step %s, whose validation was the best", f"{final:,}")
    if data.eval_tokens is None and final == step:
        loss = module.eval_loss if recorder.last_step_is_validated else float("nan")
    else:
        recorder.closed, data.eval_tokens = True, None
        trainer.validate(module, datamodule=data, verbose=False)
        loss = module.eval_loss
    return Closing(whole_split_loss=loss, best_step=best_step, final_step=final)


@torch.no_grad()
def loss_over_split(trainer: Trainer, *, module: TrainingModule, data: TokenDataModule) -> float:
    """The whole split's loss in the middle of a fit, nats per token: no hooks, no random numbers, nothing recorded."""
    batches = data.whole_split()
    module.on_validation_epoch_start()
    with trainer.precision_plugin.val_step_context():
        for index in range(len(batches)):
            module.validation_step(trainer.strategy.batch_to_device(batches[index]), index)
    module.on_validation_epoch_end()
    return module.eval_loss
