"""Rotary embedding: what the formula promises, and the bent frequencies at their ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.rope import (
    RotaryEmbedding,
    apply_rope,
    attention_scaling,
    frequencies,
    score_scaling,
    yarn_mscale,
)

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_seq_len": 8192}
YARN = {"factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_seq_len": 4096}


def table(positions: torch.Tensor, **overrides: Any) -> tuple[torch.Tensor, torch.Tensor]:
    config = GPTConfig(**{"n_layer": 1, "n_head": 1, "n_embd": 8, "rotary_percentage": 1.0, **overrides})
    return RotaryEmbedding(config)(positions)[0]


def test_scores_depend_on_the_distance_only() -> None:
    q, k = torch.randn(8), torch.randn(8)

    def score(i: int, j: int) -> float:
        rows = apply_rope(torch.stack((q, k)), table(torch.tensor([i, j])))
        return float(rows[0] @ rows[1])

    assert score(5, 2) == pytest.approx(score(103, 100), abs=1e-4)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)


def test_one_pair_is_turned_by_its_angle() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0]])  # halves: pairs (0, 2) and (1, 3)
    turned = apply_rope(x, table(torch.tensor([3]), n_embd=4))
    torch.testing.assert_close(turned, torch.tensor([[math.cos(3), 0.0, math.sin(3), 0.0]]))


def test_only_the_rotated_part_changes() -> None:
    x = torch.randn(2, 3, 5, 8)
    turned = apply_rope(x, table(torch.arange(5), rotary_percentage=0.5))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert torch.equal(turned[..., 0, :], x[..., 0, :])  # position 0
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert apply_rope(x, None) is x


def test_neighbouring_pairs_are_the_same_pairs_in_another_order() -> None:
    halves, angles = torch.randn(5, 8), table(torch.arange(5))
    neighbours = torch.stack((halves[:, :4], halves[:, 4:]), dim=-1).flatten(-2)
    assert torch.equal(apply_rope(neighbours, angles, interleaved=True), apply_rope(halves, angles))


def test_angles_stay_fp32_and_exact_in_a_bf16_model() -> None:
    rope = RotaryEmbedding(GPTConfig(n_layer=1, n_head=1, n_embd=8, rotary_percentage=1.0))
    positions = torch.tensor([4001])
    before = rope(positions)
    after = rope.to(torch.bfloat16)(positions)
    assert after[0][0].dtype == torch.float32
    assert torch.equal(before[0][0], after[0][0])


def test_condensed_positions_are_divided() -> None:
    torch.testing.assert_close(table(torch.tensor([8]), rope_condense_ratio=4), table(torch.tensor([2])))


def test_two_bases_give_two_tables() -> None:
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8, rotary_percentage=1.0, rope_base=1000, rope_local_base_freq=10.0)
    tables = RotaryEmbedding(config)(torch.arange(3))
    torch.testing.assert_close(tables[0], table(torch.arange(3), rope_base=1000))
    torch.testing.assert_close(tables[1], table(torch.arange(3), rope_base=10))


def test_plain_and_linear_frequencies_by_hand() -> None:
    plain = frequencies(4, base=100.0)
    torch.testing.assert_close(plain, torch.tensor([1.0, 0.1]))
    torch.testing.assert_close(frequencies(4, base=100.0, adjustments={"factor": 2.0}), plain / 2)


def test_llama3_keeps_fast_pairs_and_slows_slow_ones() -> None:
    plain, bent = frequencies(128, base=500000.0), frequencies(128, base=500000.0, adjustments=LLAMA3)
    assert torch.equal(bent[:20], plain[:20])
    torch.testing.assert_close(bent[-20:], plain[-20:] / 8)
    assert bool(((bent <= plain) & (bent >= plain / 8.001)).all())


def test_yarn_blends_between_scaled_and_unscaled() -> None:
    plain, bent = frequencies(64, base=10000.0), frequencies(64, base=10000.0, adjustments=YARN)
    ratio = bent / plain
    assert (float(ratio.min()), float(ratio.max())) == (pytest.approx(0.25), pytest.approx(1.0))


def test_yarn_temperatures() -> None:
    assert yarn_mscale(1.0, 3.0) == 1.0
    assert yarn_mscale(math.e, 2.0) == pytest.approx(1.2)
    both = {**YARN, "factor": math.e, "mscale": 1.0, "mscale_all_dim": 2.0}
    assert attention_scaling(both) == pytest.approx(1.1 / 1.2)
    assert score_scaling(both) == pytest.approx(1.44)
    assert (attention_scaling(YARN), attention_scaling(LLAMA3), attention_scaling(None)) == (1.0, 1.0, 1.0)
    assert (score_scaling(YARN), score_scaling(None)) == (1.0, 1.0)
