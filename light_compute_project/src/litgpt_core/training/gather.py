"""What is looked up and prepared before a run is resolved: run folder, machine, data; `make_plan` does it in order."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from litgpt_core import checkpoint, tokenizers
from litgpt_core.config.train_config import TrainConfig
from litgpt_core.config.trainer import HardwareSettings
from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.core.freed_memory import keep_freed_memory
from litgpt_core.data.prepared import PreparedData
from litgpt_core.distributed.process_group import ProcessGroup
from litgpt_core.distributed.sharding import tensor_processes
from litgpt_core.distributed.world import World
from litgpt_core.model.config import GPTConfig
from litgpt_core.planning.run_data import prepare_for, with_steps_of_epochs
from litgpt_core.training import micro_batch
from litgpt_core.training.hardware import Hardware, Machine, look_at_machine
from litgpt_core.training.plan import Plan
from litgpt_core.training.pretrained import find_pretrained
from litgpt_core.training.resolve import Facts, Fit, resolve
from litgpt_core.training.run_folder import RunFolder, claim_run, is_finished, open_run


def make_plan(config: TrainConfig, *, command: str, group: ProcessGroup | None = None) -> Plan:
    """Look at the run folder and the machine, prepare the corpus, resolve the config, and only then claim the folder.

    What only one process may do (looking for a checkpoint, claiming the folder), rank 0 does for all.

    Whatever a user can get wrong shows here, before Lightning is imported and before anything of the run is written.

    Raises:
        LightComputeError: Anything the user can mend.
    """
    started = time.perf_counter()
    group = group or ProcessGroup(World())
    world, asked = group.world, config.trainer.hardware.tensor_parallel_size
    readers = world.world_size // tensor_processes(asked, local_world_size=world.local_world_size)
    config = micro_batch.recorded(find_pretrained(config), world_size=max(1, readers))
    folder = group.broadcast_result(lambda: open_run(config))
    found = find_machine(config.trainer.hardware)
    begun_with = folder.read_environment().get("data_fingerprint") if folder.resume_from else None
    data = group.rank_zero_first(lambda: prepare_for(config, begun_with=begun_with))
    config = with_steps_of_epochs(config, data)
    resolved = resolve(config, Facts(world=group.world, machine=found, vocab_size=data.vocab_size, fit=_fit(group)))
    data.check_block_size(resolved.model.block_size)
    _check_same_corpus(data, folder)
    if not group.broadcast_result(lambda: is_finished(folder, config.trainer.stop)):
        _check_same_tokenizer(config, data, resumed=folder.resume_from is not None)
        group.broadcast_result(lambda: claim_run(folder, resolved.config))
    return Plan(resolved=resolved, command=command, folder=folder, data=data, group=group, started=started)


def find_machine(settings: HardwareSettings) -> Machine:
    """What there is to compute with; from here on torch has the threads that the settings ask for."""
    found = look_at_machine(settings.accelerator)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.set_float32_matmul_precision(settings.float32_matmul_precision)
    if found.device == "cpu":
        keep_freed_memory()
    return found


def _fit(group: ProcessGroup) -> Fit:
    """`micro_batch.decide`, done by rank 0 for all."""
    world = group.world

    def fit(config: TrainConfig, model: GPTConfig, hardware: Hardware) -> TrainConfig:
        return group.broadcast_result(
            lambda: micro_batch.decide(
                config,
                model=model,
                hardware=hardware,
                world_size=world.world_size,
                neighbours=world.local_world_size,
            )
        )

    return fit


def _check_same_corpus(data: PreparedData, folder: RunFolder) -> None:
    """Raise DataError where a run would be resumed on other tokens than it began with."""
    before = folder.read_environment().get("data_fingerprint") if folder.resume_from else None
    if before not in (None, data.fingerprint):
        raise DataError(
            f"the prepared data has changed since {folder.path} began: fingerprint {data.fingerprint[:12]} now, "
            f"{str(before)[:12]} then",
            needed="the same corpus and tokenizer: the model's weights belong to their token ids",
            fix="the text as it was, or a new run: run.name=...",
        )


def _check_same_tokenizer(config: TrainConfig, data: PreparedData, *, resumed: bool) -> None:
    """Weights know ids, not text: under another tokenizer the same id means something else."""
    named = {} if resumed and config.lora is None else {"init_from": config.init_from}
    if config.distill is not None:
        named["distill.teacher"] = config.distill.teacher
    for what, given in named.items():
        if given is None:
            continue
        source = checkpoint.resolve(Path(given).expanduser())
        theirs, ours = tokenizers.load(source), tokenizers.load(data.tokenizer_dir)
        if theirs.fingerprint() != ours.fingerprint():
            raise ConfigError(
                f"{what}={source} was trained with another tokenizer than this run's ({theirs.kind} with "
                f"{theirs.vocab_size:,} ids there, {ours.kind} with {ours.vocab_size:,} here)",
                needed="the same tokenizer, which the same data and tokenizer settings give",
                fix=f"the settings in {source / 'hyperparameters.yaml'}, as far as it has them",
            )
