"""A plan's parts, each built once: the model with its first weights, the data module, the callbacks, the Trainer."""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger

from litgpt_core import checkpoint, tokenizers
from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.data.module import TokenDataModule
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.lora import adapters, add_adapters
from litgpt_core.training.budget import Budget, Meter
from litgpt_core.training.checkpoint_io import LitGPTDirectoryIO
from litgpt_core.training.early_stop import EarlyStop
from litgpt_core.training.loggers import build_logger
from litgpt_core.training.metrics import MetricsRecorder
from litgpt_core.training.plan import Plan
from litgpt_core.training.saving import CheckpointSaver
from litgpt_core.training.stop import StopRequest
from litgpt_core.training.strategy import WorldEnvironment, build_strategy
from litgpt_core.training.watchdog import Watchdog

logger = logging.getLogger(__name__)


def build_model(plan: Plan) -> GPT:
    """The network on the CPU: fresh weights, `init_from`'s, or whatever a resume is about to load."""
    model, config = GPT(plan.model), plan.config
    if plan.folder.resume_from is not None and config.lora is None:
        return model
    if config.init_from:
        source = checkpoint.resolve(Path(config.init_from).expanduser())
        _refuse_another_tokenizer(source, plan)
        checkpoint.load_into(model, source)
        logger.info("weights from %s", source)
    else:
        initialize(model, seed=config.seed)
    if config.lora is not None:
        _refuse_another_base(plan)
        add_adapters(model, config.lora, seed=config.seed)
        trained, whole = sum(v.numel() for v in adapters(model).values()), model.num_parameters()
        logger.info("lora: %s of %s numbers are trained (%.1f %%)", f"{trained:,}", f"{whole:,}", 100 * trained / whole)
    return model


def _refuse_another_base(plan: Plan) -> None:
    """Adapters belong to the very weights they were trained on, which no checkpoint of the run holds unmerged."""
    before = plan.folder.read_environment().get("base_sha256") if plan.folder.resume_from else None
    if before not in (None, plan.base_sha256):
        raise CheckpointError(
            f"the weights in init_from={plan.config.init_from} have changed since {plan.folder.path} began",
            needed="the same base model: the adapters were trained on it",
            fix="the weights as they were, or a new run: run.name=...",
        )


def _refuse_another_tokenizer(source: Path, plan: Plan) -> None:
    """Weights know ids, not text: under another tokenizer the same id means something else."""
    theirs, ours = tokenizers.load(source), tokenizers.load(plan.data.tokenizer_dir)
    if theirs.fingerprint() != ours.fingerprint():
        raise ConfigError(
            f"init_from={source} was trained with another tokenizer than this run's ({theirs.kind} with "
            f"{theirs.vocab_size:,} ids there, {ours.kind} with {ours.vocab_size:,} here)",
            needed="the same tokenizer, which the same data and tokenizer settings give",
            fix=f"the settings in {source / 'hyperparameters.yaml'}, as far as it has them",
        )


def build_data(plan: Plan) -> TokenDataModule:
    """Batches in an order that is a function of the seed and the position alone."""
    batch, evaluation = plan.config.trainer.batch, plan.config.trainer.evaluation
    return TokenDataModule(
        plan.data,
        block_size=plan.model.block_size,
        micro_batch_size=plan.micro_batch,
        global_batch_size=batch.global_batch_size,
        eval_batch_size=evaluation.eval_batch_size or plan.micro_batch,
        eval_tokens=evaluation.eval_tokens,
        seed=plan.config.seed,
        num_workers=batch.num_workers,
    )


def build_recorder(plan: Plan) -> MetricsRecorder:
    """The writer of `metrics.jsonl`."""
    return MetricsRecorder(
        plan.folder.metrics,
        tokens_per_step=plan.tokens_per_step,
        val_tokens_per_byte=plan.data.val_tokens_per_byte,
        flops_per_token=plan.flops_per_token,
        peak_flops=lambda: plan.peak_of_all,
        log_interval=plan.config.trainer.evaluation.log_interval,
        max_steps=plan.config.trainer.stop.max_steps,
    )


def build_saver(plan: Plan, *, recorder: MetricsRecorder, stop: StopRequest) -> CheckpointSaver:
    """The writer of checkpoints."""
    settings = plan.config.trainer
    return CheckpointSaver(
        plan.folder,
        recorder=recorder,
        stop=stop,
        team=plan.team,
        meter=Meter(Budget.of(settings.budget, devices=plan.team.world.world_size), started=plan.started),
        seed=plan.config.seed,
        save_interval=settings.checkpointing.save_interval,
        keep=settings.checkpointing.keep_checkpoints,
        stop_after=settings.stop.stop_after,
    )


def build_early_stop(plan: Plan, *, recorder: MetricsRecorder) -> EarlyStop:
    """What ends the run before its last step."""
    settings = plan.config.trainer.stop
    return EarlyStop(recorder=recorder, patience=settings.patience, min_delta=settings.min_delta)


def build_watchdog(plan: Plan) -> Watchdog:
    """What notices that nothing moves."""
    settings = plan.config.trainer.hardware
    path, seconds = plan.folder.path / f"hang-rank{plan.team.world.rank}.txt", settings.hang_timeout
    if seconds is not None and not plan.team.alone:
        seconds = min(seconds, 0.8 * settings.collective_timeout)  # else the others' waiting ends first, without stacks
    return Watchdog(path, seconds=seconds)


def build_directory_io(plan: Plan, *, model: GPT) -> LitGPTDirectoryIO:
    """The shape that checkpoints and `final/` are written in; with adapters also what `litgpt merge_lora` reads."""
    hyperparameters = {**plan.config.plain, "model_config": plan.model.to_full_dict()}
    if plan.config.lora is not None and plan.config.init_from:
        base = checkpoint.resolve(Path(plan.config.init_from).expanduser()).resolve()
        hyperparameters |= {**plan.config.lora.to_litgpt(), "checkpoint_dir": str(base), "precision": "32-true"}
    return LitGPTDirectoryIO(
        config=plan.model,
        tokenizer_dir=plan.data.tokenizer_dir,
        hyperparameters=hyperparameters,
        accumulate=plan.accumulate,
        adapted=model if plan.config.lora is not None else None,
    )


def build_dashboard(plan: Plan) -> Logger | None:
    """The logger; a resumed run finds its dashboard again by the id in `environment.json`; of rank 0."""
    if not plan.team.is_first:
        return None
    config, folder = plan.config, plan.folder
    known = folder.read_environment().get("wandb_run_id") if folder.resume_from else None
    run_id = known or uuid.uuid4().hex[:8]
    return build_logger(config.logger, folder=folder, name=config.run.name, config=config.plain, wandb_run_id=run_id)


def build_trainer(
    plan: Plan, *, dashboard: Logger | None, callbacks: Sequence[Callback], directory_io: LitGPTDirectoryIO
) -> Trainer:
    """Lightning's Trainer with everything of its own switched off that this room does itself."""
    settings, world = plan.config.trainer, plan.team.world
    processes = [] if plan.team.alone else [WorldEnvironment(world)]
    return Trainer(
        accelerator=plan.hardware.device,
        devices=world.local_world_size,
        num_nodes=world.num_nodes,
        strategy=build_strategy(plan, team=plan.team, directory_io=directory_io),
        precision=plan.hardware.lightning_precision,  # type: ignore[arg-type]
        max_steps=settings.stop.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=plan.accumulate,
        val_check_interval=settings.evaluation.eval_interval * plan.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        deterministic=settings.hardware.deterministic,
        use_distributed_sampler=False,
        logger=dashboard if dashboard is not None else False,
        callbacks=list(callbacks),
        plugins=[directory_io, *processes],
        default_root_dir=plan.folder.path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )


def quiet_third_parties() -> None:
    """Turn off Lightning's banners and tips, and warnings about choices that are made on purpose here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # the compiler's note that a CUDA toolkit lies around unused
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # the compiler's warning about in-place operations under selective checkpointing: our blocks have none
    logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
    for pattern in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*`srun` command is available.*",
    ):
        warnings.filterwarnings("ignore", pattern)
