"""Muon's products divided among processes: the updates of the reference, each matrix orthogonalised once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from litgpt_core.optim import muon
from litgpt_core.optim.muon import MuonAdamW
from litgpt_core.optim.settings import NUMBERS_AT_ONCE, matrices_at_once

SHAPES = [(7, 5)] * 5 + [(4, 12)] * 3 + [(3, 3)]
"""More and fewer matrices than processes, rows that do not divide, fewer rows than processes."""
OnRanks = Callable[[int, Callable[[int], Any]], list[Any]]


def values(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def stepped(parameters: list[nn.Parameter], place: Callable[[Tensor], Tensor], **options: Any) -> list[Tensor]:
    """The parameters after two steps on the same gradients."""
    groups = [{"params": parameters, "lr": 0.1, "muon": True, "weight_decay": 0.1}]
    optimizer = MuonAdamW(groups, **options)
    for step in (1, 2):
        for parameter, gradient in zip(parameters, values(step), strict=True):
            parameter.grad = place(gradient)
        optimizer.step()
    return [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in parameters]


@pytest.mark.parametrize(("number", "dtype"), [(2, torch.bfloat16), (4, torch.float32)])
def test_shards_and_replicas_step_as_one_process(on_ranks: OnRanks, number: int, dtype: torch.dtype) -> None:
    alone = stepped([nn.Parameter(v) for v in values(0)], lambda gradient: gradient, dtype=dtype)

    def replicas(rank: int) -> list[Tensor]:
        return stepped([nn.Parameter(v) for v in values(0)], lambda g: g, dtype=dtype, replicas=dist.group.WORLD)

    def shards(rank: int, *, divided: bool = True) -> list[Tensor]:
        mesh = init_device_mesh("cpu", (number,))

        def place(whole: Tensor) -> Tensor:
            return distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)

        return stepped([nn.Parameter(place(v)) for v in values(0)], place, dtype=dtype, divided=divided)

    for work in (replicas, shards, lambda rank: shards(rank, divided=False)):
        for found in on_ranks(number, work):
            for ours, expected in zip(found, alone, strict=True):
                bound = (
                    1e-6 if dtype == torch.float32 else 2e-2
                )  # products of a stack and of one matrix round differently
                torch.testing.assert_close(ours, expected, rtol=0, atol=bound)


def test_no_matrix_is_orthogonalised_twice(on_ranks: OnRanks, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    orthogonalise = muon.orthogonalise

    def counted(matrices: Tensor, **options: Any) -> Tensor:
        computed.append(len(matrices))
        return orthogonalise(matrices, **options)

    monkeypatch.setattr(muon, "orthogonalise", counted)

    def work(rank: int) -> None:
        mesh = init_device_mesh("cpu", (3,))

        def place(whole: Tensor) -> Tensor:
            return distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)

        stepped([nn.Parameter(place(v)) for v in values(0)], place)

    on_ranks(3, work)
    assert sum(computed) == 2 * len(SHAPES), "two steps"
    computed.clear()
    on_ranks(3, lambda rank: stepped([nn.Parameter(v) for v in values(0)], lambda g: g, replicas=dist.group.WORLD))
    assert sum(computed) == 2 * (6 + 3 + 3), "replicas send equally much, so some compute a matrix that is not used"


def test_how_many_are_taken_together() -> None:
    assert matrices_at_once(768, 3072, count=12, processes=8) == 2
    assert matrices_at_once(768, 3072, count=1000, processes=8) == NUMBERS_AT_ONCE // (768 * 3072)
    assert matrices_at_once(4096, 14336, count=64, processes=8) == 1
