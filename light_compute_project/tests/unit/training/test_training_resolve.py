"""`resolve` is a pure function: equal facts give equal results, and nothing of this machine comes in."""

from __future__ import annotations

from typing import Any

import pytest

from litgpt_core.config.compose import TrainConfig, load
from litgpt_core.core.errors import ConfigError
from litgpt_core.distributed.world import World
from litgpt_core.training import micro_batch
from litgpt_core.training.hardware import Machine
from litgpt_core.training.resolve import Facts, ResolvedConfig, resolve

H200 = Machine(device="cuda", fast_bf16=True, compile_obstacle=None)
LAPTOP = Machine(device="cpu", fast_bf16=False, compile_obstacle="no compiler")


def resolved(*overrides: str, machine: Machine = H200, processes: int = 1, fit: int | None = None) -> ResolvedConfig:
    def fitting(config: TrainConfig, *_: Any) -> TrainConfig:
        return config if fit is None else micro_batch.with_number(config, fit)

    world = World(world_size=processes, local_world_size=min(processes, 4))
    facts = Facts(world=world, machine=machine, vocab_size=300, fit=fitting)
    return resolve(load(["model=tiny", "trainer.global_batch_size=24", *overrides]), facts)


def test_the_same_facts_give_the_same_result_and_others_another() -> None:
    assert resolved(processes=4) == resolved(processes=4)
    assert resolved().hardware.precision == "bf16-mixed"
    assert resolved(machine=LAPTOP).hardware.precision == "32-true" and resolved(machine=LAPTOP).hardware.flat


def test_the_batch_rule() -> None:
    found = resolved("trainer.micro_batch_size=3", processes=4)
    assert (found.micro_batch, found.accumulate) == (3, 2)
    assert found.tokens_per_step == 24 * found.model.block_size
    assert (resolved(processes=4).micro_batch, resolved(processes=4).accumulate) == (6, 1)
    with pytest.raises(ConfigError, match="cannot be shared by 5 processes"):
        resolved(processes=5)


def test_what_fits_becomes_part_of_the_config() -> None:
    found = resolved("trainer.micro_batch_size=auto", fit=4)
    assert (found.micro_batch, found.accumulate) == (4, 6)
    assert found.config.trainer.batch.micro_batch_size == found.config.plain["trainer"]["micro_batch_size"] == 4


def test_sharding_follows_the_processes() -> None:
    assert resolved("trainer=fsdp").sharding is None and not resolved("trainer=fsdp").shards_model
    hybrid = resolved("trainer=fsdp_hybrid", processes=8).sharding
    assert hybrid is not None and (hybrid.group, hybrid.copies, hybrid.bf16) == (4, 2, True)
    adapted = ("trainer=fsdp", "init_from=somewhere", "lora=default")
    assert resolved(*adapted, processes=2).shards_model
    with pytest.raises(ConfigError, match=r"trainer\.sharded_checkpoints=auto"):
        resolved(*adapted, "trainer.sharded_checkpoints=true", processes=2)


def test_processes_that_compute_blocks_together_read_the_same_data() -> None:
    """Four on a node, two nodes: two sets of four share the batch."""
    found = resolved("trainer=fsdp_tensor", processes=8)
    assert found.sharding is not None and (found.sharding.group, found.sharding.tensor) == (2, 4)
    assert found.tensor_parallel == 4 and (found.micro_batch, found.accumulate) == (12, 1)
    assert resolved("trainer=fsdp_tensor").sharding is None
    refused = {
        "optim=muon": "optim=muon with",
        "trainer.cpu_offload=true": "cpu_offload=true with",
        "trainer.sharded_checkpoints=true": "sharded_checkpoints=true with",
        "model.n_query_groups=2": "does not divide n_query_groups=2",
        "trainer.strategy=ddp": "with trainer.strategy=ddp",
    }
    for override, said in refused.items():
        with pytest.raises(ConfigError, match=said):
            resolved("trainer=fsdp_tensor", override, processes=8)
