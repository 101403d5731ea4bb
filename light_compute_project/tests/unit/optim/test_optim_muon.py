"""Muon against a slow reference, AdamW against torch's, groups against the table in `optim/build.py`."""

from __future__ import annotations

import pytest
import torch

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.optim.build import build_optimizer, parameter_groups, set_learning_rate
from litgpt_core.optim.muon import NEWTON_SCHULZ_COEFFICIENTS, MuonAdamW, orthogonalise
from litgpt_core.optim.settings import AdamWSettings, MuonSettings


def small_gpt(**overrides: object) -> GPT:
    fields = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 32, "padded_vocab_size": 32}
    return GPT(GPTConfig(**{**fields, "rotary_percentage": 1.0, **overrides}))  # type: ignore[arg-type]


def slow_newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
    """The published iteration, one matrix at a time, applied to the singular values of an exact decomposition."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    u, s, v = torch.linalg.svd(matrix.double() / matrix.double().norm(), full_matrices=False)
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalise_equals_the_iteration_on_singular_values(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    fast = orthogonalise(matrices, dtype=torch.float64)
    for one, expected in zip(fast, matrices, strict=True):
        torch.testing.assert_close(one, slow_newton_schulz(expected), rtol=1e-5, atol=1e-5)


def test_orthogonalise_brings_singular_values_near_one() -> None:
    result = orthogonalise(torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(1)))
    values = torch.linalg.svdvals(result[0])
    assert values.min() > 0.6 and values.max() < 1.3


def test_muon_step_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(2)
    parameter = torch.nn.Parameter(torch.randn(12, 4, generator=generator))
    before = parameter.detach().clone()
    optimizer = MuonAdamW([{"params": [parameter], "muon": True, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.5}])
    buffer = torch.zeros(12, 4)
    expected = before
    for _ in range(3):
        gradient = torch.randn(12, 4, generator=generator)
        parameter.grad = gradient.clone()
        optimizer.step()
        buffer = 0.9 * buffer + 0.1 * gradient
        update = orthogonalise((0.9 * buffer + 0.1 * gradient)[None])[0]
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 3**0.5 * update
        torch.testing.assert_close(parameter.detach(), expected)


def test_the_adamw_half_equals_torch() -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(5, 7, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    options = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    fast = MuonAdamW([{"params": [ours], "muon": False, **options}])
    reference = torch.optim.AdamW([theirs], **options)
    for _ in range(5):
        gradient = torch.randn(5, 7, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        fast.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_every_parameter_is_in_exactly_one_group_and_vectors_do_not_decay() -> None:
    model = small_gpt(tie_embeddings=True, bias=True)
    groups = parameter_groups(model, MuonSettings(weight_decay=0.3))
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    for group in groups:
        dimensions = {p.ndim for p in group["params"]}
        assert (group["weight_decay"] == 0.0) == (dimensions == {1})
    tables = next(group for group in groups if group["name"] == "tables")
    assert [p.shape for p in tables["params"]] == [torch.Size([32, 16])]


def test_matrices_get_muons_rate_and_the_rest_adamws() -> None:
    optimizer = build_optimizer(small_gpt(), MuonSettings(lr=0.01, matrix_lr=0.05))
    rates = {group["name"]: (group["muon"], group["lr"]) for group in optimizer.param_groups}
    assert rates == {"matrices": (True, 0.05), "tables": (False, 0.01), "vectors": (False, 0.01)}


def test_learning_rate_scales_every_group() -> None:
    optimizer = build_optimizer(small_gpt(), MuonSettings(lr=0.01, matrix_lr=0.05))
    assert set_learning_rate(optimizer, 0.5) == pytest.approx(0.025)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.005, 0.005])


@pytest.mark.parametrize("settings", [AdamWSettings(lr=1e-2), MuonSettings()])
def test_state_survives_a_round_trip(settings: AdamWSettings | MuonSettings) -> None:
    def trajectory(steps: int, *, interrupt_at: int | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = small_gpt()
        optimizer = build_optimizer(model, settings)
        for step in range(steps):
            if step == interrupt_at:
                state = optimizer.state_dict()
                optimizer = build_optimizer(model, settings)
                optimizer.load_state_dict(state)
            ids = torch.arange(8).remainder(7)[None] + step
            model(ids).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach().clone() for p in model.parameters()]

    for a, b in zip(trajectory(6, interrupt_at=None), trajectory(6, interrupt_at=3), strict=True):
        assert torch.equal(a, b)
