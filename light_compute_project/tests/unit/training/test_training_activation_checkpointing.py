"""Keeping less for the backward pass changes memory and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from benchmarks.live_memory import LiveMemory
from torch import Tensor

from litgpt_core.config.trainer import BatchSettings, HardwareSettings
from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.lora import add_adapters
from litgpt_core.model.loss import cross_entropy
from litgpt_core.model.optional_settings import LoRASettings
from litgpt_core.optim.settings import AdamWSettings
from litgpt_core.training.activation_checkpointing import Mode, checkpoint_blocks
from litgpt_core.training.hardware import choose_hardware, look_at_machine
from litgpt_core.training.module import TrainingModule

MODES: tuple[Mode, ...] = ("selective", "full")


def ids(batch: int, length: int, *, vocabulary: int = 61) -> Tensor:
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


def gradients(model: GPT, mode: Mode) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one batch, with the same draws of dropout whatever the mode."""
    checkpoint_blocks(model, mode)
    model.train().zero_grad()
    torch.manual_seed(7)
    idx = ids(3, 17)
    loss = cross_entropy(model.hidden(idx[:, :-1]), model.head, idx[:, 1:])
    loss.backward()
    return float(loss), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_equal_bit_for_bit(kind: str, dropout: float, mode: Mode) -> None:
    model = GPT(dataclasses.replace(build(kind).config, dropout=dropout))
    initialize(model, seed=3)
    names = list(model.state_dict())
    loss, expected = gradients(model, "none")
    again, found = gradients(model, mode)
    assert again == loss and found.keys() == expected.keys() and found
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("mode", MODES)
def test_dropout_of_adapters_is_the_same_the_second_time(mode: Mode) -> None:
    model = build("MHA")
    add_adapters(model, LoRASettings(dropout=0.5), seed=0)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    loss, expected = gradients(model, "none")
    again, found = gradients(model, mode)
    assert again == loss and found.keys() == expected.keys() and all("lora_" in name for name in found)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def deep(**fields: Any) -> GPT:
    model = GPT(
        GPTConfig(n_layer=8, n_head=4, n_embd=64, block_size=64, vocab_size=64, parallel_residual=False, **fields)
    )
    initialize(model, seed=0)
    return model


def memory(model: GPT, mode: Mode) -> tuple[int, int]:
    """Bytes held after the forward pass, and at the peak of forward and backward."""
    checkpoint_blocks(model, mode)
    model.zero_grad()
    idx = ids(8, 64)
    with LiveMemory() as watched:
        loss = cross_entropy(model.hidden(idx), model.head, idx)
        held = watched.live
        loss.backward()
    return held, watched.peak


def test_full_keeps_one_tensor_a_block_and_selective_lies_between() -> None:
    model = deep()
    (held_none, peak_none), (held_some, peak_some), (held_full, peak_full) = (
        memory(model, mode) for mode in ("none", "selective", "full")
    )
    assert held_full < 0.15 * held_none and peak_full < 0.35 * peak_none
    assert held_some < 0.7 * held_none and peak_full < peak_some < 0.75 * peak_none
    assert memory(model, "none") == (held_none, peak_none), "and it can be switched off again"


@pytest.mark.parametrize("mode", MODES)
def test_memory_grows_with_depth_by_what_a_block_keeps(mode: Mode) -> None:
    """Full: x (B, T, C). Selective, with attention written out: x, qkv (3C), attn.proj (C), fc (4C), mlp.proj (C)."""
    held = []
    for layers in (2, 3):
        model = GPT(
            GPTConfig(
                n_layer=layers, n_head=4, n_embd=64, block_size=64, vocab_size=64, parallel_residual=False, bias=False
            )
        )
        held.append(memory(model, mode)[0])
    unit = 8 * 64 * 64 * 4
    assert (held[1] - held[0]) / unit == pytest.approx({"full": 1, "selective": 10}[mode], abs=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_without_gradients_a_block_runs_as_before(mode: Mode) -> None:
    model = deep().eval()
    with torch.no_grad():
        expected = model(ids(2, 64))
        checkpoint_blocks(model, mode)
        assert torch.equal(model(ids(2, 64)), expected)
        model.set_kv_cache(1, max_seq_length=64)
        step = model(ids(1, 8), input_pos=torch.arange(8))
    model.clear_kv_cache()
    torch.testing.assert_close(step, model(ids(1, 8)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["32-true", "bf16-master"])
def test_the_training_module_hands_it_to_the_network_that_computes_the_loss(mode: Mode, precision: Any) -> None:
    settings = HardwareSettings(accelerator="cpu", precision=precision, compile=False)
    hardware = choose_hardware(settings, look_at_machine(settings.accelerator), total_flops=1.0, width=32)
    batch = BatchSettings(activation_checkpointing=mode, micro_batch_size=2)
    module = TrainingModule(build("MHA"), optim=AdamWSettings(), batch=batch, max_steps=1000, hardware=hardware)
    names = list(module.state_dict())
    module.configure_optimizers()
    module.on_fit_start()
    plain = type(build("MHA").transformer.h[0])
    assert all(type(block) is not plain for block in module.network.transformer.h)
    assert (module.network is module.model) == (precision == "32-true")
    assert list(module.state_dict()) == names
    loss = module.training_step((ids(2, 16), ids(2, 16)), 0)
    loss.backward()
    module.on_after_backward()
    assert module._flat is not None and float(module._flat.gradient.abs().sum()) > 0


@pytest.mark.parametrize("mode", MODES)
def test_a_compiled_block_gives_the_same_gradients(mode: Mode) -> None:
    """The tracer and autograd's partitioner in full, without generating code."""
    model = build("GQA + QK-norm")
    loss, expected = gradients(model, "none")
    checkpoint_blocks(model, mode)
    for block in model.transformer.h:
        block.compile(dynamic=False, fullgraph=True, backend="aot_eager_decomp_partition")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    again, found = gradients(model, mode)
    assert again == pytest.approx(loss, rel=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "all blocks share one graph"
