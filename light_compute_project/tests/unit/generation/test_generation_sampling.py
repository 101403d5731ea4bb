"""Which tokens may be drawn, and how often."""

import math

import pytest
import torch

from litgpt_core.errors import CheckpointError, ConfigError
from litgpt_core.generation.sampling import GREEDY, SamplingSettings, filter_logits, sample

PROBABILITIES = torch.tensor([[0.1, 0.4, 0.05, 0.3, 0.15]])
LOGITS = PROBABILITIES.log()


def kept(**settings: float) -> list[int]:
    filtered = filter_logits(LOGITS, SamplingSettings(**settings))
    return (filtered[0] > -math.inf).nonzero().flatten().tolist()


def test_filters_keep_what_their_definitions_say():
    assert kept() == [0, 1, 2, 3, 4]
    assert kept(top_k=2) == [1, 3]
    assert kept(top_k=99) == kept(top_k=0) == [0, 1, 2, 3, 4]
    assert kept(top_p=0.39) == [1]
    assert kept(top_p=0.5) == [1, 3]
    assert kept(top_p=0.72) == [1, 3, 4]
    assert kept(top_p=1e-9) == [1]
    assert kept(min_p=0.3) == [1, 3, 4]
    assert kept(min_p=0.999) == [1]
    assert kept(top_k=3, top_p=0.5) == [1, 3], "top_p counts what top_k left: 0.4/0.85, 0.3/0.85"
    assert kept(top_k=3, min_p=0.5) == [1, 3]


def test_filters_leave_the_logits_of_kept_tokens_alone():
    filtered = filter_logits(LOGITS, SamplingSettings(top_k=3, top_p=0.9, min_p=0.1))
    assert torch.equal(filtered[0, [1, 3, 4]], LOGITS[0, [1, 3, 4]])


def test_top_k_keeps_exactly_k_of_equal_tokens():
    equal = torch.zeros(2, 6)
    filtered = filter_logits(equal, SamplingSettings(top_k=2))
    assert (filtered > -math.inf).sum(dim=-1).tolist() == [2, 2]


def test_temperature_0_is_greedy_whatever_else_is_set():
    logits = torch.tensor([[0.0, 5.0, 1.0], [2.0, 0.0, -1.0]])
    assert sample(logits, GREEDY).tolist() == [1, 0]
    assert sample(logits, SamplingSettings(temperature=0, top_k=2, top_p=0.5, min_p=0.1)).tolist() == [1, 0]
    assert sample(logits, SamplingSettings(temperature=1e-40)).tolist() == [1, 0]
    assert sample(logits, SamplingSettings(top_k=1)).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_softmax(temperature):
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    draws = sample(LOGITS.expand(n, -1), SamplingSettings(temperature=temperature), generator=generator)
    shares = torch.bincount(draws, minlength=5) / n
    expected = PROBABILITIES[0] ** (1 / temperature)
    assert torch.allclose(shares, expected / expected.sum(), atol=0.015)


def test_equal_seeds_draw_equally_and_leave_the_global_state_alone():
    state = torch.get_rng_state()
    rows = torch.randn(50, 9, generator=torch.Generator().manual_seed(1))
    first, second = (sample(rows, SamplingSettings(), generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, sample(rows, SamplingSettings(), generator=torch.Generator().manual_seed(8)))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_row_is_filtered_by_itself():
    rows = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    assert sample(rows, SamplingSettings(top_p=0.5)).tolist() == [0, 1, 2]
    assert sample(rows.bfloat16(), SamplingSettings(min_p=0.5)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_an_error(value, temperature):
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        sample(torch.tensor([[0.0, value]]), SamplingSettings(temperature=temperature))


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        SamplingSettings(temperature=-1, top_k=-3, top_p=0, min_p=1)
    assert caught.value.given == "Sampling cannot work with temperature=-1, top_k=-3, top_p=0, min_p=1."
    assert caught.value.needed.count(";") == 3
    for bad in (math.nan, math.inf):
        with pytest.raises(ConfigError):
            SamplingSettings(temperature=bad)
    with pytest.raises(ConfigError):
        SamplingSettings(top_p=math.nan)
