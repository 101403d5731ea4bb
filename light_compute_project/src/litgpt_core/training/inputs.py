"""What a run starts from: the model with its first weights, and the batches."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from litgpt_core import checkpoint
from litgpt_core.checkpoint.load import build_compressed, empty_model
from litgpt_core.checkpoint.verification import is_compressed
from litgpt_core.core.errors import CheckpointError
from litgpt_core.data.module import TokenDataModule
from litgpt_core.distributed.sharding import copy_share
from litgpt_core.model.distillation import check_teacher
from litgpt_core.model.fake_quant import add_fake_quantization
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import Place, copy_values, initialize
from litgpt_core.model.lora import adapters, add_adapters, narrow_frozen, reset_adapters
from litgpt_core.training.plan import Plan

logger = logging.getLogger(__name__)


def build_model(plan: Plan) -> GPT:
    """The network on the CPU: fresh weights, `init_from`'s, or whatever a resume is about to load.

    A model that is to be sharded is on the meta device, without values: no process could hold it. `fill_shards` gives
    every process its share of the same values.
    """
    config = plan.resolved.config
    model = empty_model(plan.resolved.model) if plan.resolved.shards_model else _first_weights(plan)
    if config.qat is not None:
        resumed = plan.folder.resume_from is not None
        add_fake_quantization(model, bits=config.qat.bits, search=not resumed)
        if resumed:
            return model
        logger.info("qat: the blocks compute with weights rounded to %d bits", config.qat.bits)
    if config.lora is not None:
        _refuse_another_base(plan)
        add_adapters(model, config.lora, seed=config.seed)
        hardware = plan.resolved.hardware
        if hardware.device == "cuda" and hardware.precision == "bf16-mixed" and not plan.resolved.shards_model:
            narrow_frozen(model, torch.bfloat16)
        trained, whole = sum(v.numel() for v in adapters(model).values()), plan.resolved.n_params
        logger.info("lora: %s of %s numbers are trained (%.1f %%)", f"{trained:,}", f"{whole:,}", 100 * trained / whole)
    return model


def fill_shards(model: GPT, device: torch.device, *, plan: Plan) -> None:
    """Give a model in shards, on the meta device, this process's share of the values that one process would have.

    Args:
        model: Sharded already.
        device: Where it computes. With `trainer.cpu_offload` the shards are in the host's memory, buffers here.
        plan: Of the run.
    """
    sharding, config = plan.resolved.sharding, plan.resolved.config
    assert sharding is not None
    model.to_empty(device=torch.device("cpu") if sharding.cpu_offload else device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    if plan.folder.resume_from is None or config.lora is not None:
        _fill(plan, model, place=sharding.place_in(model))
    if config.lora is not None:
        reset_adapters(model, seed=config.seed, place=copy_share)


def _first_weights(plan: Plan) -> GPT:
    """A whole model; without values where a resume is about to load all of them."""
    config, model = plan.resolved.config, GPT(plan.resolved.model)
    if plan.folder.resume_from is not None and config.lora is None:
        return model
    if config.lora is not None and config.init_from:
        source = checkpoint.resolve(Path(config.init_from).expanduser())
        if is_compressed(source):
            logger.info("lora: the base weights stay packed integers; weights from %s", source)
            return build_compressed(source, plan.resolved.model).float()
    _fill(plan, model)
    return model


def _fill(plan: Plan, model: GPT, *, place: Place | None = None) -> None:
    """Values of the seed, or those of `init_from`."""
    config = plan.resolved.config
    if not config.init_from:
        initialize(model, seed=config.seed, place=place or copy_values)
        return
    source = checkpoint.resolve(Path(config.init_from).expanduser())
    checkpoint.load_into(model, source, place=place)
    logger.info("weights from %s", source)


def build_teacher(plan: Plan) -> GPT | None:
    """The teacher of `distill`, in evaluation mode and without gradients; None without one.

    Raises:
        ConfigError: It reads a shorter context.
        CheckpointError: It cannot be read, or it has changed since the run began.
    """
    settings = plan.resolved.config.distill
    if settings is None or settings.teacher is None:
        return None
    source = checkpoint.resolve(Path(settings.teacher))
    before = plan.folder.read_environment().get("teacher_sha256") if plan.folder.resume_from else None
    if before not in (None, plan.teacher_sha256):
        raise CheckpointError(
            f"the weights in distill.teacher={settings.teacher} have changed since {plan.folder.path} began",
            needed="the same teacher until the run ends",
            fix="the weights as they were, or a new run: run.name=...",
        )
    teacher = checkpoint.load_model(source).eval().requires_grad_(False)
    check_teacher(plan.resolved.model, teacher.config)
    logger.info("teacher: %s, %s parameters", source, f"{teacher.num_parameters():,}")
    return teacher


def _refuse_another_base(plan: Plan) -> None:
    """Adapters belong to the very weights they were trained on, which no checkpoint of the run holds unmerged."""
    before = plan.folder.read_environment().get("base_sha256") if plan.folder.resume_from else None
    if before not in (None, plan.base_sha256):
        raise CheckpointError(
            f"the weights in init_from={plan.resolved.config.init_from} have changed since {plan.folder.path} began",
            needed="the same base model: the adapters were trained on it",
            fix="the weights as they were, or a new run: run.name=...",
        )


def build_data(plan: Plan) -> TokenDataModule:
    """Batches in an order that is a function of the seed and the position alone."""
    batch, evaluation = plan.resolved.config.trainer.batch, plan.resolved.config.trainer.evaluation
    return TokenDataModule(
        plan.data,
        block_size=plan.resolved.model.block_size,
        micro_batch_size=plan.resolved.micro_batch,
        global_batch_size=batch.global_batch_size,
        eval_batch_size=evaluation.eval_batch_size or plan.resolved.micro_batch,
        eval_tokens=evaluation.eval_tokens,
        seed=plan.resolved.config.seed,
        num_workers=batch.num_workers,
    )
