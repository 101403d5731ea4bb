"""Which tokens may be drawn, and how often."""

import math

import pytest
import torch

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.generation.sampling import (
    GREEDY,
    Dice,
    SamplingSettings,
    draw,
    draw_slowly,
    filter_logits,
    penalize,
)
from litgpt_core.generation.sampling_settings import one_for_all


def sample(
    logits: torch.Tensor, settings: SamplingSettings, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """One token for each row of logits, all drawn alike."""
    uniforms = torch.rand(len(logits), generator=generator or torch.Generator(), dtype=torch.float64).tolist()
    return torch.tensor(draw(logits, [settings] * len(logits), uniforms=uniforms))


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
    for tiny in (1e-46, 5e-324):
        assert sample(logits, SamplingSettings(temperature=tiny, top_p=0.5)).tolist() == [1, 0]
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


SETTINGS = [
    SamplingSettings(),
    SamplingSettings(temperature=0.7, top_k=5),
    SamplingSettings(temperature=1.3, top_p=0.9),
    SamplingSettings(top_k=40, top_p=0.5, min_p=0.02),
    SamplingSettings(min_p=0.2),
    SamplingSettings(top_k=10_000, top_p=0.999),
    GREEDY,
]


@pytest.mark.parametrize("size", [7, 300, 3000], ids=["fewer than top_k", "one look", "a first look and the rest"])
def test_the_fast_draw_is_the_slow_one_and_no_row_minds_its_neighbours(size):
    """3,000 tokens of nearly equal weight: the first look of 512 does not hold 0.9 of them."""
    logits = torch.randn(len(SETTINGS) * 40, size, generator=torch.Generator().manual_seed(size)) * 2
    settings = SETTINGS * 40
    dice = Dice(3)
    uniforms = [dice.throw() for _ in settings]
    together = draw(logits, settings, uniforms=uniforms)
    alone = [draw(logits[row : row + 1], [settings[row]], uniforms=[uniforms[row]])[0] for row in range(len(settings))]
    slow = [draw_slowly(logits[row], settings[row], uniform=uniforms[row]) for row in range(len(settings))]
    assert together == alone
    assert together == slow
    assert len(set(together)) > min(size, 40) // 2


@pytest.mark.parametrize("settings", [{}, {"top_k": 50}, {"top_p": 0.9}])
def test_a_temperature_beyond_float32_draws_among_all_that_may_be(settings):
    logits = torch.tensor([[1.0, -math.inf, 0.0, -math.inf]]).repeat(1, 50)
    hot = SamplingSettings(temperature=1e300, **settings)
    fast = {draw(logits, [hot], uniforms=[n / 50])[0] for n in range(50)}
    slow = {draw_slowly(logits[0], hot, uniform=n / 50) for n in range(50)}
    for drawn in (fast, slow):  # of equal weights each may order them its way
        assert len(drawn) > 20 and all(token % 2 == 0 for token in drawn)


def test_dice_repeat_with_their_seed():
    first, again, other = Dice(5), Dice(5), Dice(6)
    numbers = [first.throw() for _ in range(200)]
    assert numbers == [again.throw() for _ in range(200)]
    assert numbers != [other.throw() for _ in range(200)]
    assert all(0 <= number < 1 for number in numbers)
    assert Dice(None).throw() != Dice(None).throw()


def test_penalties_are_their_formulas():
    logits = torch.tensor([2.0, -1.0, 0.5, 3.0])
    ids = {"prompt_ids": [0, 1], "new_ids": [3, 3, 2]}
    repeated = penalize(logits, SamplingSettings(repetition_penalty=2.0), **ids)
    assert repeated.tolist() == [1.0, -2.0, 0.25, 1.5]
    counted = penalize(logits, SamplingSettings(frequency_penalty=0.5, presence_penalty=0.25), **ids)
    assert counted.tolist() == [2.0, -1.0, -0.25, 1.75]
    assert logits.tolist() == [2.0, -1.0, 0.5, 3.0]
    assert penalize(logits, SamplingSettings(), **ids).tolist() == logits.tolist()


def test_ids_behind_the_vocabulary_are_no_concern_of_penalties():
    penalized = penalize(torch.ones(3), SamplingSettings(repetition_penalty=2.0), prompt_ids=[1, 7], new_ids=[])
    assert penalized.tolist() == [1.0, 0.5, 1.0]


def test_wrong_penalties_are_named():
    with pytest.raises(ConfigError, match=r"repetition_penalty=0, frequency_penalty=nan"):
        SamplingSettings(repetition_penalty=0, frequency_penalty=math.nan)


def test_equal_settings_become_one_object_that_holds_nothing_else():
    """What the chat log writes is `vars` of it."""
    first, second = SamplingSettings(temperature=0.7, top_k=50.0), SamplingSettings(temperature=0.7, top_k=50)
    names = set(vars(first))
    shared = one_for_all(first)
    assert one_for_all(second) is shared and not shared.penalizes
    assert set(vars(shared)) == names and type(shared.top_k) is int
