"""Steps of training, validation and decoding, saving and resuming, looked at operation by operation: nothing waits for
the device that need not, nothing is on another device or in float64, nothing is compiled twice, no cache is read or
copied in vain.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.cuda_kernels import cuda_kernels
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from litgpt_core.checkpoint import directory, load
from litgpt_core.checkpoint.load import _NoInitialisation
from litgpt_core.config.trainer import BatchSettings
from litgpt_core.doctor.model_checks import build
from litgpt_core.generation import torch_decoder
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.sampling import sample
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.generation.torch_decoder import LIVE_STEP, TorchDecoder
from litgpt_core.model import grouped
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.optim.settings import AdamWSettings, MuonSettings
from litgpt_core.training.checkpoint_io import LitGPTDirectoryIO
from litgpt_core.training.hardware import Hardware
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.random_state import random_state

SMALL = GPTConfig.from_name("Llama-3.2-1B", n_layer=2, block_size=2048)
"""Full width, two blocks: every kind of operation that the whole model has."""


class HostReads(TorchFunctionMode):
    """Counts what makes the host wait for the device: reading values, and shapes that only the device knows."""

    NAMES = frozenset(
        ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero", "unique")
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        masked = name == "__getitem__" and any(
            isinstance(a, Tensor) and a.dtype == torch.bool for a in tree_leaves(args[1:])
        )
        if name in self.NAMES or masked:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Narrow(TorchDispatchMode):
    """Refuses float64, which MPS does not have."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        for leaf in tree_leaves(out):
            assert not isinstance(leaf, Tensor) or leaf.dtype != torch.float64, f"{func} makes float64"
        return out


def module(
    model: GPT, *, device: str = "cpu", muon: bool = False, compiled: bool = False, **batch: Any
) -> TrainingModule:
    hardware = Hardware(
        device=device, precision="32-true", compile=compiled, compile_reason="", fast_bf16=True, flat=False
    )
    optim = MuonSettings() if muon else AdamWSettings()
    made = TrainingModule(model, optim=optim, batch=BatchSettings(**batch), max_steps=10, hardware=hardware)
    made._trainer = SimpleNamespace(accumulate_grad_batches=1, world_size=1, global_step=3)  # type: ignore[assignment]
    return made


def a_step(made: TrainingModule, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, ...]) -> None:
    """As the Trainer takes it."""
    made.on_train_batch_start(batch, 0)
    loss = made.training_step(batch, 0)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    made.on_after_backward()
    made.configure_gradient_clipping(optimizer)
    stepper = SimpleNamespace(optimizer=optimizer, step=lambda closure: optimizer.step())
    made.optimizer_step(0, 0, stepper)


def batch_of(length: int = 16, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    ids = torch.randint(61, (2, length + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


# ---- waiting ----


@pytest.mark.parametrize(
    ("kind", "muon", "batch", "reads"),
    [
        ("GQA + QK-norm", False, {}, {}),
        ("windows + soft-caps", False, {"loss_chunk_size": 5, "activation_checkpointing": "selective"}, {}),
        ("learned positions, tied", True, {"max_norm": None}, {}),
        ("mixture of experts", False, {}, {"tolist": 2}),  # rows of each expert, once in each of two layers
    ],
)
def test_a_plain_step_waits_for_nothing(kind: str, muon: bool, batch: dict[str, Any], reads: dict[str, int]) -> None:
    made = module(build(kind), muon=muon, **batch)
    made.on_fit_start()
    optimizer = made.configure_optimizers()
    a_step(made, optimizer, batch_of())  # its state is made
    with HostReads() as host:
        a_step(made, optimizer, batch_of(seed=1))
    assert host.found == reads
    with HostReads() as host:
        float(made.step_loss)
    assert host.found == {"__float__": 1}, "a row of metrics reads, and is seen to"


def test_a_batch_of_validation_waits_for_nothing_and_its_end_once() -> None:
    made = module(build("MHA"))
    made.on_validation_epoch_start()
    with HostReads() as host:
        for seed in range(3):
            made.validation_step(batch_of(seed=seed), seed)
    assert not host.found


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(temperature=0.0),
        SamplingSettings(),
        SamplingSettings(top_k=5, min_p=0.1),
        SamplingSettings(top_p=0.9),
    ],
    ids=["greedy", "top_k", "min_p", "top_p"],
)
def test_a_token_is_read_once(settings: SamplingSettings) -> None:
    logits = torch.randn(4, 3000, generator=torch.Generator().manual_seed(0)) * 5
    with HostReads() as host:
        sample(logits, [settings] * 4, uniforms=[0.1, 0.4, 0.6, 0.9])
    assert host.found == {"tolist": 1}
    with HostReads() as host:
        sample(logits, [settings, GREEDY] * 2, uniforms=[0.1, 0.4, 0.6, 0.9])
    assert host.found == {"tolist": 1}


GREEDY = SamplingSettings(temperature=0.0)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_mixture_on_a_gpu_waits_for_nothing(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass under fake CUDA tensors, whose values nobody can read; backward, which torch refuses for them
    without a GPU, on fake tensors of the CPU with CUDA's kernels.
    """
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    used: list[torch.Size] = []
    product = grouped.functional.grouped_mm
    monkeypatch.setattr(
        grouped.functional, "grouped_mm", lambda a, b, **options: used.append(b.shape) or product(a, b, **options)
    )
    with FakeTensorMode(), cuda_kernels():
        with torch.device(device), _NoInitialisation():
            model = GPT(build("mixture of experts").config)
            made = module(model, device="cuda")
            ids = torch.zeros(8, 16, dtype=torch.long)
        with HostReads() as host, torch.autocast(device, dtype=torch.bfloat16):
            loss = made.training_step((ids, ids), 0)
            if device == "cpu":
                loss.backward()  # type: ignore[no-untyped-call]
    assert not host.found
    assert len(used) == 2 * 3 * (3 if device == "cpu" else 1), (
        "three products in two layers, two for each one's gradients"
    )
    assert device != "cpu" or all(p.grad is not None for p in model.parameters())


# ---- devices and float64 ----


def test_a_whole_pass_stays_on_its_device_and_needs_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, validation and decoding under fake CUDA tensors, which refuse to mix devices. Fake tensors cannot be called
    MPS's where torch is not built for it; the same operations run there, and sampling has a test of its own.
    """
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch_decoder, "numbers_on", lambda device, numbers: torch.tensor(numbers, device=device))
    with FakeTensorMode(), cuda_kernels(), Narrow() as narrow:
        with torch.device("cuda"), _NoInitialisation():
            made = module(GPT(SMALL), device="cuda", loss_chunk_size=512)
        ids = torch.zeros(2, 2048, dtype=torch.long, device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            for batch in ((ids, ids), (ids, ids, ids, torch.ones((), device="cuda"))):
                assert made.training_step(batch, 0).device.type == "cuda"
        made.on_validation_epoch_start()
        made.validation_step((ids, ids), 0)
        assert made._eval_parts[0].device.type == "cuda"
        decoder = TorchDecoder(made.model)
        decoder.start(n_sequences=3, length=2048)
        with torch.no_grad():
            decoder.feed([Feed(1, 0, [1, 2, 3])])
            logits = decoder.feed([Feed(0, 0, [1]), Feed(1, 3, [2])])
        assert logits.shape == (2, SMALL.padded_vocab_size) and logits.device.type == "cuda"
    assert narrow.operations > 200


@pytest.mark.parametrize("muon", [False, True])
def test_a_step_needs_no_float64(muon: bool) -> None:
    """Backward pass and optimizer, too."""
    made = module(build("GQA + QK-norm"), muon=muon)
    made.on_fit_start()
    optimizer = made.configure_optimizers()
    with Narrow() as narrow:
        a_step(made, optimizer, batch_of())
    assert narrow.operations > 100


def test_cudnn_plans_nothing_for_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plans are made for every new shape. Training, whose shapes stay, may use it."""
    cuda = torch.device("cuda")
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with torch_decoder.kernels_without_plans(cuda):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()
    used: list[str] = []
    enter = torch_decoder.kernels_without_plans
    monkeypatch.setattr(
        torch_decoder, "kernels_without_plans", lambda device: used.append(device.type) or enter(device)
    )
    decoder = TorchDecoder(build("MHA").eval())
    decoder.start(n_sequences=2, length=16)
    with torch.no_grad():
        decoder.feed([Feed(0, 0, [1, 2])])
        decoder.hidden(Feed(0, 2, [1]))
        decoder.step_hidden([Feed(0, 3, [1]), Feed(1, 0, [1])])
    assert used == ["cpu"] * 4, "a prompt's feed enters twice"


# ---- graphs ----


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], tuple[int, int]]]:
    """Compile with a backend that counts; `graphs()` gives graphs made so far and graph breaks."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    made: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(len(inputs))
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: compile_(function, backend=backend, dynamic=False)
    )
    yield lambda: (len(made), sum(torch._dynamo.utils.counters["graph_break"].values()))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "batch",
    [{}, {"activation_checkpointing": "full"}, {"loss_chunk_size": 8}],
    ids=["plain", "checkpointing", "chunked loss"],
)
def test_the_loss_is_one_graph_and_is_compiled_once(
    batch: dict[str, Any], graphs: Callable[[], tuple[int, int]]
) -> None:
    made = module(build("GQA + QK-norm"), device="cuda", compiled=True, **batch)
    made.on_fit_start()
    for seed in range(3):
        made.training_step(batch_of(seed=seed), 0).backward()  # type: ignore[no-untyped-call]
    assert graphs() == (1, 0)


def test_decoding_compiles_one_step_for_all_positions(graphs: Callable[[], tuple[int, int]]) -> None:
    model = build("GQA + QK-norm").eval()
    decoder = TorchDecoder(model, compiled=True)
    decoder.start(n_sequences=2, length=16)
    with torch.no_grad():
        decoder.feed([Feed(0, 0, [1, 2, 3])])
        decoder.feed([Feed(1, 0, [1, 2])])
        for step in range(4):
            decoder.feed([Feed(0, 3 + step, [5]), Feed(1, 2 + step, [6])])
        decoder.feed([Feed(1, 6, [6])])
    assert graphs() == (1, 0)


# ---- bytes of a decoded token ----


class CacheTraffic(TorchDispatchMode):
    """Bytes of keys and values that attention reads, and of tensors that are copied."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = self.copied = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.__name__.partition(".")[0]
        if name.startswith("_scaled_dot_product"):
            self.read += args[1].nbytes + args[2].nbytes
        elif name in ("clone", "_to_copy", "copy_", "index", "index_select", "repeat_interleave", "cat"):
            self.copied += out.nbytes
        return out


@pytest.mark.parametrize("n_sequences", [1, 4])
def test_a_token_reads_the_live_cache_and_copies_none_of_it(n_sequences: int) -> None:
    config = dataclasses.replace(build("GQA + QK-norm").config, block_size=8 * LIVE_STEP, n_layer=2)
    model = GPT(config).eval()
    decoder = TorchDecoder(model)
    decoder.start(n_sequences=n_sequences, length=config.block_size)
    feeds = [Feed(sequence, 9, [3]) for sequence in range(n_sequences)]
    with torch.no_grad(), CacheTraffic() as traffic:
        decoder.feed(feeds)
    slot = 2 * config.n_query_groups * config.head_size * 4  # keys and values of one token in one layer
    assert traffic.read == n_sequences * config.n_layer * LIVE_STEP * slot, "one step of eight"
    assert traffic.copied < n_sequences * config.n_layer * 64 * slot, "less than 64 tokens' worth: no part of the cache"


def test_when_a_sequence_ends_only_what_is_written_moves_and_only_once() -> None:
    """The last sequence goes into the first one's row of the cache; from then on all rows are read in place."""
    config = dataclasses.replace(build("GQA + QK-norm").config, block_size=8 * LIVE_STEP, n_layer=2)
    model, n, written = GPT(config).eval(), 4, 40
    decoder = TorchDecoder(model)
    decoder.start(n_sequences=n, length=config.block_size)
    prompts = [torch.randint(61, (written,), generator=torch.Generator().manual_seed(i)).tolist() for i in range(n)]
    slot = 2 * config.n_query_groups * config.head_size * 4  # keys and values of one token in one layer
    copied: list[float] = []
    with torch.no_grad():
        for sequence, ids in enumerate(prompts):
            with CacheTraffic() as traffic:
                decoder.feed([Feed(sequence, 0, ids)])
            assert traffic.read == config.n_layer * written * slot, "a prompt reads itself, no empty cache"
        for step in range(3):
            with CacheTraffic() as traffic:
                decoder.feed([Feed(sequence, written + step, [3]) for sequence in range(1, n)])
            copied.append(traffic.copied / (config.n_layer * slot))
            assert traffic.read == (n - 1) * config.n_layer * LIVE_STEP * slot
    assert 3 * written <= copied[0] - copied[1] <= 4 * written, "two rows of 40 tokens, one of them by way of a copy"
    assert copied[1] == copied[2]


# ---- saving and resuming ----


def directory_io(config: GPTConfig, folder: Path) -> LitGPTDirectoryIO:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return LitGPTDirectoryIO(config=config, tokenizer_dir=folder, hyperparameters={})


def content(made: TrainingModule, optimizer: torch.optim.Optimizer, **rest: Any) -> dict[str, Any]:
    """What Lightning hands over."""
    counters = {"completed": 1, "ready": 2, "started": 1, "processed": 1}
    progress = {"total": dict(counters), "current": dict(counters)}
    return {
        "state_dict": made.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "loops": {"fit_loop": {"epoch_loop.batch_progress": progress}},
        "global_step": 1,
        **rest,
    }


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def on_the_host(leaf: Any) -> Any:
    return leaf.cpu() if isinstance(leaf, Tensor) else leaf


def an_update(made: TrainingModule, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, ...]) -> None:
    """A step with gradients of zero: torch takes no backward pass of fake CUDA tensors where there is no GPU."""
    with torch.autocast("cuda", dtype=torch.bfloat16):
        made.training_step(batch, 0)
    for p in made.parameters():
        p.grad = torch.zeros_like(p)
    made.configure_gradient_clipping(optimizer)
    stepper = SimpleNamespace(optimizer=optimizer, step=lambda closure: optimizer.step())
    made.optimizer_step(0, 0, stepper)


def taken_up(made: TrainingModule, found: dict[str, Any]) -> torch.optim.Optimizer:
    """As the Trainer resumes: weights, then an optimizer of its own with the saved state."""
    made.load_state_dict(found["state_dict"])
    optimizer = made.configure_optimizers()
    optimizer.load_state_dict(found["optimizer_states"][0])
    return optimizer


@pytest.mark.parametrize("muon", [False, True])
def test_a_run_on_a_gpu_saves_to_the_host_and_resumes_on_the_gpu(
    muon: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fake CUDA tensors of full width. They cannot be pickled, so what is written stays here, and reading it gives what
    `torch.load(map_location="cpu")` gives.
    """
    files: dict[str, Any] = {}

    def write(path: Path, content: Any) -> dict[str, int | str]:
        path.touch()
        files[path.name] = content
        return {"bytes": 0, "sha256": ""}

    monkeypatch.setattr(directory, "_write_torch", write)
    monkeypatch.setattr(load, "_load", lambda file, mmap: tree_map(on_the_host, files[file.name]))
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    io = directory_io(SMALL, tmp_path / "tokenizer")
    with FakeTensorMode(), cuda_kernels():

        def fresh() -> TrainingModule:
            with torch.device("cuda"), _NoInitialisation():
                return module(GPT(SMALL), device="cuda", muon=muon, loss_chunk_size=512)

        ids = torch.zeros(1, 1024, dtype=torch.long, device="cuda")
        first = fresh()
        optimizer = first.configure_optimizers()
        an_update(first, optimizer, (ids, ids))
        io.save_checkpoint(content(first, optimizer), tmp_path / "step")
        assert {tensor.device.type for tensor in tensors(files["lit_model.pth"])} == {"cpu"}
        found = io.load_checkpoint(tmp_path / "step")
        assert {tensor.device.type for tensor in tensors(found)} == {"cpu"}
        second = fresh()
        again = taken_up(second, found)
        for a, b in zip(tensors(optimizer.state_dict()), tensors(again.state_dict()), strict=True):
            assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
        assert {p.device.type for p in second.parameters()} == {"cuda"}
        with HostReads() as host:
            an_update(second, again, (ids, ids))
        assert not host.found


def test_a_checkpoint_has_nothing_that_mps_cannot_hold(tmp_path: Path) -> None:
    """No float64, neither in the file nor on the way: what is resumed there is moved to the device as it is."""
    io = directory_io(build("GQA + QK-norm").config, tmp_path / "tokenizer")
    with Narrow() as narrow:
        first = module(build("GQA + QK-norm"))
        optimizer = first.configure_optimizers()
        a_step(first, optimizer, batch_of())
        io.save_checkpoint(content(first, optimizer, random=random_state()), tmp_path / "step")
        found = io.load_checkpoint(tmp_path / "step")
        second = module(build("GQA + QK-norm", seed=1))
        again = taken_up(second, found)
        a_step(second, again, batch_of(seed=1))
    a_step(first, optimizer, batch_of(seed=1))
    assert narrow.operations > 200 and tensors(found)
    assert all(tensor.dtype != torch.float64 for tensor in tensors(found))
    assert all(
        torch.equal(a, b)
        for a, b in zip(tensors(content(first, optimizer)), tensors(content(second, again)), strict=True)
    )
