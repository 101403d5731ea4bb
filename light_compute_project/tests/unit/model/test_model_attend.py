"""Attention written out, in blocks of queries, is the fused kernel's: values, gradients, and where it is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.model import attend as module
from litgpt_core.model.attend import QUERY_BLOCK, WRITTEN_OUT_LENGTH, attend

LENGTHS = (1, 5, QUERY_BLOCK, QUERY_BLOCK + 1, 2 * QUERY_BLOCK - 3, 2 * QUERY_BLOCK)


def tensors(length: int, *, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)

    def make(heads: int) -> Tensor:
        return torch.randn(2, heads, length, 8, dtype=torch.float64, generator=generator).requires_grad_()

    return make(4), make(groups), make(groups)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("length", LENGTHS)
def test_blocks_equal_the_fused_kernel_forward_and_backward(length: int, groups: int) -> None:
    inputs = tensors(length, groups=groups)
    ours = module._attend_causally(*inputs, scale=0.3, dropout=0.0)
    theirs = functional.scaled_dot_product_attention(*inputs, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for one, other in zip(
        torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(theirs, inputs, direction), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_no_block_holds_keys_that_it_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    mix = module._mix

    def watch(scores: Tensor, v: Tensor, *, mask: Tensor, dropout: float) -> Tensor:
        seen.append(tuple(scores.shape[-2:]))
        return mix(scores, v, mask=mask, dropout=dropout)

    monkeypatch.setattr(module, "_mix", watch)
    module._attend_causally(*tensors(2 * QUERY_BLOCK + 2, groups=4), scale=1.0, dropout=0.0)
    assert seen == [
        (QUERY_BLOCK, QUERY_BLOCK),
        (QUERY_BLOCK, 2 * QUERY_BLOCK),
        (2, 2 * QUERY_BLOCK + 2),
    ]


def test_dropout_falls_on_weights_of_every_block() -> None:
    q, k, _ = tensors(2 * QUERY_BLOCK, groups=4)
    ones = torch.ones_like(k)
    torch.manual_seed(0)
    mixed = module._attend_causally(q, k, ones, scale=0.01, dropout=0.5)  # without dropout every value is 1
    for block in mixed[..., 8:, :].split(QUERY_BLOCK, dim=-2):
        assert not torch.allclose(block, torch.ones_like(block), atol=0.05)
        assert block.mean().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("length", "training", "written_out"),
    [
        (WRITTEN_OUT_LENGTH[torch.float32], True, True),
        (WRITTEN_OUT_LENGTH[torch.float32] + 1, True, False),
        (8, False, False),
    ],
    ids=["short", "long", "no gradient"],
)
def test_it_is_chosen_for_short_training(
    monkeypatch: pytest.MonkeyPatch, length: int, training: bool, written_out: bool
) -> None:
    called = []
    monkeypatch.setattr(module, "_attend_causally", lambda q, k, v, *, scale, dropout: called.append(1) or q)
    q, k, v = (item.detach().float().requires_grad_(training) for item in tensors(length, groups=4))
    attend(q, k, v, mask=None, scale=1.0)
    assert bool(called) == written_out
