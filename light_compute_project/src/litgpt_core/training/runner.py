"""A training run from its plan to its results: the whole story, top to bottom.

    the plan (gather.py: run folder, corpus and tokenizer; resolve.py: model shape, hardware, batch, sharding)
    the parts, each built from the plan, in the order below
    Trainer.fit -> best weights back, if wanted -> validation on the whole split -> final/ (and lora/, compressed/)
    -> samples.txt -> before_after.md, after conversations -> summary.json -> loss.png

Lightning's loop inside `Trainer.fit`, as it happens here:

    for each micro-batch:                  CheckpointSaver: save and stop between steps
        TrainingModule.training_step       forward and loss
        backward                           by the Trainer, in the chosen precision
        every `accumulate` micro-batches:  clip, set the learning rate, step
        MetricsRecorder                    count, measure, prepare a row
        every `eval_interval` steps:       TrainingModule.validation_step over the validation loader; EarlyStop counts
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from lightning import Callback, Trainer

from litgpt_core import checkpoint
from litgpt_core.core.console import log_to_file
from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.model.fake_quant import without_fake_quantization
from litgpt_core.model.gpt import GPT
from litgpt_core.model.lora import without_adapters
from litgpt_core.training.checkpoint_io import LitGPTDirectoryIO
from litgpt_core.training.closing import close_run
from litgpt_core.training.early_stop import EarlyStop
from litgpt_core.training.inputs import build_data, build_model, build_teacher, fill_shards
from litgpt_core.training.loggers import dashboard_of
from litgpt_core.training.metrics import MetricsRecorder
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.plan import Plan, announce
from litgpt_core.training.progress import ProgressDisplay
from litgpt_core.training.random_state import seed_rank
from litgpt_core.training.record import record_environment
from litgpt_core.training.results import draw_loss, summarise
from litgpt_core.training.run_folder import RunFolder, is_finished, write_json
from litgpt_core.training.saving import CheckpointSaver
from litgpt_core.training.stop import StopRequest
from litgpt_core.training.strategy import ShardedStrategy
from litgpt_core.training.suite_curves import Measure, SuiteCurves
from litgpt_core.training.trainer import build_trainer, quiet_third_parties
from litgpt_core.training.wandb_runs import log_results, wandb_id
from litgpt_core.training.watchdog import Watchdog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a caller may want to print."""

    folder: RunFolder
    summary: dict[str, Any]
    """Empty on every rank but the first."""


@dataclass(frozen=True, kw_only=True)
class TextOutputs:
    """What a run writes with its model as a generator of text. Passed in: the loop itself needs no engine."""

    write_samples: Callable[..., list[tuple[str, str]]]
    """As `samples.write_samples`."""
    measure_before: Callable[..., Callback]
    """As `before_after.BeforeMeasure`."""
    compare: Callable[..., dict[str, Any] | None]
    """As `before_after.compare`."""
    measure_of: Callable[[Plan], Measure] | None = None
    """As `evaluate.during_training.suite_measure`; None: `evaluation.suites` cannot be scored."""


def run(plan: Plan, *, stop: StopRequest, texts: TextOutputs) -> RunResult:
    """Carry out one training run, or continue it.

    Args:
        plan: What `gather.make_plan` settled.
        stop: Where signals arrive.
        texts: Samples, and answers before and after.

    Raises:
        LightComputeError: Anything the user can mend; `Interrupted` when a signal ended the run after saving.
    """
    if plan.group.broadcast_result(lambda: is_finished(plan.folder, plan.resolved.config.trainer.stop)):
        logger.info("%s is finished already: nothing was left to do", plan.folder.path)
        return RunResult(folder=plan.folder, summary=plan.folder.read_summary() if plan.group.is_rank_zero else {})
    with log_to_file(plan.folder.log) if plan.group.is_rank_zero else contextlib.nullcontext():
        try:
            return _carry_out(plan, stop=stop, texts=texts)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(plan, error) from error


def out_of_memory(plan: Plan, error: torch.OutOfMemoryError) -> EnvironmentProblem:
    """What to type where the device's memory was not enough; the first of these that is not in use yet."""
    settings, sharded = plan.resolved.config.trainer, plan.resolved.shards_model
    micro, mode = plan.resolved.micro_batch, settings.batch.activation_checkpointing
    remedies = {
        f"trainer.micro_batch_size={max(1, micro // 2)}": micro > 1,
        "trainer.activation_checkpointing=selective": mode == "none",
        "trainer.loss_chunk_size=1024": not settings.batch.loss_chunk_size,
        "trainer.activation_checkpointing=full": mode != "full",
        "trainer.gradient_sync=micro_batch": sharded and settings.hardware.gradient_sync == "step",
        "trainer=fsdp, on several GPUs": not sharded,
        "trainer.cpu_offload=true": sharded and not settings.hardware.cpu_offload,
    }
    fix = next(
        (word for word, helps in remedies.items() if helps), "more or larger GPUs, or a smaller model or context"
    )
    first = str(error).splitlines()[0]
    return EnvironmentProblem(
        f"the device's memory is not enough: {first}",
        needed=f"less memory than micro-batches of {micro} take; `lcp plan` estimates what other settings take",
        fix=f"{fix}, with run.resume=auto to continue from the last checkpoint",
    )


def _carry_out(plan: Plan, *, stop: StopRequest, texts: TextOutputs) -> RunResult:
    config = plan.resolved.config
    quiet_third_parties()
    seed_rank(config.seed, rank=plan.group.world.rank // plan.resolved.tensor_parallel)
    model = build_model(plan)
    announce(plan, n_params=model.num_parameters())

    dashboard = plan.group.rank_zero_only(lambda: dashboard_of(plan))
    data = build_data(plan)
    recorder = MetricsRecorder.of(plan)
    saver = CheckpointSaver.of(plan, recorder=recorder, stop=stop)
    early_stop = EarlyStop.of(plan, recorder=recorder)
    directory_io = LitGPTDirectoryIO.of(plan, model=model)
    length = config.trainer.stop
    display = ProgressDisplay(recorder, max_steps=length.max_steps, shorter=length.shorter_experiment)
    module = _module(plan, model)
    first = [texts.measure_before(plan, data=data)] if plan.data.held_out and config.init_from else []
    first += _suite_curves(plan, texts, recorder=recorder)
    callbacks = [*first, recorder, saver, early_stop, display, Watchdog.of(plan)]
    trainer = build_trainer(plan, dashboard=dashboard, callbacks=callbacks, directory_io=directory_io)
    plan.group.rank_zero_only(lambda: record_environment(plan, trainer, wandb_run_id=wandb_id(dashboard)))

    resume_from = plan.folder.resume_from
    gc.freeze()  # garbage collection during the steps does not look through what was there before them
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(resume_from) if resume_from else None)
    finally:
        gc.unfreeze()

    stop.end_at_once("after the last step, whose checkpoint is saved")
    closing = close_run(
        trainer,
        module=module,
        data=data,
        recorder=recorder,
        saver=saver,
        restore_best=config.trainer.keeps_best,
    )
    plain = _leave_final(plan, trainer, model=model, directory_io=directory_io)
    if plain is None:
        return RunResult(folder=plan.folder, summary={})
    samples = texts.write_samples(plan, model=plain)
    comparison = texts.compare(plan, model=plain, whole_split_loss=closing.whole_split_loss)
    summary = summarise(
        plan,
        recorder=recorder,
        n_params=plain.num_parameters(),
        closing=closing,
        early_stop=early_stop,
        comparison=comparison,
    )
    write_json(plan.folder.summary, summary)
    draw_loss(plan, rows=recorder.rows, summary=summary)
    log_results(dashboard, folder=plan.folder.path, summary=summary, picture=plan.folder.picture, samples=samples)
    return RunResult(folder=plan.folder, summary=summary)


def _module(plan: Plan, model: GPT) -> TrainingModule:
    config = plan.resolved.config
    return TrainingModule(
        model,
        optim=config.optim,
        batch=config.trainer.batch,
        max_steps=config.trainer.stop.max_steps,
        hardware=plan.resolved.hardware,
        sharding=plan.resolved.sharding,
        processes=plan.group.world.world_size,
        fill=partial(fill_shards, plan=plan),
        sync_gradients_once=config.trainer.hardware.gradient_sync == "step",
        teacher=build_teacher(plan),
        distill=config.distill,
    )


def _suite_curves(plan: Plan, texts: TextOutputs, *, recorder: MetricsRecorder) -> list[Callback]:
    if not plan.resolved.config.evaluation.suites:
        return []
    if texts.measure_of is None:
        logger.warning("evaluation.suites has no effect here: it needs `lcp train`")
        return []
    return [SuiteCurves.of(plan, measure_of=texts.measure_of, recorder=recorder)]


def _leave_final(plan: Plan, trainer: Trainer, *, model: GPT, directory_io: LitGPTDirectoryIO) -> GPT | None:
    """Write `final/`, and `lora/` of adapters; the whole model without adapters on rank 0, None elsewhere."""
    strategy = trainer.strategy
    weights = strategy.whole_weights() if isinstance(strategy, ShardedStrategy) else model.state_dict()
    if not plan.group.is_rank_zero:
        return None
    directory_io.write(plan.folder.final, weights=weights)
    if plan.resolved.config.lora is not None:
        directory_io.write_adapters(plan.folder.lora, weights=weights)
    if plan.resolved.config.qat is not None:
        source = {"directory": plan.resolved.config.init_from, "weights_sha256": plan.base_sha256}
        record = {"recipe": "qat", "steps": [{"method": "qat", **asdict(plan.resolved.config.qat)}], "source": source}
        directory_io.write_compressed(plan.folder.compressed, weights=dict(weights), record=record)
        logger.info("%s holds the packed codes, which every command reads", plan.folder.compressed)
        return without_fake_quantization(model)
    return without_adapters(model) if plan.resolved.sharding is None else checkpoint.load_model(plan.folder.final)
