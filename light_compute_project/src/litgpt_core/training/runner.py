"""A training run from its config to its results: the whole story, top to bottom.

    run folder -> hardware -> data and tokenizer -> model -> Trainer.fit -> validation on the whole split -> final/ ->
    samples -> picture

Each piece has its own module; this one only calls them in order. Lightning's loop inside `Trainer.fit`, as it happens
here:

    for each micro-batch:                  CheckpointSaver: save and stop between steps
        TrainingModule.training_step       forward and loss
        backward                           by the Trainer, in the chosen precision
        every `accumulate` micro-batches:  clip, set the learning rate, step
        MetricsRecorder                    count, measure, prepare a row
        every `eval_interval` steps:       TrainingModule.validation_step over the validation loader
"""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loggers import Logger

from litgpt_core import checkpoint, environment
from litgpt_core.config import TrainConfig
from litgpt_core.data.module import TokenDataModule
from litgpt_core.data.prepare import PreparedData, prepare
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import flops_per_token
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.training.checkpoint_io import LitGPTDirectoryIO
from litgpt_core.training.hardware import Hardware, choose_hardware
from litgpt_core.training.loggers import build_logger, log_results, wandb_id
from litgpt_core.training.metrics import MetricsRecorder
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.progress import ProgressDisplay
from litgpt_core.training.results import draw_loss, final_and_best
from litgpt_core.training.run_folder import RunFolder, open_run, write_json
from litgpt_core.training.samples import write_samples
from litgpt_core.training.saving import CheckpointSaver
from litgpt_core.training.stop import StopRequest, stop_on_signals

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a caller may want to print."""

    folder: RunFolder
    summary: dict[str, Any]
    samples: str


def run(config: TrainConfig, *, command: str) -> RunResult:
    """Carry out one training run, or continue it.

    Args:
        config: The checked configuration.
        command: What the user typed, for the record.

    Raises:
        LightComputeError: Anything the user can mend; `Interrupted` when a signal ended the run after saving.
    """
    with stop_on_signals() as stop:
        return _run(config, command=command, stop=stop)


def _run(config: TrainConfig, *, command: str, stop: StopRequest) -> RunResult:
    started = time.perf_counter()
    _quiet_third_parties()
    folder = open_run(config)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    torch.manual_seed(config.seed)
    prepared = prepare(config.data, config.tokenizer)
    model_config = config.model.build(vocab_size=prepared.vocab_size)
    per_token = flops_per_token(model_config, seq_length=model_config.block_size)
    tokens_per_step = config.trainer.global_batch_size * model_config.block_size
    hardware = choose_hardware(config.trainer, total_flops=per_token * tokens_per_step * config.trainer.max_steps)
    peak, peak_source = environment.peak_flops(hardware.device, precision=hardware.precision)
    model = _build_model(config, model_config, folder)
    _announce(config, model, hardware, prepared, folder)

    recorder = MetricsRecorder(
        folder.metrics,
        tokens_per_step=tokens_per_step,
        val_tokens_per_byte=prepared.val_tokens_per_byte,
        flops_per_token=per_token,
        peak_flops=peak,
        log_interval=config.trainer.log_interval,
        max_steps=config.trainer.max_steps,
    )
    saver = CheckpointSaver(
        folder,
        recorder=recorder,
        stop=stop,
        save_interval=config.trainer.save_interval,
        keep=config.trainer.keep_checkpoints,
    )
    io = LitGPTDirectoryIO(
        config=model_config,
        tokenizer_dir=prepared.tokenizer_dir,
        hyperparameters=_hyperparameters(config, model_config),
    )
    dashboard = _dashboard(config, folder, hardware)
    module = TrainingModule(model, optim=config.optim, trainer_settings=config.trainer, hardware=hardware)
    data = _data_module(config, prepared, model_config)
    trainer = _trainer(
        config,
        hardware,
        folder,
        dashboard,
        [recorder, saver, ProgressDisplay(recorder, max_steps=config.trainer.max_steps)],
        io,
    )

    trainer.fit(module, datamodule=data, ckpt_path=str(folder.resume_from) if folder.resume_from else None)
    _validate_whole_split(trainer, module, data, recorder)
    io.write(folder.final, weights=model.state_dict())
    samples = write_samples(
        folder, model=model, tokenizer_dir=prepared.tokenizer_dir, settings=config.trainer, seed=config.seed
    )

    summary = _summary(config, command, recorder, saver, model, hardware, prepared, started, peak, peak_source)
    write_json(folder.summary, summary)
    draw_loss(
        recorder.rows,
        folder.picture,
        title=f"{config.run.name}: {model.num_parameters() / 1e6:.2f}M parameters, {config.data.name}, {summary['device']}",
        references=summary["references"],
        val_tokens_per_byte=prepared.val_tokens_per_byte,
    )
    log_results(dashboard, summary=summary, picture=folder.picture, samples=samples)
    return RunResult(folder=folder, summary=summary, samples=samples)


def _build_model(config: TrainConfig, model_config: GPTConfig, folder: RunFolder) -> GPT:
    model = GPT(model_config)
    if folder.resume_from is None and config.init_from:
        source = checkpoint.resolve(Path(config.init_from))
        checkpoint.load_into(model, source)
        logger.info("weights from %s", source)
    elif folder.resume_from is None:
        initialize(model, seed=config.seed)
    return model


def _data_module(config: TrainConfig, prepared: PreparedData, model_config: GPTConfig) -> TokenDataModule:
    settings = config.trainer
    return TokenDataModule(
        prepared,
        block_size=model_config.block_size,
        micro_batch_size=settings.micro_batch,
        global_batch_size=settings.global_batch_size,
        eval_batch_size=settings.eval_batch_size or settings.micro_batch,
        eval_tokens=settings.eval_tokens,
        seed=config.seed,
        num_workers=settings.num_workers,
    )


def _trainer(
    config: TrainConfig,
    hardware: Hardware,
    folder: RunFolder,
    dashboard: Logger | None,
    callbacks: list[Any],
    io: LitGPTDirectoryIO,
) -> Trainer:
    settings = config.trainer
    accumulate = settings.global_batch_size // settings.micro_batch
    return Trainer(
        accelerator=hardware.device,
        devices=1,
        precision=hardware.precision,  # type: ignore[arg-type]
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        val_check_interval=settings.eval_interval * accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        deterministic=settings.deterministic,
        use_distributed_sampler=False,
        logger=dashboard if dashboard is not None else False,
        callbacks=callbacks,
        plugins=[io],
        default_root_dir=folder.path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )


def _dashboard(config: TrainConfig, folder: RunFolder, hardware: Hardware) -> Logger | None:
    """Build the logger and record the environment, with the id under which a resumed run finds its dashboard again."""
    run_id = folder.read_environment().get("wandb_run_id") if folder.resume_from else None
    built = build_logger(
        config.logger,
        folder=folder,
        name=config.run.name,
        config=config.plain,
        wandb_run_id=run_id or uuid.uuid4().hex[:8],
    )
    facts = environment.describe_environment(device=hardware.device)
    write_json(folder.environment, {**facts, "precision": hardware.precision, "wandb_run_id": wandb_id(built)})
    return built


def _validate_whole_split(
    trainer: Trainer, module: TrainingModule, data: TokenDataModule, recorder: MetricsRecorder
) -> None:
    """The closing validation: every token of the split, whatever `eval_tokens` was during the run."""
    data.eval_tokens = None
    trainer.validate(module, datamodule=data, verbose=False)
    recorder.flush(trainer)


def _hyperparameters(config: TrainConfig, model_config: GPTConfig) -> dict[str, Any]:
    return {**config.plain, "model_config": model_config.to_full_dict()}


def _summary(
    config: TrainConfig,
    command: str,
    recorder: MetricsRecorder,
    saver: CheckpointSaver,
    model: GPT,
    hardware: Hardware,
    prepared: PreparedData,
    started: float,
    peak: float | None,
    peak_source: str,
) -> dict[str, Any]:
    rate = recorder.usual_tokens_per_s() or next(
        (row["tokens_per_s"] for row in reversed(recorder.rows) if row["tokens_per_s"]), None
    )
    return {
        "name": config.run.name,
        **final_and_best(recorder.rows),
        "references": {"unigram": prepared.unigram_loss, "bigram": prepared.bigram_loss},
        "val_tokens_per_byte": prepared.val_tokens_per_byte,
        "n_params": model.num_parameters(),
        "tokens_per_s": rate,
        "mfu": rate * recorder.flops_per_token / peak if rate and peak else None,
        "peak_flops": peak,
        "peak_flops_source": peak_source,
        "compiled": hardware.compile,
        "compile_reason": hardware.compile_reason,
        "compile_s": recorder.compile_s,
        "precision": hardware.precision,
        "train_s": recorder.elapsed_s,
        "wall_s": time.perf_counter() - started,
        "peak_memory_mb": environment.peak_memory_mb(hardware.device),
        "device": environment.device_name(hardware.device),
        "command": command,
        "data": {"name": prepared.meta["name"], "fingerprint": prepared.fingerprint},
        "git": environment.git_state(),
        "versions": environment.package_versions(),
    }


def _announce(config: TrainConfig, model: GPT, hardware: Hardware, prepared: PreparedData, folder: RunFolder) -> None:
    compiled = f"{'compiled' if hardware.compile else 'not compiled'} ({hardware.compile_reason})"
    logger.info(
        "model: %s parameters; %s, %s, %s",
        f"{model.num_parameters():,}",
        environment.device_name(hardware.device),
        hardware.precision,
        compiled,
    )
    if folder.resume_from:
        logger.info("continuing from %s", folder.resume_from)
    tokens = config.trainer.max_steps * config.trainer.global_batch_size * model.config.block_size
    logger.info(
        "training: %s steps, %s tokens (%.2f epochs of %s); loss is in nats per token",
        f"{config.trainer.max_steps:,}",
        f"{tokens:,}",
        tokens / prepared.train_tokens,
        f"{prepared.train_tokens:,}",
    )


def _quiet_third_parties() -> None:
    """Lightning's banners and tips, and warnings about choices that are made on purpose here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*is not a supported type.*",
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", pattern)
