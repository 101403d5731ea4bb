"""Blocks divided among processes: logits, gradients and values are those of the whole model, on disk and in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.backends.registry import lookup_backend
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from litgpt_core.checkpoint.load import empty_model, leave_meta
from litgpt_core.core.errors import ConfigError
from litgpt_core.distributed.sharding import Sharding, choose_sharding
from litgpt_core.distributed.tensor_parallel import (
    clip_gradients,
    divide_blocks,
    gather_shares,
    joined,
    share_of,
    sum_partial_gradients,
)
from litgpt_core.doctor.model_checks import build
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.loss import cross_entropy
from litgpt_core.model.tensor_slice import Cut, cuts, obstacle, sliced
from litgpt_core.optim.build import build_optimizer
from litgpt_core.optim.settings import AdamWSettings
from litgpt_core.training.activation_checkpointing import checkpoint_blocks
from litgpt_core.training.inputs import fill_shards
from litgpt_core.training.strategy import ShardedStrategy

OnRanks = Callable[[int, Callable[[int], Any]], list[Any]]
KINDS = ["GQA + QK-norm", "learned positions, tied", "windows + soft-caps"]


def random_ids(rows: int) -> Tensor:
    return torch.randint(61, (rows, 16), generator=torch.Generator().manual_seed(1))


class Divided:
    """A model on this rank, of `ranks` in all, of which `together` compute each block."""

    def __init__(self, kind: str, *, ranks: int, together: int = 2, checkpointing: Any = "none") -> None:
        self.mesh = init_device_mesh(
            "cpu", (ranks // together, together), mesh_dim_names=("data_parallel", "tensor_parallel")
        )
        self.group = self.mesh["tensor_parallel"].get_group()
        self.model, self.together = empty_model(build(kind).config), together
        sharding = Sharding(group=ranks // together, copies=1, tensor=together, bf16=False, cpu_offload=False)
        sharding.divide(self.model, self.mesh["tensor_parallel"])
        checkpoint_blocks(self.model, checkpointing)
        sharding.apply(self.model, self.mesh["data_parallel"])
        config = SimpleNamespace(seed=5, init_from=None, lora=None)
        plan: Any = SimpleNamespace(
            resolved=SimpleNamespace(sharding=sharding, config=config), folder=SimpleNamespace(resume_from=None)
        )
        fill_shards(self.model, torch.device("cpu"), plan=plan)

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        known, found = cuts(self.model.config), {}
        for name, tensor in tensors.items():
            full = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
            found[name] = gather_shares(full, known[name], self.group) if name in known else full
        return found

    def gradients(self) -> dict[str, Tensor]:
        return self.whole({name: p.grad for name, p in self.model.named_parameters() if p.grad is not None})


def loss_of(model: GPT, ids: Tensor) -> Tensor:
    return cross_entropy(model.hidden(ids[:, :-1]), model.head, ids[:, 1:])


def alone(kind: str) -> GPT:
    model = build(kind)
    initialize(model, seed=5)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_logits_and_gradients_are_those_of_one_process(on_ranks: OnRanks, kind: str, ranks: int) -> None:
    """Two processes compute each block; with four, two such pairs shard it and read different rows."""
    model, ids = alone(kind), random_ids(4)
    with torch.no_grad():
        logits = model(ids)
    loss_of(model, ids).backward()  # type: ignore[no-untyped-call]
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    def work(rank: int) -> tuple[Tensor, dict[str, Tensor], Tensor, dict[str, Tensor]]:
        mine = Divided(kind, ranks=ranks)
        rows = ids.chunk(ranks // 2)[rank // 2]
        with torch.no_grad():
            found = mine.model.head(mine.model.hidden(ids)).detach()
        loss_of(mine.model, rows).backward()  # type: ignore[no-untyped-call]
        sum_partial_gradients(mine.model, mine.group)
        measured = mine.gradients()
        divided = set(cuts(mine.model.config))
        total = clip_gradients(mine.model, divided, n=2, max_norm=0.1)
        return found, measured, total, mine.gradients()

    unclipped = {name: g * (norm + 1e-6) / 0.1 for name, g in expected.items()}
    for found, measured, total, clipped in on_ranks(ranks, work):
        torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(total, norm, rtol=1e-5, atol=0)
        assert measured.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(measured[name], unclipped[name], rtol=1e-4, atol=1e-6, msg=name)
            torch.testing.assert_close(clipped[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_recomputed_blocks_have_the_same_gradients(on_ranks: OnRanks, checkpointing: str) -> None:
    ids = random_ids(2)

    def work(rank: int) -> list[dict[str, Tensor]]:
        found = []
        for mode in ("none", checkpointing):
            mine = Divided(KINDS[0], ranks=2, checkpointing=mode)
            loss_of(mine.model, ids).backward()  # type: ignore[no-untyped-call]
            found.append(mine.gradients())
        return found

    for kept, again in on_ranks(2, work):
        assert all(torch.equal(kept[name], again[name]) for name in kept)


@pytest.mark.parametrize("kind", KINDS)
def test_every_process_makes_its_share_of_the_same_values(on_ranks: OnRanks, kind: str) -> None:
    expected = alone(kind).state_dict()

    def work(rank: int) -> tuple[dict[str, Tensor], int]:
        mine = Divided(kind, ranks=4)
        local = [p.to_local() if isinstance(p, DTensor) else p for p in mine.model.parameters()]
        return mine.whole(mine.model.state_dict()), sum(p.numel() for p in local)

    results = on_ranks(4, work)
    for found, _ in results:
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    everything = alone(kind).num_parameters()
    assert max(size for _, size in results) < 0.35 * everything, "a quarter, apart from what does not divide"


def test_the_strategy_saves_and_loads_whole_tensors_to_the_last_bit(on_ranks: OnRanks) -> None:
    """Weights and optimizer state: what one process has, divided among four and put together again."""
    model, ids = alone(KINDS[0]), random_ids(4)
    optimizer = build_optimizer(model, AdamWSettings())
    loss_of(model, ids).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    weights = {f"model.{name}": tensor.detach().clone() for name, tensor in model.state_dict().items()}
    saved = optimizer.state_dict()

    def work(rank: int) -> tuple[dict[str, Any], dict[str, Any]]:
        mine = Divided(KINDS[0], ranks=4)
        module = torch.nn.Module()
        module.model = mine.model
        stepper = build_optimizer(mine.model, AdamWSettings())
        group: Any = SimpleNamespace(is_rank_zero=rank == 0, gloo=None)
        io: Any = None
        strategy = ShardedStrategy(group, directory_io=io, in_parts=False, cuts=cuts(mine.model.config))
        strategy._lightning_module, strategy._device_mesh = module, mine.mesh  # type: ignore[assignment]
        strategy.optimizers = [stepper]
        strategy.load_model_state_dict({"state_dict": weights})
        strategy.load_optimizer_state_dict({"optimizer_states": [saved]})
        return strategy.lightning_module_state_dict(), strategy.optimizer_state(stepper)

    found, state = on_ranks(4, work)[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items()) and found.keys() == weights.keys()
    assert state["state"].keys() == saved["state"].keys()
    for index, entries in saved["state"].items():
        assert all(torch.equal(torch.as_tensor(state["state"][index][key]), value) for key, value in entries.items())


def test_a_divided_block_is_one_graph() -> None:
    """With the sums in it. The other process is not there, so the numbers mean nothing."""
    torch._dynamo.reset()
    graphs: list[int] = []
    aot_eager = lookup_backend("aot_eager")

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return aot_eager(graph, inputs)

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        model = empty_model(build(KINDS[0]).config)
        divide_blocks(model, init_device_mesh("cpu", (2,)).get_group())
        model.to_empty(device="cpu")
        leave_meta(model)
        for p in model.parameters():
            torch.nn.init.normal_(p)
        for block in model.transformer.h:
            block.compile(backend=backend, dynamic=False, fullgraph=True)
        for _ in range(2):
            model.hidden(random_ids(2)).sum().backward()  # type: ignore[no-untyped-call]
    finally:
        dist.destroy_process_group()
        torch._dynamo.reset()
    assert len(graphs) == 1


def test_shares_of_qkv_hold_whole_query_groups_and_join_again() -> None:
    cut = Cut(dim=0, sizes=(8, 4, 4))
    rows = torch.arange(16)[:, None]
    assert share_of(rows, cut, rank=1, n=2).flatten().tolist() == [4, 5, 6, 7, 10, 11, 14, 15]
    assert torch.equal(joined([share_of(rows, cut, rank=rank, n=4) for rank in range(4)], cut), rows)
    across = Cut(dim=1, sizes=(16,))
    assert torch.equal(joined([share_of(rows.mT, across, rank=rank, n=4) for rank in range(4)], across), rows.mT)


@pytest.mark.parametrize(
    ("kind", "n", "reason"),
    [
        ("GQA + QK-norm", 4, "does not divide n_query_groups=2"),
        ("MHA", 3, "does not divide"),
        ("latent attention", 2, "latent attention"),
        ("mixture of experts", 2, "mixture of experts"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_its_reason(kind: str, n: int, reason: str) -> None:
    config = build(kind).config
    assert reason in str(obstacle(config, n))
    with pytest.raises(ConfigError, match=reason.partition("=")[0]):
        sliced(config, n)
    assert sliced(config, 1) is config
    over_heads = dataclasses.replace(build("GQA + QK-norm").config, norm_qk_type="olmo2")
    assert "over all heads" in str(obstacle(over_heads, 2))


def test_settings_that_do_not_fit_the_processes_are_refused() -> None:
    def chosen(**changes: Any) -> Sharding | None:
        settings = {"strategy": "fsdp", "world_size": 8, "local_world_size": 4, "shard_size": None, "tensor": 2}
        return choose_sharding(**{**settings, **changes}, precision="bf16-mixed", cpu_offload=False)

    four = chosen()
    assert four is not None and (four.group, four.copies, four.tensor) == (4, 1, 2)
    node = chosen(tensor="auto")
    assert node is not None and (node.group, node.tensor) == (2, 4)
    assert chosen(tensor="auto", world_size=1, local_world_size=1) is None
    for changes in ({"tensor": 3}, {"tensor": 8}, {"strategy": "ddp"}, {"strategy": "fsdp_hybrid"}):
        with pytest.raises(ConfigError, match="tensor_parallel_size"):
            chosen(**changes)
    with pytest.raises(ConfigError, match="tensor_parallel_size"):
        chosen(world_size=1, local_world_size=1)
