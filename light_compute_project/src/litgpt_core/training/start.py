"""Entry point of training: from the command line to a finished run.

Signals are in hand from the start. Imports grow slower from line to line (config, then torch, then Lightning), so that
mistakes are found before the next is paid for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from litgpt_core.core.command_line import child_command
from litgpt_core.core.errors import ConfigError, Interrupted, LightComputeError
from litgpt_core.distributed.connect import connect, told_when_others_are_lost
from litgpt_core.distributed.launch import launch
from litgpt_core.distributed.requeue import request_requeue
from litgpt_core.distributed.world import World, die_with_launcher
from litgpt_core.training.stop import StopRequest, stop_on_signals

if TYPE_CHECKING:
    from litgpt_core.config.trainer import HardwareSettings
    from litgpt_core.model.gpt import GPT
    from litgpt_core.training.plan import Plan
    from litgpt_core.training.runner import RunResult


def train(
    overrides: Sequence[str],
    *,
    command: str = "litgpt_core.train",
    measure_of: Callable[[Plan], Callable[[GPT], dict[str, float]]] | None = None,
) -> RunResult | int:
    """Compose and check the config, settle the plan, carry the run out.

    Where the config asks for several processes and no launcher has started them, they are started here.

    Args:
        overrides: Command-line arguments such as `+experiment=baseline`.
        command: The command line, for the record; of a call from Python its own name.
        measure_of: What scores `evaluation.suites`: `evaluate.during_training.suite_measure`.

    Returns:
        The run's results (without numbers on every rank but the first), or the exit code of the processes that were
        started.

    Raises:
        LightComputeError: Anything the user can mend; `Interrupted` when a signal ended the run.
    """
    die_with_launcher()
    with stop_on_signals() as stop, back_to_the_queue(stop):
        with stop.loading():
            from litgpt_core.config.compose import load
            from litgpt_core.config.shorthand import as_overrides
            from litgpt_core.training.pretrained import with_base

            world = World.find()
            overrides = with_base(as_overrides(overrides))
            config = load(overrides, numbered=world.world_size == 1)
            count = processes_to_start(config.trainer.hardware, world)
        if count > 1:
            named = f"run.name={config.run.name}"  # the next free number is another one once the first process is there
            return launch(count, command=child_command("train", *overrides, named))

        with stop.loading():
            device = _prepare_device(config.trainer.hardware)
        group = connect(world, device=device, timeout_s=config.trainer.hardware.collective_timeout)

        stop.speaks = group.is_rank_zero
        with told_when_others_are_lost(group):
            with stop.loading():
                from litgpt_core.training.gather import make_plan

            plan = group.on_all_ranks(lambda: make_plan(config, command=command, group=group))

            return _carry_out(plan, stop=stop, measure_of=measure_of)


def _carry_out(
    plan: Plan, *, stop: StopRequest, measure_of: Callable[[Plan], Callable[[GPT], dict[str, float]]] | None
) -> RunResult:
    with stop.loading():
        from litgpt_core.training.lean_import import import_lightning_lean

        import_lightning_lean()

        from litgpt_core.training.before_after import BeforeMeasure, compare
        from litgpt_core.training.runner import TextOutputs, run
        from litgpt_core.training.samples import write_samples

    texts = TextOutputs(
        write_samples=write_samples, measure_before=BeforeMeasure, compare=compare, measure_of=measure_of
    )
    return run(plan, stop=stop, texts=texts)


def _prepare_device(settings: HardwareSettings) -> str:
    """`cpu`, `cuda` or `mps`. What makes the first compilation shorter has begun before torch is imported."""
    from litgpt_core.training.compiler_start import let_triton_in, prepare_compiler

    prepare_compiler(settings)

    from litgpt_core.training.hardware import find_device

    device = find_device(settings.accelerator)
    if device == "cuda":
        let_triton_in()
    return device


@contextmanager
def back_to_the_queue(stop: StopRequest) -> Iterator[None]:
    """A run that a queue stops before its first step or after its last asks for another turn, as it does between two
    steps (`saving.py`). What breaks because other ranks were stopped at the same time is no error of its own, and a
    signal stays one whatever a library has made of its exception.
    """
    try:
        try:
            yield
        except RuntimeError:  # of a broken connection; a signal that came during the call is heard at the next line
            time.sleep(0)
            raise
    except Exception as error:
        if stop.training or not (stop.told or stop.is_queues):
            raise
        if stop.is_queues:
            request_requeue()
        if isinstance(error, LightComputeError) and not isinstance(error, Interrupted):
            raise
        raise stop.ending() from error


def processes_to_start(settings: HardwareSettings, world: World) -> int:
    """How many processes `trainer.devices` asks for here; 1 where a launcher has started them.

    Raises:
        ConfigError: What was started is not what the settings ask for, or several nodes are requested without a
            launcher.
    """
    if world.started_by != "nobody":
        asked = (settings.devices, settings.num_nodes)
        found = (world.local_world_size, world.num_nodes)
        for name, wanted, there in zip(("devices", "num_nodes"), asked, found, strict=True):
            if isinstance(wanted, int) and wanted > 1 and wanted != there:
                problem = ConfigError(
                    f"trainer.{name}={wanted}, but {world.started_by} has started {found[0]} processes on each of "
                    f"{found[1]} nodes",
                    needed="the same number, or none in the config: the launcher decides",
                    fix=f"trainer.{name}={there}, or leave it out",
                )
                problem.silent = world.rank > 0
                raise problem
        return 1
    if settings.num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={settings.num_nodes}, but no launcher has started this process",
            needed="one start on every node",
            fix="lcp slurm, or on every node: torchrun --nnodes=N --nproc_per_node=M --rdzv_backend=c10d "
            "--rdzv_endpoint=HOST:29500 -m litgpt_core train ...",
        )
    if settings.devices != "auto":
        return settings.devices
    if settings.accelerator in ("cpu", "mps"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())
