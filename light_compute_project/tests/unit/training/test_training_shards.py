"""A model in shards: it gets its values shard by shard, its gradients are those of one process, and adapters work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from litgpt_core import checkpoint
from litgpt_core.checkpoint.load import empty_model
from litgpt_core.distributed.sharding import Sharding, shard_of
from litgpt_core.doctor.model_checks import build
from litgpt_core.model import lora
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.lora import add_adapters
from litgpt_core.model.loss import cross_entropy
from litgpt_core.model.optional_settings import LoRASettings
from litgpt_core.training.inputs import fill_shards

OnRanks = Callable[[int, Callable[[int], Any]], list[Any]]
CPU = torch.device("cpu")
ADAPTERS = LoRASettings(r=3, alpha=6, dropout=0.0)
KINDS = ["GQA + QK-norm", "learned positions, tied", "mixture of experts"]


def plan_of(sharding: Sharding, *, init_from: str | None = None, adapters: LoRASettings | None = None) -> Any:
    config = SimpleNamespace(seed=5, init_from=init_from, lora=adapters)
    resolved = SimpleNamespace(sharding=sharding, config=config)
    return SimpleNamespace(resolved=resolved, folder=SimpleNamespace(resume_from=None))


def in_shards(
    kind: str,
    ranks: int,
    *,
    init_from: str | None = None,
    adapters: LoRASettings | None = None,
    head_apart: bool = False,
) -> GPT:
    """On this rank."""
    model = empty_model(build(kind).config)
    if adapters is not None:
        add_adapters(model, adapters, seed=5)
    sharding = Sharding(group=ranks, copies=1, bf16=False, cpu_offload=False, head_apart=head_apart)
    sharding.apply(model, init_device_mesh("cpu", (ranks,)))
    fill_shards(model, CPU, plan=plan_of(sharding, init_from=init_from, adapters=adapters))
    return model


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (t.full_tensor() if isinstance(t, DTensor) else t).detach() for name, t in tensors.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_process_makes_its_share_of_the_same_values(on_ranks: OnRanks, kind: str) -> None:
    """Three processes: rows do not divide. The whole model exists nowhere but in this comparison."""
    expected = build(kind)
    initialize(expected, seed=5)
    for found in on_ranks(3, lambda rank: whole(in_shards(kind, 3).state_dict())):
        assert found.keys() == expected.state_dict().keys()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.state_dict().items())


def test_weights_and_adapters_come_from_a_checkpoint_and_the_seed(
    on_ranks: OnRanks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build(KINDS[0], seed=9)
    (tmp_path / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "tokenizer" / name).write_text("{}")
    directory = checkpoint.save_directory(
        tmp_path / "base",
        weights=expected.state_dict(),
        config=expected.config,
        tokenizer_dir=tmp_path / "tokenizer",
        hyperparameters={},
    )
    add_adapters(expected, ADAPTERS, seed=5)

    def work(rank: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        model = in_shards(KINDS[0], 2, init_from=str(directory), adapters=ADAPTERS)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained and all("lora_" in name for name in trained)
        state = whole(model.state_dict())
        return state, lora.merged(model, state)

    for state, merged in on_ranks(2, work):
        assert all(torch.equal(tensor, state[name]) for name, tensor in expected.state_dict().items())
        assert merged.keys() == lora.merged(expected).keys() == build(KINDS[0]).state_dict().keys()


def gradients(model: GPT, ids: Tensor, *, parts: int, once: bool = False) -> dict[str, Tensor]:
    """Of the mean loss over `parts` micro-batches."""
    for number, part in enumerate(ids.chunk(parts)):
        if once:
            model.set_is_last_backward(number == parts - 1)  # type: ignore[operator]
            model.set_requires_gradient_sync(number == parts - 1)  # type: ignore[operator]
        loss = cross_entropy(model.hidden(part[:, :-1]), model.head, part[:, 1:])
        (loss / parts).backward()  # type: ignore[no-untyped-call]
    return whole({name: p.grad for name, p in model.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("once", [False, True], ids=["every micro-batch", "once"])
@pytest.mark.parametrize("adapters", [None, ADAPTERS], ids=["all weights", "adapters"])
def test_gradients_are_those_of_one_process(on_ranks: OnRanks, adapters: LoRASettings | None, once: bool) -> None:
    kind, ids = KINDS[0], torch.randint(61, (8, 16), generator=torch.Generator().manual_seed(1))
    alone = build(kind)
    initialize(alone, seed=5)
    if adapters is not None:
        add_adapters(alone, adapters, seed=5)
    expected = gradients(alone, ids, parts=1)

    def work(rank: int) -> dict[str, Tensor]:
        model = in_shards(kind, 2, adapters=adapters, head_apart=once)
        assert isinstance(model.lm_head, FSDPModule) is once
        return gradients(model, ids[4 * rank : 4 * rank + 4], parts=2, once=once)

    for found in on_ranks(2, work):
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_a_share_is_a_copy_of_its_rows_alone(on_ranks: OnRanks) -> None:
    def work(rank: int) -> tuple[Tensor, int]:
        like = in_shards(KINDS[0], 2).lm_head.weight
        assert isinstance(like, DTensor)
        values = torch.arange(like.numel(), dtype=torch.float64).reshape(like.shape)
        found = shard_of(values, like)
        assert found.dtype == torch.float32 and found.placements == like.placements
        assert torch.equal(found.full_tensor(), values.float())
        return found.to_local(), found.to_local().untyped_storage().nbytes()

    (first, size), (second, _) = on_ranks(2, work)
    assert size == first.numel() * 4
    assert not torch.equal(first, second)
