"""The batch rule: `global_batch_size = micro_batch_size * processes * a whole number of micro-batches`."""

from __future__ import annotations

from litgpt_core.core.errors import ConfigError


def micro_batches(global_batch_size: int, *, micro: int, processes: int) -> int:
    """Micro-batches per optimizer step on each process; 0 where the numbers do not fit.

    Args:
        global_batch_size: Sequences per optimizer step, over all processes.
        micro: Sequences per forward pass on one process.
        processes: That share the global batch.
    """
    together = micro * processes
    return global_batch_size // together if together and global_batch_size % together == 0 else 0


def check_batch(*, global_batch_size: int, micro_batch_size: int | None, world_size: int) -> int:
    """Sequences per forward pass and process; None takes a process's share at once.

    Raises:
        ConfigError: The three numbers do not fit; all three are named.
    """
    micro = micro_batch_size or global_batch_size // world_size
    if micro_batches(global_batch_size, micro=micro, processes=world_size):
        return micro
    fitting = [
        n for n in range(1, max(micro, 1) + 1) if micro_batches(global_batch_size, micro=n, processes=world_size)
    ]
    if world_size == 1:
        raise ConfigError(
            f"trainer.micro_batch_size={micro} does not divide trainer.global_batch_size={global_batch_size}: "
            f"try trainer.micro_batch_size={fitting[-1]}"
        )
    advice = (
        f"trainer.micro_batch_size={fitting[-1]}"
        if fitting
        else f"trainer.global_batch_size={-(-global_batch_size // world_size) * world_size}"
    )
    raise ConfigError(
        f"trainer.global_batch_size={global_batch_size} cannot be shared by {world_size} processes with "
        f"trainer.micro_batch_size={micro_batch_size if micro_batch_size else 'null'}",
        needed="global_batch_size = micro_batch_size * processes * a whole number of micro-batches",
        fix=advice,
    )
