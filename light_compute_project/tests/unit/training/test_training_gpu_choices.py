"""What is decided for GPUs without one: which graphs are compiled, what an out-of-memory error advises, when nobody
watches, what clipping without a limit leaves alone.
"""

from __future__ import annotations

import faulthandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from litgpt_core.config.trainer import BatchSettings, HardwareSettings, StopSettings
from litgpt_core.core import machine, rates
from litgpt_core.distributed.sharding import Sharding
from litgpt_core.doctor.model_checks import build
from litgpt_core.optim.settings import AdamWSettings
from litgpt_core.training import gather
from litgpt_core.training import module as training_module
from litgpt_core.training.hardware import Hardware
from litgpt_core.training.module import TrainingModule
from litgpt_core.training.plan import announce
from litgpt_core.training.runner import out_of_memory
from litgpt_core.training.watchdog import Watchdog

SHARDING = Sharding(group=2, copies=1, bf16=True, cpu_offload=False)


def module(
    device: str = "cuda", *, compiled: bool = True, max_norm: float | None = 1.0, **options: Any
) -> TrainingModule:
    hardware = Hardware(
        device=device, precision="32-true", compile=compiled, compile_reason="", fast_bf16=True, flat=False
    )
    batch = BatchSettings(max_norm=max_norm)
    return TrainingModule(build("MHA"), optim=AdamWSettings(), batch=batch, max_steps=10, hardware=hardware, **options)


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("cuda", {}, ["_training_loss"]),
        ("cuda", {"processes": 2}, ["cross_entropy"]),
        ("cuda", {"processes": 2, "sharding": SHARDING}, []),
        ("cpu", {}, []),
    ],
    ids=["one GPU", "DDP", "FSDP", "a CPU"],
)
def test_one_graph_for_one_gpu_blocks_elsewhere(
    device: str, options: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDP cuts graphs that it sees whole, and some versions of torch refuse to where a checkpoint is inside."""
    compiled: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function.__name__) or function)
    with torch._dynamo.config.patch(optimize_ddp=True):
        made = module(device, **options)
        assert compiled == expected
        assert torch._dynamo.config.optimize_ddp == (options.get("processes", 1) == 1)
    compiled.clear()
    monkeypatch.setattr(training_module, "WHOLE_GRAPH_LAYERS", made.model.config.n_layer - 1)
    module(device, **options)
    assert compiled == (["cross_entropy"] if device == "cuda" and "sharding" not in options else []), "deeper models"


def test_a_norm_that_limits_nothing_is_measured_and_gradients_stay() -> None:
    made = module(compiled=False, max_norm=None)
    for parameter in made.model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    before = [p.grad for p in made.model.parameters()]
    versions = [g._version for g in before if g is not None]
    made.configure_gradient_clipping(None)  # type: ignore[arg-type]
    numbers = sum(p.numel() for p in made.model.parameters())
    assert float(made.grad_norm) == pytest.approx(2 * numbers**0.5, rel=1e-5)
    assert versions == [p.grad._version for p in made.model.parameters() if p.grad is not None], "not even times one"


def plan(*, micro: int, sharded: bool = False, **batch: Any) -> Any:
    trainer = SimpleNamespace(batch=BatchSettings(**batch), hardware=HardwareSettings())
    resolved = SimpleNamespace(config=SimpleNamespace(trainer=trainer), micro_batch=micro, shards_model=sharded)
    return SimpleNamespace(resolved=resolved)


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        (plan(micro=8), "trainer.micro_batch_size=4,"),
        (plan(micro=1), "trainer.activation_checkpointing=selective,"),
        (plan(micro=1, activation_checkpointing="selective"), "trainer.loss_chunk_size=1024,"),
        (plan(micro=1, activation_checkpointing="full", loss_chunk_size=64), "trainer=fsdp,"),
        (plan(micro=1, sharded=True, activation_checkpointing="full", loss_chunk_size=64), "trainer.cpu_offload=true,"),
    ],
)
def test_a_full_device_is_told_with_the_next_thing_to_try(given: Any, fix: str) -> None:
    problem = out_of_memory(given, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"))
    assert "Tried to allocate 2 GiB" in problem.given and "more" not in problem.given
    assert problem.fix.startswith(fix) and "run.resume=auto" in problem.fix


def test_nobody_watches_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: calls.append("wound"))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: calls.append("stopped"))
    watchdog, nothing = Watchdog(tmp_path / "hang.txt", seconds=1000.0), Any
    watchdog.on_train_start(nothing, nothing)  # type: ignore[arg-type]
    watchdog.on_save_checkpoint(nothing, nothing, {})  # type: ignore[arg-type]
    watchdog.on_train_batch_end(nothing, nothing)  # type: ignore[arg-type]
    assert calls == ["wound", "stopped", "wound"], "at once, although a batch has just wound it"
    watchdog.on_train_end(nothing, nothing)  # type: ignore[arg-type]


def test_cuda_without_triton_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.compile_obstacle("cpu")
    if found is not None:
        pytest.skip(found)
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    assert "triton" in str(machine.compile_obstacle("cuda")) and machine.compile_obstacle("cpu") is None


@pytest.mark.parametrize(("setting", "said"), [("highest", True), ("high", False)])
def test_float32_without_tf32_is_said_and_the_setting_reaches_torch_and_the_peak(
    setting: Any, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = HardwareSettings(float32_matmul_precision=setting, accelerator="cpu")
    monkeypatch.setattr(gather, "keep_freed_memory", lambda: None)
    before = torch.get_float32_matmul_precision()
    try:
        gather.find_machine(asked)
        assert torch.get_float32_matmul_precision() == setting
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-80GB")
        assert rates.peak_flops("cuda", precision="32-true")[0] == (19.5e12 if said else 156e12)
    finally:
        torch.set_float32_matmul_precision(before)
    monkeypatch.setattr(machine, "has_tf32", lambda: True)
    monkeypatch.setattr(machine, "device_name", lambda device: "A100")
    trainer = SimpleNamespace(hardware=asked, stop=StopSettings())
    schedule = SimpleNamespace(schedule=SimpleNamespace(lr_warmup_steps=0))
    hardware = Hardware(
        device="cuda", precision="32-true", compile=False, compile_reason="", fast_bf16=True, flat=False
    )
    plan: Any = SimpleNamespace(
        resolved=SimpleNamespace(
            hardware=hardware, config=SimpleNamespace(trainer=trainer, optim=schedule), sharding=None,
            tensor_parallel=1, tokens_per_step=8,
        ),
        group=SimpleNamespace(world=SimpleNamespace(world_size=1)),
        folder=SimpleNamespace(resume_from=None),
        data=SimpleNamespace(epoch_tokens=100),
    )  # fmt: skip
    with caplog.at_level("INFO"):
        announce(plan, n_params=10)
    assert ("float32_matmul_precision=high allows it" in caplog.text) is said
