"""Long prompts are prefilled in steps that leave most of the time to sequences that are being decoded."""

from litgpt_core.generation.prefill_budget import LEAST, REST, SHORT, STEP_S, PrefillBudget


def test_without_others_or_without_a_limit_prompts_take_all_there_is():
    budget = PrefillBudget(256)
    budget.prefilled(256, seconds=10, decoding=True)
    assert budget.shares([1000, 100], decoding=False) == [156, 100], "the shortest first"
    assert PrefillBudget(None).shares([1000, 100], decoding=True) == [1000, 100]


def test_decoding_gets_a_multiple_of_the_time_of_prefilling():
    budget, prefilling, decoding, left = PrefillBudget(256), 0.0, 0.0, 8000
    while left:
        [share] = budget.shares([left], decoding=True)
        if share:
            seconds = share * 0.001
            budget.prefilled(share, seconds=seconds, decoding=True)
            prefilling, left = prefilling + seconds, left - share
        else:
            budget.rested(0.01)
            decoding += 0.01
    assert abs(decoding / prefilling - REST) < 0.15
    assert 0.9 * STEP_S <= prefilling / (decoding / 0.01) * (REST * STEP_S / 0.01) <= 1.4 * STEP_S


def test_short_prompts_do_not_wait_and_slow_models_go_on():
    budget = PrefillBudget(256)
    budget.prefilled(256, seconds=1000, decoding=True)
    assert budget.shares([5000, 30, 20, 30], decoding=True) == [0, 30, 20, SHORT - 50]
    budget.rested(10_000)
    assert budget.shares([5000], decoding=True) == [LEAST]
