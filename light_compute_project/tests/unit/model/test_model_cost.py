"""Parameters and FLOPs against numbers worked out by hand and against a real counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from litgpt_core.doctor.model_checks import KINDS, TINY_PARAMETERS, build, shipped_configs
from litgpt_core.model import GPT, GPTConfig
from litgpt_core.model.cost import count_parameters, flops_per_token, forward_flops_per_token, matmul_parameters


def test_tiny_by_hand() -> None:
    """A tied table; per layer four matrices with biases and two norms; the last norm."""
    layer = (64 * 192 + 192) + (64 * 64 + 64) + (64 * 256 + 256) + (256 * 64 + 64) + 2 * 128
    assert 256 * 64 + 2 * layer + 128 == TINY_PARAMETERS == 116_480
    config = shipped_configs(vocab_size=256)["tiny"]
    assert count_parameters(config) == GPT(config).num_parameters() == TINY_PARAMETERS
    assert count_parameters(config, embedding=False) == 2 * layer + 128


def test_flops_by_hand() -> None:
    """6 N + 12 n_layer n_head head_size T, with N = matrices of two layers and the head."""
    config = shipped_configs(vocab_size=256)["tiny"]
    matrices = 2 * (64 * 192 + 64 * 64 + 2 * 64 * 256) + 64 * 256
    assert matmul_parameters(config) == matrices
    assert flops_per_token(config, seq_length=64) == 6 * matrices + 12 * 2 * 4 * 16 * 64
    assert forward_flops_per_token(config, seq_length=64) * 3 == flops_per_token(config, seq_length=64)


def test_a_window_bounds_the_keys_that_are_read() -> None:
    base = {"n_layer": 2, "n_head": 2, "n_embd": 8, "vocab_size": 8, "padding_multiple": 1, "rotary_percentage": 1.0}
    windowed = GPTConfig(**base, sliding_window_size=4, sliding_window_indices=[1, 0])
    full = GPTConfig(**base)
    saved = flops_per_token(full, seq_length=16) - flops_per_token(windowed, seq_length=16)
    assert saved == 12 * 2 * 4 * (16 - 4)
    assert flops_per_token(full, seq_length=4) == flops_per_token(windowed, seq_length=4)


def test_only_chosen_experts_count_as_work() -> None:
    moe = build("mixture of experts").config
    expert = 3 * 32 * 64
    idle = moe.n_layer * (moe.n_expert - moe.n_expert_per_token) * expert
    tables_norms = 61 * 32 + 5 * 32
    assert count_parameters(moe) - matmul_parameters(moe) == idle + tables_norms


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_counts_equal_the_real_model(kind: str) -> None:
    model = build(kind, bias=True, attn_bias=True, lm_head_bias=True)
    for embedding in (True, False):
        assert count_parameters(model.config, embedding=embedding) == model.num_parameters(embedding=embedding)
    batch, length = 3, 16
    counter = FlopCounterMode(display=False)
    with counter:
        model.eval()(torch.randint(61, (batch, length)))
    if "windows" not in kind:  # the real pass computes what the window then hides
        expected = forward_flops_per_token(model.config, seq_length=length) * batch * length
        assert counter.get_total_flops() == pytest.approx(expected)


def test_counts_of_all_shipped_models_equal_the_real_ones() -> None:
    configs = shipped_configs(vocab_size=1000)
    for name, config in configs.items():
        with torch.device("meta"):
            model = GPT(config)
        assert count_parameters(config) == model.num_parameters(), name
