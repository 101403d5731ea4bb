"""The validations after the last step: the run's own once more if it is due, and the whole split for the record."""

from __future__ import annotations

from lightning import Trainer

from litgpt_core.data.module import TokenDataModule
from litgpt_core.training.metrics import MetricsRecorder
from litgpt_core.training.module import TrainingModule


def validate_whole_split(
    trainer: Trainer, *, module: TrainingModule, data: TokenDataModule, recorder: MetricsRecorder
) -> float:
    """Loss over every token of the validation split, nats per token.

    First the last step gets a validation of the same kind as all the others, if it has none, because curves and `best`
    must compare like with like. The whole split's value is returned and stands apart from them.
    """
    if not recorder.last_step_is_validated:
        trainer.validate(module, datamodule=data, verbose=False)
    recorder.flush(trainer)
    if data.eval_tokens is None:
        return module.eval_loss if recorder.last_step_is_validated else float("nan")
    recorder.closed, data.eval_tokens = True, None
    trainer.validate(module, datamodule=data, verbose=False)
    return module.eval_loss
