"""Which tokens may be sampled, and how often."""

import math

import pytest
import torch

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.generation.sampling import (
    GREEDY,
    SamplingSettings,
    UniformRng,
    filter_logits,
    penalize,
    sample,
    sample_reference,
)
from litgpt_core.generation.sampling_settings import shared_instance


def sample_alike(
    logits: torch.Tensor, settings: SamplingSettings, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """One token for each row of logits, all sampled with the same settings."""
    uniforms = torch.rand(len(logits), generator=generator or torch.Generator(), dtype=torch.float64).tolist()
    return torch.tensor(sample(logits, [settings] * len(logits), uniforms=uniforms))


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
    assert sample_alike(logits, GREEDY).tolist() == [1, 0]
    assert sample_alike(logits, SamplingSettings(temperature=0, top_k=2, top_p=0.5, min_p=0.1)).tolist() == [1, 0]
    assert sample_alike(logits, SamplingSettings(temperature=1e-40)).tolist() == [1, 0]
    for tiny in (1e-46, 5e-324):
        assert sample_alike(logits, SamplingSettings(temperature=tiny, top_p=0.5)).tolist() == [1, 0]
    assert sample_alike(logits, SamplingSettings(top_k=1)).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_tempered_softmax(temperature):
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    tokens = sample_alike(LOGITS.expand(n, -1), SamplingSettings(temperature=temperature), generator=generator)
    shares = torch.bincount(tokens, minlength=5) / n
    expected = PROBABILITIES[0] ** (1 / temperature)
    assert torch.allclose(shares, expected / expected.sum(), atol=0.015)


def test_equal_seeds_sample_equally_and_leave_the_global_rng_alone():
    state = torch.get_rng_state()
    rows = torch.randn(50, 9, generator=torch.Generator().manual_seed(1))
    first, second = (
        sample_alike(rows, SamplingSettings(), generator=torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, sample_alike(rows, SamplingSettings(), generator=torch.Generator().manual_seed(8)))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_row_is_filtered_by_itself():
    rows = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    assert sample_alike(rows, SamplingSettings(top_p=0.5)).tolist() == [0, 1, 2]
    assert sample_alike(rows.bfloat16(), SamplingSettings(min_p=0.5)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_non_finite_logits_are_an_error(value, temperature):
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        sample_alike(torch.tensor([[0.0, value]]), SamplingSettings(temperature=temperature))


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


@pytest.mark.parametrize(
    "size", [7, 300, 3000], ids=["fewer than top_k", "sorted at once", "first candidates, then all"]
)
def test_sample_equals_the_reference_and_rows_are_independent(size):
    """3,000 tokens of nearly equal weight: the first 512 candidates do not reach 0.9."""
    logits = torch.randn(len(SETTINGS) * 40, size, generator=torch.Generator().manual_seed(size)) * 2
    settings = SETTINGS * 40
    rng = UniformRng(3)
    uniforms = [rng.next() for _ in settings]
    together = sample(logits, settings, uniforms=uniforms)
    alone = [
        sample(logits[row : row + 1], [settings[row]], uniforms=[uniforms[row]])[0] for row in range(len(settings))
    ]
    slow = [sample_reference(logits[row], settings[row], uniform=uniforms[row]) for row in range(len(settings))]
    assert together == alone
    assert together == slow
    assert len(set(together)) > min(size, 40) // 2


@pytest.mark.parametrize("settings", [{}, {"top_k": 50}, {"top_p": 0.9}])
def test_a_temperature_beyond_float32_is_clamped(settings):
    logits = torch.tensor([[1.0, -math.inf, 0.0, -math.inf]]).repeat(1, 50)
    hot = SamplingSettings(temperature=1e300, **settings)
    fast = {sample(logits, [hot], uniforms=[n / 50])[0] for n in range(50)}
    slow = {sample_reference(logits[0], hot, uniform=n / 50) for n in range(50)}
    for sampled in (fast, slow):  # tokens of equal weight may be ordered differently
        assert len(sampled) > 20 and all(token % 2 == 0 for token in sampled)


def test_equal_seeds_give_equal_random_numbers():
    first, again, other = UniformRng(5), UniformRng(5), UniformRng(6)
    numbers = [first.next() for _ in range(200)]
    assert numbers == [again.next() for _ in range(200)]
    assert numbers != [other.next() for _ in range(200)]
    assert all(0 <= number < 1 for number in numbers)
    assert UniformRng(None).next() != UniformRng(None).next()


def test_penalties_are_their_formulas():
    logits = torch.tensor([2.0, -1.0, 0.5, 3.0])
    ids = {"prompt_ids": [0, 1], "new_ids": [3, 3, 2]}
    repeated = penalize(logits, SamplingSettings(repetition_penalty=2.0), **ids)
    assert repeated.tolist() == [1.0, -2.0, 0.25, 1.5]
    counted = penalize(logits, SamplingSettings(frequency_penalty=0.5, presence_penalty=0.25), **ids)
    assert counted.tolist() == [2.0, -1.0, -0.25, 1.75]
    assert logits.tolist() == [2.0, -1.0, 0.5, 3.0]
    assert penalize(logits, SamplingSettings(), **ids).tolist() == logits.tolist()


def test_penalties_ignore_ids_outside_the_vocabulary():
    penalized = penalize(torch.ones(3), SamplingSettings(repetition_penalty=2.0), prompt_ids=[1, 7], new_ids=[])
    assert penalized.tolist() == [1.0, 0.5, 1.0]


def test_wrong_penalties_are_named():
    with pytest.raises(ConfigError, match=r"repetition_penalty=0, frequency_penalty=nan"):
        SamplingSettings(repetition_penalty=0, frequency_penalty=math.nan)


def test_equal_settings_become_one_object_that_holds_nothing_else():
    """The chat log stores its `vars`."""
    first, second = SamplingSettings(temperature=0.7, top_k=50.0), SamplingSettings(temperature=0.7, top_k=50)
    names = set(vars(first))
    shared = shared_instance(first)
    assert shared_instance(second) is shared and not shared.penalizes
    assert set(vars(shared)) == names and type(shared.top_k) is int
