"""Long prompts are prefilled in steps that leave most of the time to sequences that are being decoded."""

from litgpt_core.generation.prefill_budget import LEAST, REST, SHORT, STEP_S, PrefillBudget


def test_without_others_or_without_a_limit_prompts_take_all_there_is():
    budget = PrefillBudget(256)
    budget.prefilled(256, seconds=10, decoding=True)
    assert budget.shares([1000, 100], decoding=False) == [156, 100], "the shortest first"
    assert PrefillBudget(None).shares([1000, 100], decoding=True) == [1000, 100]


def test_decoding_gets_a_multiple_of_the_time_of_prefilling():
    budget, steps, decoding, left = PrefillBudget(256), [], 0.0, 8000
    while left:
        [share] = budget.shares([left], decoding=True)
        if share:
            steps.append(share * 0.001)
            budget.prefilled(share, seconds=steps[-1], decoding=True)
            left -= share
        else:
            budget.rested(0.001)
            decoding += 0.001
    assert max(steps[1:-1]) <= STEP_S, "the first step measures; the last is a short prompt"
    assert REST * 0.95 <= decoding / sum(steps) <= REST * 1.05


def test_short_prompts_do_not_wait_and_slow_models_go_on():
    budget = PrefillBudget(256)
    budget.prefilled(256, seconds=1000, decoding=True)
    assert budget.shares([5000, 30, 20, 30], decoding=True) == [0, 30, 20, SHORT - 50]
    budget.rested(10_000)
    assert budget.shares([5000], decoding=True) == [LEAST]
