"""One buffer for everything gives the updates of the references, parameter by parameter."""

from __future__ import annotations

import copy

import pytest
import torch

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.loss import cross_entropy
from litgpt_core.optim.build import build_flat_optimizer, build_optimizer, set_learning_rate
from litgpt_core.optim.settings import AdamWSettings, MuonSettings, OptimSettings

CONFIG = GPTConfig(
    n_layer=3, n_head=2, n_embd=32, block_size=16, vocab_size=61, padded_vocab_size=64, tie_embeddings=True
)
SETTINGS = [AdamWSettings(lr=3e-3, weight_decay=0.1), MuonSettings(lr=3e-3, weight_decay=0.1)]


def new_model(seed: int = 5) -> GPT:
    model = GPT(CONFIG)
    initialize(model, seed=seed)
    return model


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(61, (4, 17), generator=torch.Generator().manual_seed(step))
    return tokens[:, :-1], tokens[:, 1:]


def loss_of(model: GPT, step: int) -> torch.Tensor:
    inputs, targets = batch(step)
    return cross_entropy(model.hidden(inputs), model.head, targets)


def reference_steps(model: GPT, settings: OptimSettings, steps: range, optimizer=None):
    optimizer = optimizer or build_optimizer(model, settings)
    for step in steps:
        set_learning_rate(optimizer, 1 / (1 + step))
        optimizer.zero_grad()
        loss_of(model, step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return optimizer


def flat_steps(model: GPT, settings: OptimSettings, steps: range, optimizer=None):
    optimizer = optimizer or build_flat_optimizer(model, settings, dtype=torch.float32)
    for step in steps:
        set_learning_rate(optimizer, 1 / (1 + step))
        optimizer.zero_grad()
        loss_of(optimizer.flat.working, step).backward()
        optimizer.flat.collect_gradients()
        optimizer.flat.clip(0.5)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.kind)
def test_five_steps_equal_the_reference(settings: OptimSettings) -> None:
    slow, fast = new_model(), new_model()
    start = copy.deepcopy(slow.state_dict())
    reference_steps(slow, settings, range(5))
    flat_steps(fast, settings, range(5))
    for (name, ours), theirs in zip(fast.state_dict().items(), slow.state_dict().values(), strict=True):
        assert not torch.equal(ours, start[name]), name
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.kind)
@pytest.mark.parametrize("first", ["flat", "reference"])
def test_a_checkpoint_of_one_continues_in_the_other(settings: OptimSettings, first: str) -> None:
    whole, half = new_model(), new_model()
    flat_steps(whole, settings, range(6))
    one, other = (flat_steps, reference_steps) if first == "flat" else (reference_steps, flat_steps)
    saved = copy.deepcopy(one(half, settings, range(3)).state_dict())
    resumed = new_model(seed=99)
    resumed.load_state_dict(half.state_dict())
    build = build_optimizer(resumed, settings) if first == "flat" else None
    if build is None:
        build = build_flat_optimizer(resumed, settings, dtype=torch.float32)
    build.load_state_dict(saved)
    other(resumed, settings, range(3, 6), build)
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


def test_a_flat_state_survives_saving_bit_for_bit() -> None:
    whole, half = new_model(), new_model()
    flat_steps(whole, SETTINGS[1], range(6))
    optimizer = flat_steps(half, SETTINGS[1], range(3))
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(half.state_dict())
    resumed = new_model(seed=99)
    resumed.load_state_dict(weights)
    again = build_flat_optimizer(resumed, SETTINGS[1], dtype=torch.float32)
    again.load_state_dict(saved)
    flat_steps(resumed, SETTINGS[1], range(3, 6), again)
    for name, ours in resumed.state_dict().items():
        assert torch.equal(ours, whole.state_dict()[name]), name


def test_micro_batches_are_added_in_float32() -> None:
    model = new_model()
    optimizer = build_flat_optimizer(model, SETTINGS[0], dtype=torch.bfloat16)
    flat = optimizer.flat
    expected = torch.zeros_like(flat.gradient)
    optimizer.zero_grad()
    for step in range(3):
        loss_of(flat.working, step).backward()
        gradients = [leaf.grad.float().reshape(-1) for leaf in flat._leaves]
        assert gradients[0].dtype == torch.float32
        expected += torch.cat(gradients)
        flat.collect_gradients()
    assert torch.equal(flat.gradient, expected)


def test_the_working_copy_is_the_rounded_master_and_leaves_the_model_alone() -> None:
    model = new_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = build_flat_optimizer(model, SETTINGS[1], dtype=torch.bfloat16)
    working = optimizer.flat.working
    assert working.lm_head.weight is working.transformer.wte.weight
    assert sum(p.numel() for p in working.parameters()) == optimizer.flat.master.numel()
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name]), name
        assert torch.equal(working.state_dict()[name], value.bfloat16()), name
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    optimizer.flat.publish()
    assert torch.equal(working.lm_head.weight, model.lm_head.weight.bfloat16())


def test_a_parameter_without_a_gradient_is_an_error_not_a_stale_step() -> None:
    model = new_model()
    optimizer = build_flat_optimizer(model, SETTINGS[0], dtype=torch.float32)
    optimizer.zero_grad()
    model.transformer.ln_f.weight.sum().backward()
    with pytest.raises(RuntimeError, match="got no gradient"):
        optimizer.flat.collect_gradients()


def test_clipping_measures_the_norm_before_and_bounds_it_after() -> None:
    model = new_model()
    optimizer = build_flat_optimizer(model, SETTINGS[0], dtype=torch.float32)
    optimizer.flat.gradient.fill_(0.5)
    count = optimizer.flat.gradient.numel()
    assert optimizer.flat.clip(1.0).item() == pytest.approx(0.5 * count**0.5, rel=1e-5)
    assert torch.linalg.vector_norm(optimizer.flat.gradient).item() == pytest.approx(1.0, rel=1e-4)
    assert optimizer.flat.clip(None).item() == pytest.approx(1.0, rel=1e-4)
