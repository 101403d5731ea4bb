"""State is counted exactly, and peaks as real steps allocate: by hand, on one process, under DDP and under FSDP2.

Steps run on a CPU with real models and optimizers, and torch's allocator says what they took. Several processes are
one with a process group that sends nothing: shares and buffers are those of a real one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.testing._internal.distributed.fake_pg import FakeStore

from litgpt_core.core.errors import ConfigError
from litgpt_core.distributed.sharding import Sharding
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters
from litgpt_core.model.gpt import GPT
from litgpt_core.model.loss import cross_entropy
from litgpt_core.optim.build import build_flat_optimizer, build_optimizer
from litgpt_core.optim.settings import AdamWSettings, MuonSettings
from litgpt_core.planning.memory import SHARE, Memory, largest_micro_batch, memory
from litgpt_core.planning.recipe import DeviceLayout, Recipe
from litgpt_core.training.activation_checkpointing import checkpoint_blocks

GPT2 = GPTConfig(
    n_layer=4, n_head=4, n_embd=128, block_size=512, vocab_size=2048, padding_multiple=64, parallel_residual=False,
    position_embedding="learned", tie_embeddings=True,
)  # fmt: skip
LLAMA = GPTConfig(
    n_layer=4, n_head=4, n_query_groups=2, n_embd=256, block_size=512, vocab_size=512, parallel_residual=False,
    norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", intermediate_size=704, bias=False, rotary_percentage=1.0,
)  # fmt: skip
EXPERTS = dataclasses.replace(LLAMA, mlp_class_name="LLaMAMoE", n_expert=4, n_expert_per_token=2)
MATRICES = dataclasses.replace(LLAMA, n_layer=16, block_size=32, vocab_size=64)
SHAPES = {"GPT-2": GPT2, "Llama": LLAMA, "experts": EXPERTS, "matrices": MATRICES}
BOUND, SHARDED_BOUND = 0.05, 0.10
"""Of the peak, either way. FSDP2 is planned with the next block gathered early, as on a GPU; a CPU does not."""


@contextlib.contextmanager
def processes(number: int) -> Iterator[None]:
    """This process is the first of so many; the others are not there, and nothing is sent."""
    if number == 1:
        yield
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=number)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _sent_by_nobody(_, bucket):  # type: ignore[no-untyped-def]  # DDP refuses an annotation that is text
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


class _Loss(nn.Module):
    def __init__(self, model: GPT, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.chunk = model, recipe.loss_chunk_size
        self.z_loss = recipe.z_loss

    def forward(self, idx: Tensor) -> Tensor:
        return cross_entropy(self.model.hidden(idx), self.model.head, idx, chunk_size=self.chunk, z_loss=self.z_loss)


@dataclasses.dataclass
class Training:
    """A model and its optimizer, put together as training does it."""

    recipe: Recipe
    layout: DeviceLayout

    def __post_init__(self) -> None:
        r, bf16 = self.recipe, self.recipe.precision.startswith("bf16")
        settings = AdamWSettings() if r.optimizer == "adamw" else MuonSettings()
        torch.set_default_dtype(torch.bfloat16 if r.precision == "bf16-true" else torch.float32)
        try:
            self.model = GPT(r.model).train()
        finally:
            torch.set_default_dtype(torch.float32)
        network, self.collect, loss = self.model, lambda: None, None
        if self.layout.sharded:
            checkpoint_blocks(network, r.checkpointing)
            shares = Sharding(
                group=self.layout.group,
                copies=self.layout.devices // self.layout.group,
                bf16=r.precision == "bf16-mixed",
                cpu_offload=False,
            )
            shares.apply(network, init_device_mesh("cpu", (self.layout.devices,)))
        if self.layout.devices == 1 and r.precision != "bf16-true" and not r.model.n_expert:
            dtype = torch.bfloat16 if r.precision == "bf16-master" else torch.float32
            self.optimizer: torch.optim.Optimizer = build_flat_optimizer(
                self.model, settings, dtype=dtype, fast_bf16=bf16
            )
            flat = self.optimizer.flat
            network, self.collect = flat.working, flat.collect_gradients  # type: ignore[assignment]
        else:
            replicas = dist.group.WORLD if self.layout.strategy == "ddp" else None
            self.optimizer = build_optimizer(self.model, settings, fast_bf16=bf16, replicas=replicas)
        if not self.layout.sharded:
            checkpoint_blocks(network, r.checkpointing)
        loss = _Loss(network, r)
        if self.layout.strategy == "ddp":
            loss = nn.parallel.DistributedDataParallel(loss, gradient_as_bucket_view=True)
            loss.register_comm_hook(None, _sent_by_nobody)
        self.loss: Callable[[Tensor], Tensor] = loss

    def step(self) -> None:
        """An optimizer step in the Trainer's order: old gradients go after the first forward pass."""
        r = self.recipe
        mixed = torch.autocast(
            "cpu", dtype=torch.bfloat16, enabled=r.precision == "bf16-mixed" and not self.layout.sharded
        )
        idx = torch.randint(r.model.vocab_size, (r.micro_batch, r.model.block_size))
        micro_batches = r.global_batch // r.micro_batch // self.layout.devices
        for micro in range(micro_batches):
            if self.layout.gradients_once:
                assert isinstance(self.model, FSDPModule)
                self.model.set_is_last_backward(micro == micro_batches - 1)
                self.model.set_requires_gradient_sync(micro == micro_batches - 1)
            with mixed:
                loss = self.loss(idx)
            if micro == 0:
                self.optimizer.zero_grad()
            loss.backward()
            self.collect()
        self.optimizer.step()


def allocated(recipe: Recipe, layout: DeviceLayout) -> int:
    """The most bytes at once in the third step, weights included."""
    gc.collect()  # what an earlier test left in cycles would count as freed here
    with processes(layout.devices), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        training = Training(recipe, layout)
        training.step()
        training.step()
        with record_function("third"):
            training.step()
    events = watched.profiler.kineto_results.events()  # type: ignore[union-attr]
    begin = next(event.start_ns() for event in events if event.name() == "third")
    alive = peak = 0
    for when, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        alive += size
        peak = max(peak, alive) if when >= begin else peak
    return peak


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def recipe(shape: str, **fields: Any) -> Recipe:
    return Recipe(model=SHAPES[shape], device="cpu", **{"global_batch": 2, "micro_batch": 2, **fields})


# ---- what stays ----


@pytest.mark.parametrize(
    ("optimizer", "precision"), [("adamw", "32-true"), ("muon", "32-true"), ("adamw", "bf16-true")]
)
@pytest.mark.parametrize("shape", ["GPT-2", "experts"])
@pytest.mark.parametrize(
    "layout",
    [
        DeviceLayout(strategy="ddp", devices=2),
        DeviceLayout(strategy="fsdp", devices=2),
        DeviceLayout(strategy="fsdp", devices=3),
        DeviceLayout(strategy="fsdp_hybrid", devices=16, per_node=8),
    ],
    ids=["ddp 2", "fsdp 2", "fsdp 3, uneven", "hybrid 2 x 8"],
)
def test_state_is_exact(layout: DeviceLayout, shape: str, optimizer: Any, precision: Any) -> None:
    plan = recipe(shape, precision=precision, optimizer=optimizer, global_batch=layout.devices, micro_batch=1)
    with processes(layout.devices):
        training = Training(plan, layout)
        training.step()
        parameters = list(training.model.parameters())
        states = [v for state in training.optimizer.state.values() for v in state.values()]
        moments = sum(_local(v).nbytes for v in states if isinstance(v, Tensor) and v.ndim)
        weights, gradients = (sum(_local(t).nbytes for t in ts) for ts in (parameters, [p.grad for p in parameters]))
    found = memory(plan, layout)
    assert (found.weights, found.gradients, found.optimizer) == (weights, gradients, moments)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-master"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_of_one_process_on_a_cpu_is_exact(optimizer: Any, precision: Any) -> None:
    """One buffer of weights, one of gradients, two of means, and perhaps a copy in bfloat16."""
    plan = recipe("Llama", precision=precision, optimizer=optimizer)
    flat = Training(plan, DeviceLayout()).optimizer
    copy = flat.flat._copy if precision == "bf16-master" else torch.empty(0)  # type: ignore[attr-defined]
    found = memory(plan, DeviceLayout())
    assert found.weights == flat.flat.master.nbytes + copy.nbytes  # type: ignore[attr-defined]
    assert found.gradients == flat.flat.gradient.nbytes  # type: ignore[attr-defined]
    assert found.optimizer == flat._first.nbytes + flat._second.nbytes  # type: ignore[attr-defined]


def test_eight_billion_by_hand() -> None:
    """16 bytes a parameter on one GPU, an eighth of it on each of eight; nothing of it with offload."""
    model = GPTConfig.from_name("Llama-3.1-8B", block_size=4096)
    numbers = count_parameters(model)
    plan = Recipe(model=model, global_batch=8)
    one, eight = memory(plan, DeviceLayout()), memory(plan, DeviceLayout(strategy="fsdp", devices=8))
    assert one.weights + one.gradients + one.optimizer == 16 * numbers == 128_484_179_968
    assert eight.weights + eight.gradients + eight.optimizer == 2 * numbers
    away = memory(plan, DeviceLayout(strategy="fsdp", devices=8, cpu_offload=True))
    assert (away.weights, away.gradients, away.optimizer, away.host) == (0, 0, 0, 2 * numbers)
    assert away.peak < eight.peak - 1.5 * numbers


# ---- what comes and goes ----


def nightly(*values: Any) -> Any:
    """Values of a test that takes about a minute on a processor that does not multiply bfloat16."""
    return pytest.param(*values, marks=pytest.mark.nightly)


@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        ("GPT-2", {"precision": "32-true"}),
        ("GPT-2", {"precision": "32-true", "z_loss": 1e-4}),
        nightly("GPT-2", {"precision": "bf16-master", "checkpointing": "selective"}),
        nightly("GPT-2", {"precision": "bf16-true", "optimizer": "muon"}),
        ("Llama", {"precision": "32-true", "checkpointing": "full", "loss_chunk_size": 128}),
        nightly("Llama", {"precision": "bf16-mixed", "loss_chunk_size": 128}),
        nightly("Llama", {"precision": "bf16-mixed", "checkpointing": "full", "optimizer": "muon"}),
        nightly("Llama", {"precision": "bf16-master", "checkpointing": "full", "global_batch": 4}),
        nightly("Llama", {"precision": "bf16-true", "checkpointing": "full", "optimizer": "muon"}),
        nightly("Llama", {"precision": "bf16-true", "checkpointing": "selective", "global_batch": 4}),
        ("experts", {"precision": "32-true"}),
        nightly("experts", {"precision": "bf16-mixed"}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(str(v) for v in value.values()),
)
def test_the_peak_of_one_process(shape: str, fields: dict[str, Any]) -> None:
    plan = recipe(shape, **fields)
    assert memory(plan, DeviceLayout()).peak == pytest.approx(allocated(plan, DeviceLayout()), rel=BOUND)


@pytest.mark.parametrize(
    "fields", [{"precision": "32-true"}, nightly({"precision": "bf16-mixed", "checkpointing": "full"})]
)
def test_the_peak_under_ddp(fields: dict[str, Any]) -> None:
    plan, layout = recipe("Llama", global_batch=4, **fields), DeviceLayout(strategy="ddp", devices=2)
    assert memory(plan, layout).peak == pytest.approx(allocated(plan, layout), rel=BOUND)


@pytest.mark.parametrize(
    ("devices", "checkpointing", "precision"),
    [
        nightly(2, "none", "bf16-mixed"),
        (2, "full", "32-true"),
        nightly(2, "full", "bf16-true"),
        (8, "none", "32-true"),
        nightly(8, "full", "bf16-mixed"),
        nightly(8, "selective", "bf16-mixed"),
    ],
)
def test_the_peak_under_fsdp(devices: int, checkpointing: Any, precision: Any) -> None:
    plan = recipe("Llama", precision=precision, checkpointing=checkpointing, global_batch=2 * devices)
    layout = DeviceLayout(strategy="fsdp", devices=devices)
    assert memory(plan, layout).peak == pytest.approx(allocated(plan, layout), rel=SHARDED_BOUND)


@pytest.mark.parametrize(
    ("strategy", "precision"), [("fsdp", "32-true"), nightly("fsdp", "bf16-mixed"), nightly("ddp", "32-true")]
)
def test_the_peak_of_muon_whose_products_are_divided(strategy: Any, precision: Any) -> None:
    """Of a model with more matrices than activations: the optimizer's step is the peak."""
    plan = recipe("matrices", precision=precision, optimizer="muon", global_batch=4, micro_batch=1)
    layout = DeviceLayout(strategy=strategy, devices=4)
    found = memory(plan, layout)
    assert found.moment == "step" or strategy == "ddp"
    assert found.peak == pytest.approx(allocated(plan, layout), rel=SHARDED_BOUND)


@pytest.mark.parametrize("precision", ["32-true", nightly("bf16-mixed")])
def test_the_peak_of_gradients_that_are_added_up_once(precision: Any) -> None:
    plan = recipe("Llama", precision=precision, checkpointing="full", global_batch=24)
    layout = DeviceLayout(strategy="fsdp", devices=4, gradients_once=True)
    found = memory(plan, layout).peak
    assert found == pytest.approx(allocated(plan, layout), rel=SHARDED_BOUND)
    assert found > memory(plan, dataclasses.replace(layout, gradients_once=False)).peak


# ---- what follows ----


LARGE = Recipe(model=GPTConfig.from_name("Llama-3.2-1B", block_size=2048), global_batch=512, micro_batch=4)


def peak(layout: DeviceLayout, **fields: Any) -> float:
    return memory(dataclasses.replace(LARGE, **fields), layout).peak


def test_every_way_of_saving_saves() -> None:
    eight = DeviceLayout(strategy="fsdp", devices=8)
    assert peak(eight, checkpointing="full") < peak(eight, checkpointing="selective") < peak(eight)
    assert peak(eight, loss_chunk_size=1024) < peak(eight)
    assert peak(eight, micro_batch=2) < peak(eight, micro_batch=4)
    assert peak(DeviceLayout(strategy="fsdp", devices=8, cpu_offload=True)) < peak(eight) < peak(DeviceLayout())
    assert peak(DeviceLayout(strategy="fsdp", devices=64)) < peak(DeviceLayout(strategy="fsdp_hybrid", devices=64))
    assert peak(DeviceLayout(strategy="fsdp_hybrid", devices=64)) == peak(eight, global_batch=64)


def test_the_parts_are_at_least_the_peak() -> None:
    for layout in (DeviceLayout(), DeviceLayout(strategy="ddp", devices=8), DeviceLayout(strategy="fsdp", devices=8)):
        for mode in ("none", "full"):
            found: Memory = memory(dataclasses.replace(LARGE, checkpointing=mode), layout)
            parts = found.weights + found.gradients + found.optimizer + found.activations + found.logits
            assert found.moment in ("loss", "backward", "end", "step")
            assert found.peak <= parts + 4 * found.buffers + 0.2 * found.activations + 4e9


def test_the_largest_micro_batch_fits_and_the_next_does_not() -> None:
    layout, limit = DeviceLayout(strategy="ddp", devices=8), SHARE["cuda"] * 80e9
    size = largest_micro_batch(LARGE, layout, limit=limit)
    assert size is not None and 64 % size == 0
    assert peak(layout, micro_batch=size) <= limit < peak(layout, micro_batch=2 * size)
    assert largest_micro_batch(LARGE, layout, limit=1e9) is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DeviceLayout(devices=2), "ddp, fsdp or fsdp_hybrid"),
        (lambda: DeviceLayout(strategy="fsdp_hybrid", devices=12, per_node=8), "groups of one size"),
        (
            lambda: memory(dataclasses.replace(LARGE, global_batch=6), DeviceLayout(strategy="ddp", devices=4)),
            "multiple of 16",
        ),
    ],
)
def test_what_does_not_divide_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()
