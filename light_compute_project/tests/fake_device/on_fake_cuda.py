"""Whole steps under fake CUDA tensors, backward pass included. Run by test_fake_device_cuda.py, in a process into which
`no_gpu_runtime.c` is preloaded: without it torch takes no backward pass of such tensors where there is no GPU.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.cuda_kernels import cuda_kernels
from benchmarks.live_memory import LiveMemory
from tests.fake_device.test_fake_device_memory import BOUND, GPT2, LLAMA_1B, recipe
from tests.fake_device.test_fake_device_steps import HostReads, content, module, taken_up, tensors
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from litgpt_core.checkpoint.load import _NoInitialisation
from litgpt_core.doctor.model_checks import build
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.planning.memory import memory
from litgpt_core.planning.recipe import DeviceLayout

GPU = torch.device("cuda", 0)
"""With its number: torch asks the runtime which one is meant otherwise."""


@pytest.fixture(autouse=True)
def a_gpu_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)


class OnTheGPU(TorchDispatchMode):
    """Counts where results are, and float64. A number alone may be on the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.devices: Counter[str] = Counter()
        self.wide: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.devices[leaf.device.type if leaf.dim() else "cuda"] += 1
                if leaf.dtype == torch.float64:
                    self.wide.append(str(func))
        return out


def made_on_cuda(config: GPTConfig, **settings: Any) -> Any:
    with torch.device(GPU), _NoInitialisation():
        made = module(GPT(config), device="cuda", **settings)
    made.hardware = dataclasses.replace(made.hardware, precision="bf16-mixed")
    return made


def a_batch(rows: int, length: int) -> tuple[Tensor, Tensor]:
    ids = torch.zeros(rows, length, dtype=torch.long, device=GPU)
    return ids, ids


def a_step(made: Any, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, ...]) -> None:
    """As the Trainer takes it: the loss in bfloat16, everything else outside autocast."""
    made.on_train_batch_start(batch, 0)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = made.training_step(batch, 0)
    optimizer.zero_grad()
    loss.backward()
    made.on_after_backward()
    made.configure_gradient_clipping(optimizer)
    stepper = SimpleNamespace(optimizer=optimizer, step=lambda closure: optimizer.step())
    made.optimizer_step(0, 0, stepper)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("GQA + QK-norm", {}),
        ("MHA", {"activation_checkpointing": "full"}),
        ("windows + soft-caps", {"loss_chunk_size": 5, "activation_checkpointing": "selective"}),
        ("learned positions, tied", {"muon": True, "max_norm": None}),
        ("mixture of experts", {}),
    ],
)
def test_a_whole_step_waits_for_nothing_and_stays_on_the_gpu(kind: str, settings: dict[str, Any]) -> None:
    """Loss, gradients, clipping and update, in bfloat16, after a first step that made the optimizer's state."""
    with FakeTensorMode(), cuda_kernels():
        made = made_on_cuda(build(kind).config, **settings)
        optimizer = made.configure_optimizers()
        batch = a_batch(8, 16)
        a_step(made, optimizer, batch)
        with HostReads() as host, OnTheGPU() as seen:
            a_step(made, optimizer, batch)
        assert not host.found and not seen.wide
        assert set(seen.devices) == {"cuda"} and seen.devices["cuda"] > 100, seen.devices
        assert all(p.grad is not None and p.grad.device.type == "cuda" for p in made.parameters())


def test_the_optimizer_is_cudas_fused_one() -> None:
    with FakeTensorMode(), cuda_kernels():
        made = made_on_cuda(build("MHA").config)
        optimizer = made.configure_optimizers()
        names: Counter[str] = Counter()

        class Names(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                names[func.__name__] += 1
                return func(*args, **(kwargs or {}))

        a_step(made, optimizer, a_batch(2, 16))
        with Names():  # type: ignore[no-untyped-call]
            a_step(made, optimizer, a_batch(2, 16))
    assert any("_fused_adamw" in name for name in names), names


@pytest.mark.parametrize("muon", [False, True])
def test_an_interrupted_run_takes_the_next_step(muon: bool) -> None:
    """Weights and the optimizer's state are taken up on the GPU; the step after that waits for nothing."""
    with FakeTensorMode(), cuda_kernels():
        config = build("GQA + QK-norm").config
        first = made_on_cuda(config, muon=muon)
        optimizer = first.configure_optimizers()
        a_step(first, optimizer, a_batch(2, 16))
        second = made_on_cuda(config, muon=muon)
        again = taken_up(second, content(first, optimizer))
        for a, b in zip(tensors(optimizer.state_dict()), tensors(again.state_dict()), strict=True):
            assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
        with HostReads() as host:
            a_step(second, again, a_batch(2, 16))
        assert not host.found


@pytest.mark.parametrize(
    ("model", "settings", "fields"),
    [
        (GPT2, {}, {}),
        (LLAMA_1B, {"loss_chunk_size": 1024}, {"loss_chunk_size": 1024}),
        (
            LLAMA_1B,
            {"loss_chunk_size": 1024, "activation_checkpointing": "full", "muon": True},
            {"loss_chunk_size": 1024, "checkpointing": "full", "optimizer": "muon"},
        ),
    ],
    ids=["124M", "1B", "1B Muon"],
)
def test_the_peak_of_a_step_is_the_planners(model: GPTConfig, settings: dict[str, Any], fields: dict[str, Any]) -> None:
    """The training's own module and optimizer at full size, bfloat16 mixed, 4 sequences."""
    found = memory(recipe(model, **fields), DeviceLayout())
    with FakeTensorMode(), cuda_kernels(), LiveMemory() as live:
        made = made_on_cuda(model, **settings)
        made.on_fit_start()
        optimizer = made.configure_optimizers()
        batch = a_batch(4, model.block_size)
        for _ in range(2):
            live.peak = live.live
            a_step(made, optimizer, batch)
    print(f"{model.name} {fields}: planned {found.peak / 1e9:.2f} GB, counted {live.peak / 1e9:.2f} GB")
    assert found.peak == pytest.approx(live.peak, rel=BOUND), found
