"""The planner's peak against a training step of full size, with fake tensors: 124M, 1B and 8B parameters."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
import torch.distributed as dist
from benchmarks.cuda_kernels import cuda_kernels
from benchmarks.live_memory import LiveMemory
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp._fully_shard import _fsdp_param
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from litgpt_core.checkpoint.load import _NoInitialisation
from litgpt_core.distributed.sharding import Sharding
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.loss import cross_entropy
from litgpt_core.optim.build import build_optimizer
from litgpt_core.optim.settings import AdamWSettings, MuonSettings
from litgpt_core.planning.memory import memory
from litgpt_core.planning.recipe import DeviceLayout, Recipe
from litgpt_core.training.activation_checkpointing import checkpoint_blocks

GPT2 = GPTConfig(
    n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50257, padding_multiple=64, parallel_residual=False,
    position_embedding="learned", tie_embeddings=True, rotary_percentage=0.0, name="gpt2",
)  # fmt: skip
LLAMA_1B = GPTConfig.from_name("Llama-3.2-1B", block_size=2048)
LLAMA_8B = GPTConfig.from_name("Llama-3.1-8B", block_size=4096)
BOUND = 0.10


def recipe(model: GPTConfig, **fields: Any) -> Recipe:
    return Recipe(model=model, device="cuda", **{"global_batch": 4, "micro_batch": 4, **fields})


def peak_of_a_step(plan: Recipe) -> int:
    """The most bytes of tensors at once in the second step of one process."""
    with FakeTensorMode(), cuda_kernels(), LiveMemory() as live:
        with _NoInitialisation():
            model = GPT(plan.model).train()
        settings = AdamWSettings() if plan.optimizer == "adamw" else MuonSettings()
        optimizer = build_optimizer(model, settings, fast_bf16=True)
        checkpoint_blocks(model, plan.checkpointing)
        idx = torch.zeros(plan.micro_batch, plan.model.block_size, dtype=torch.long)
        segments = torch.zeros_like(idx) if plan.segments else None
        for step in (1, 2):
            if step == 2:
                live.peak = live.live
            for micro in range(plan.global_batch // plan.micro_batch):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=plan.precision == "bf16-mixed"):
                    hidden = model.hidden(idx, segments=segments)
                    loss = cross_entropy(hidden, model.head, idx, chunk_size=plan.loss_chunk_size)
                if micro == 0:
                    optimizer.zero_grad()
                del hidden
                loss.backward()  # type: ignore[no-untyped-call]
                del loss
            optimizer.step()
        return live.peak


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (GPT2, {}),
        (GPT2, {"precision": "32-true", "segments": True}),
        pytest.param(
            GPT2, {"checkpointing": "selective", "global_batch": 8, "optimizer": "muon"}, marks=pytest.mark.nightly
        ),
        (LLAMA_1B, {"loss_chunk_size": 1024}),
        (LLAMA_1B, {"segments": True, "checkpointing": "full", "loss_chunk_size": 1024}),
    ],
    ids=lambda value: value.name if isinstance(value, GPTConfig) else " ".join(map(str, value.values())) or "plain",
)
def test_the_peak_of_a_whole_step(model: GPTConfig, fields: dict[str, Any]) -> None:
    plan = recipe(model, **fields)
    found = memory(plan, DeviceLayout())
    assert found.peak == pytest.approx(peak_of_a_step(plan), rel=BOUND), found


class ShardedMemory(LiveMemory):
    """Notices that FSDP2 empties and refills the storages of gathered weights, which no operation shows."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}

    def _meet(self, tensor: torch.Tensor, *, ours: bool) -> None:
        tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        storage = tensor.untyped_storage()
        if id(storage) not in self._known:
            self.sizes[id(storage)] = storage.nbytes() if ours else 0
        super()._meet(tensor, ours=ours)

    def _forget(self, key: int, size: int) -> None:
        super()._forget(key, self.sizes.pop(key, size))

    def resized(self, tensor: torch.Tensor, size: int) -> None:
        """FSDP2 gave a storage another size."""
        key = id(tensor.untyped_storage())
        self._meet(tensor, ours=True)
        self.live += size - self.sizes[key]
        self.sizes[key] = size
        self.peak = max(self.peak, self.live)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("optimizer", "checkpointing", "tensor", "chunk"),
    [
        ("adamw", "full", 1, 1024),
        ("muon", "full", 1, 1024),
        ("adamw", "selective", 1, 1024),
        ("adamw", "full", 1, 0),
        ("adamw", "full", 2, 1024),
        ("adamw", "none", 8, 0),
    ],
)
def test_the_peak_of_8b_on_eight_gpus(
    optimizer: Any, checkpointing: Any, tensor: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP2 itself, on one of eight processes of which seven are not there, at full size."""
    plan = Recipe(
        model=LLAMA_8B, optimizer=optimizer, checkpointing=checkpointing, loss_chunk_size=chunk, device="cuda",
        global_batch=8 // tensor, micro_batch=1,
    )  # fmt: skip
    layout = DeviceLayout(strategy="fsdp", devices=8, tensor=tensor)
    found = memory(plan, layout)
    live = ShardedMemory()
    alloc, free = _fsdp_param.alloc_storage, _fsdp_param.free_storage

    def allocated(tensor: torch.Tensor) -> None:
        alloc(tensor)
        live.resized(tensor, tensor.numel() * tensor.itemsize)

    def freed(tensor: torch.Tensor) -> None:
        free(tensor)
        live.resized(tensor, 0)

    monkeypatch.setattr(_fsdp_param, "alloc_storage", allocated)
    monkeypatch.setattr(_fsdp_param, "free_storage", freed)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        mesh = init_device_mesh("cpu", (8 // tensor, tensor), mesh_dim_names=("data", "tensor"))
        with FakeTensorMode(), cuda_kernels():
            with _NoInitialisation():
                model = GPT(plan.model).train()
            sharding = Sharding(
                group=8 // tensor, copies=1, tensor=tensor, bf16=True, cpu_offload=False, head_apart=not chunk
            )
            sharding.divide(model, mesh["tensor"])
            checkpoint_blocks(model, plan.checkpointing)
            sharding.apply(model, mesh["data"])
            gc.collect()
            with live:
                state = sum(p.to_local().nbytes for p in model.parameters())  # type: ignore[attr-defined]
                settings = AdamWSettings() if optimizer == "adamw" else MuonSettings()
                stepper = build_optimizer(model, settings, fast_bf16=True)
                idx = torch.zeros(plan.micro_batch, plan.model.block_size, dtype=torch.long)
                for _ in range(2):
                    live.peak = live.live
                    loss = cross_entropy(model.hidden(idx), model.head, idx, chunk_size=plan.loss_chunk_size)
                    stepper.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    del loss
                    stepper.step()
    finally:
        dist.destroy_process_group()
    assert found.peak == pytest.approx(state + live.peak, rel=BOUND), found
