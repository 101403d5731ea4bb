"""Every random stream of a process as plain values, and those of all processes in one checkpoint."""

from __future__ import annotations

import hashlib
import logging
import random
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)


def random_state() -> dict[str, Any]:
    """Plain values and tensors only, so that `torch.load(weights_only=True)` reads them."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["torch"].cpu())
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"].cpu())


def seed_rank(seed: int, *, rank: int, step: int = 0) -> None:
    """Start this rank's streams, different on every rank (dropout masks must be), rank 0's as one process has them."""
    if rank == 0 and step == 0:
        torch.manual_seed(seed)
        return
    digest = hashlib.blake2b(f"{seed}:{rank}:{step}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)


def take_own_state(states: list[dict[str, Any]], *, rank: int, world_size: int, seed: int, step: int) -> None:
    """Continue this rank's streams from a checkpoint of `len(states)` ranks.

    With another number of ranks the new ones start streams of their own: dropout differs from the undisturbed run then.
    """
    if rank < len(states):
        set_random_state(states[rank])
    else:
        seed_rank(seed, rank=rank, step=step)
    if rank == 0 and len(states) != world_size:
        logger.info("the checkpoint is of %d processes, now there are %d", len(states), world_size)
