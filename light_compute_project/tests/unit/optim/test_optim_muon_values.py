"""Muon's parts against numbers worked out by hand, and against `torch.optim.Muon` where the two are defined alike.

Diagonal gradients make Muon a formula for scalars: their singular values are the diagonal, and every product of
Newton-Schulz stays diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from litgpt_core.optim.muon import MuonAdamW, orthogonalise

LR = 0.1
LARGE = 1e6
"""Gradients of this size leave nothing of the 1e-7 that guards the norm, here and (in another way) in torch."""


def quintic(s: float, *, steps: int = 5) -> float:
    """Jordan et al.'s polynomial on one singular value, with their published numbers written out."""
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def of_diagonal(values: Sequence[float], *, steps: int = 5) -> list[float]:
    norm = math.sqrt(sum(value * value for value in values))
    return [quintic(value / norm, steps=steps) for value in values]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def muon(*parameters: nn.Parameter, dtype: torch.dtype = torch.float64, **options: Any) -> MuonAdamW:
    return MuonAdamW([{"params": list(parameters), "muon": True, "lr": LR, **options}], dtype=dtype)


# --- Newton-Schulz


def test_one_step_on_a_diagonal_by_hand() -> None:
    """diag(3, 4) / 5 has singular values 0.6 and 0.8; 3.4445 s - 4.7750 s^3 + 2.0315 s^5 of them, by hand."""
    found = orthogonalise(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]], dtype=torch.float64), steps=1, dtype=torch.float64)
    expected = [[[1.19326944, 0.0], [0.0, 0.97648192]]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-12)


def test_one_step_on_a_rotated_diagonal_by_hand() -> None:
    """A rotation by the angle of the 3-4-5 triangle passes through unchanged."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    found = orthogonalise(turn @ torch.diag(torch.tensor([3.0, 4.0]).double())[None], steps=1, dtype=torch.float64)
    expected = turn @ torch.diag(torch.tensor([1.19326944, 0.97648192], dtype=torch.float64))
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(16, 16), (12, 48), (48, 12), (1, 8)])
def test_singular_values_land_where_the_polynomial_puts_them(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Range of the quintic over the interval of the matrix's own values (SVD in float64); directions are kept."""
    matrix = random(*shape, seed=3)
    u, s, vh = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    grid = torch.linspace(float(s.min()), float(s.max()), 20001, dtype=torch.float64)
    image = torch.tensor([quintic(float(value)) for value in grid])
    slack = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    inner = u.mT @ orthogonalise(matrix[None], dtype=dtype)[0].double() @ vh.mT
    values = inner.diagonal()
    assert float(image.min()) - slack <= float(values.min()) <= float(values.max()) <= float(image.max()) + slack
    assert float((inner - torch.diag(values)).abs().max()) <= slack
    if dtype == torch.float64:
        expected = torch.tensor([quintic(float(value)) for value in s], dtype=torch.float64)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)


def test_values_from_a_fiftieth_on_come_between_two_thirds_and_six_fifths() -> None:
    """What the module's docstring calls about [0.7, 1.2], over the whole interval and not for one matrix."""
    image = [quintic(0.02 + 0.98 * i / 20000) for i in range(20001)]
    assert 0.66 < min(image) < 0.72 and 1.1 < max(image) < 1.21
    assert quintic(1e-3) > 0.3, "even a thousandth of the norm is raised three hundredfold"


def test_size_does_not_matter_and_transposing_commutes() -> None:
    matrix = LARGE * random(1, 6, 10)
    found = orthogonalise(matrix, dtype=torch.float64)
    torch.testing.assert_close(orthogonalise(1e4 * matrix, dtype=torch.float64), found, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(orthogonalise(matrix.mT, dtype=torch.float64).mT, found, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(orthogonalise(-matrix, dtype=torch.float64), -found, rtol=1e-12, atol=1e-12)


def test_no_gradient_at_all_is_no_update_and_no_nan() -> None:
    assert not orthogonalise(torch.zeros(2, 3, 5)).any()


# --- momentum, scale, decay


def test_momentum_and_nesterov_by_hand() -> None:
    """m = 0.5; first gradient diag(4, 1): buffer (2, 0.5), update 0.5 buffer + 0.5 gradient = (3, 0.75).
    Second gradient diag(1, 6): buffer (1.5, 3.25), update (1.25, 4.625).
    """
    parameter = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = muon(parameter, momentum=0.5)
    steps = [((4.0, 1.0), (2.0, 0.5), (3.0, 0.75)), ((1.0, 6.0), (1.5, 3.25), (1.25, 4.625))]
    expected = torch.zeros(2, dtype=torch.float64)
    for gradient, buffer, update in steps:
        parameter.grad = torch.diag(torch.tensor(gradient, dtype=torch.float64))
        optimizer.step()
        assert optimizer.state[parameter]["momentum_buffer"].diagonal().tolist() == list(buffer)
        expected = expected - LR * torch.tensor(of_diagonal(update), dtype=torch.float64)
        torch.testing.assert_close(parameter.detach(), torch.diag(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("rows", "columns", "scale"), [(3, 3, 1.0), (2, 8, 1.0), (8, 2, 2.0), (27, 3, 3.0)])
def test_a_tall_matrix_moves_further_by_the_root_of_its_ratio(rows: int, columns: int, scale: float) -> None:
    parameter = nn.Parameter(torch.zeros(rows, columns, dtype=torch.float64))
    parameter.grad = LARGE * random(rows, columns)
    muon(parameter).step()
    expected = -LR * scale * orthogonalise(parameter.grad[None], dtype=torch.float64)[0]
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-10, atol=1e-10)


def test_decay_is_decoupled_and_takes_the_rate_of_the_step() -> None:
    """Without gradients only the decay is left: (1 - 0.1 * 0.5) (1 - 0.02 * 0.5) = 0.95 * 0.99."""
    parameter = nn.Parameter(torch.full((2, 2), 8.0, dtype=torch.float64))
    optimizer = muon(parameter, weight_decay=0.5)
    for rate in (0.1, 0.02):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((2, 2), 8 * 0.95 * 0.99, dtype=torch.float64))


def test_decay_does_not_enter_the_momentum() -> None:
    decayed, plain = (nn.Parameter(torch.ones(2, 2, dtype=torch.float64)) for _ in range(2))
    optimizers = [muon(decayed, weight_decay=0.5), muon(plain)]
    for parameter, optimizer in zip((decayed, plain), optimizers, strict=True):
        parameter.grad = random(2, 2)
        optimizer.step()
    buffers = [o.state[p]["momentum_buffer"] for o, p in zip(optimizers, (decayed, plain), strict=True)]
    assert torch.equal(*buffers)
    torch.testing.assert_close(decayed.detach() + 0.05, plain.detach())


# --- many matrices at once


def test_stacked_matrices_move_as_one_by_one() -> None:
    """Three shapes, several of each, one without a gradient, in one group against one optimizer each."""
    shapes = [(4, 6), (6, 4), (4, 6), (5, 5), (4, 6), (6, 4)]
    together = [nn.Parameter(random(*shape, seed=i)) for i, shape in enumerate(shapes)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    stacked, single = muon(*together, weight_decay=0.1), [muon(p, weight_decay=0.1) for p in alone]
    for step in range(3):
        for i, pair in enumerate(zip(together, alone, strict=True)):
            for p in pair:
                p.grad = None if i == 4 else random(*p.shape, seed=100 * step + i)
        stacked.step()
        for optimizer in single:
            optimizer.step()
    for i, (a, b) in enumerate(zip(together, alone, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert torch.equal(a.detach(), random(*shapes[i], seed=i)) == (i == 4), "only the one without gradient rests"


def test_a_closure_is_called_with_gradients_on_and_its_loss_comes_back() -> None:
    parameter = nn.Parameter(random(3, 3))
    optimizer = muon(parameter)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    before = float(parameter.detach().square().sum())
    assert optimizer.step(closure).item() == pytest.approx(before)
    assert float(parameter.detach().square().sum()) < before


# --- torch's own


@pytest.mark.parametrize("shape", [(16, 16), (12, 48), (48, 12)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_torchs_muon_takes_the_same_steps(
    shape: tuple[int, int], decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same momentum, Nesterov form, coefficients, five steps, "original" scale and decoupled decay.

    torch's products are in bfloat16 and nothing else; here, for the comparison, they are made in float64 in both.
    """
    ours, theirs = nn.Parameter(random(*shape)), nn.Parameter(random(*shape))
    options = {"weight_decay": decay, "momentum": 0.9}
    fast = muon(ours, **options)
    reference = torch.optim.Muon([theirs], lr=LR, nesterov=True, ns_steps=5, adjust_lr_fn="original", **options)
    monkeypatch.setattr(torch, "bfloat16", torch.float64)
    for step in range(4):
        ours.grad = LARGE * random(*shape, seed=step + 1)
        theirs.grad = ours.grad.clone()
        fast.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(ours, random(*shape), atol=0.05)
    assert torch.equal(fast.state[ours]["momentum_buffer"], reference.state[theirs]["momentum_buffer"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_products_type_is_the_only_difference_left(dtype: torch.dtype) -> None:
    """float32 products are exact to float32; torch's, as it comes, and ours in bfloat16 lie on either side of exact."""
    gradient = LARGE * random(12, 20)
    u, s, vh = torch.linalg.svd(gradient / gradient.norm(), full_matrices=False)
    exact = -LR * u @ torch.diag(torch.tensor([quintic(float(value)) for value in s], dtype=torch.float64)) @ vh
    ours, theirs = (nn.Parameter(torch.zeros(12, 20)) for _ in range(2))
    optimizers = muon(ours, dtype=dtype), torch.optim.Muon([theirs], lr=LR, weight_decay=0.0)
    for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
        parameter.grad = gradient.float()
        optimizer.step()
    mine, torchs = (float((p.detach().double() - exact).norm() / exact.norm()) for p in (ours, theirs))
    resolution = torch.finfo(torch.bfloat16).eps
    assert 0.1 * resolution < torchs < 10 * resolution
    assert mine < (1e-5 if dtype == torch.float32 else 10 * resolution)
