"""Lightning's Trainer, with everything switched off that the callbacks of this package do themselves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger

from litgpt_core.training.checkpoint_io import LitGPTDirectoryIO
from litgpt_core.training.strategy import WorldEnvironment, build_strategy

if TYPE_CHECKING:
    from litgpt_core.training.plan import Plan


def build_trainer(
    plan: Plan, *, dashboard: Logger | None, callbacks: Sequence[Callback], directory_io: LitGPTDirectoryIO
) -> Trainer:
    """The Trainer of a run on a process group that exists already."""
    settings, world = plan.resolved.config.trainer, plan.group.world
    processes = [] if plan.group.is_single else [WorldEnvironment(world)]
    return Trainer(
        accelerator=plan.resolved.hardware.device,
        devices=world.local_world_size,
        num_nodes=world.num_nodes,
        strategy=build_strategy(plan, group=plan.group, directory_io=directory_io),
        precision=plan.resolved.hardware.lightning_precision,  # type: ignore[arg-type]
        max_steps=settings.stop.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=plan.resolved.accumulate,
        val_check_interval=settings.evaluation.eval_interval * plan.resolved.accumulate,
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
    # the compiler's note that it has found an unused CUDA toolkit
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


def dump_state(trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint of the Trainer holds; collective.

    Lightning's public `Trainer.save_checkpoint` also writes it, and then waits at a barrier that a rank whose writing
    failed never reaches. Private, so tests/contract says when it is gone.
    """
    return dict(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))
