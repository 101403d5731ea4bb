"""Errors, intervals and comparisons: known values, exact antisymmetry, and contamination that is found."""

import math

import numpy as np

from litgpt_core.evaluate.compare import compare_suites, compare_texts, rounded_up
from litgpt_core.evaluate.contamination import clean_items, overlap
from litgpt_core.evaluate.scorer import Continuations
from litgpt_core.evaluate.statistics import clustered_mean, clustered_ratio, more_units, sign_test, t_quantile
from litgpt_core.evaluate.suite_score import ItemScore, SuiteScore


def suite(bits: list[list[float]], clusters: list[str] | None = None) -> SuiteScore:
    names = clusters or [str(i) for i in range(len(bits))]
    scores = [ItemScore(identity=f"{i}", kind="k", cluster=names[i], bits=each) for i, each in enumerate(bits)]
    return SuiteScore(suite="s", scores=scores, sha256="")


def test_singletons_have_the_textbook_standard_error() -> None:
    values = np.random.default_rng(1).standard_normal(50)
    found = clustered_mean(values, [str(i) for i in range(50)])
    assert math.isclose(found.value, values.mean())
    assert math.isclose(found.se, values.std(ddof=1) / math.sqrt(50))


def test_copies_of_an_item_add_no_information() -> None:
    values = np.random.default_rng(2).standard_normal(20)
    once = clustered_mean(values, [str(i) for i in range(20)])
    copied = clustered_mean(np.repeat(values, 5), [str(i) for i in range(20) for _ in range(5)])
    assert math.isclose(once.se, copied.se) and copied.n == 100 and copied.clusters == 20


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    clusters = [str(i // 4) for i in range(80)]
    hits = 0
    for _ in range(400):
        values = rng.standard_normal(20).repeat(4) + rng.standard_normal(80)
        found = clustered_mean(values, clusters)
        hits += abs(found.value) <= found.half_width
    assert 0.92 <= hits / 400 <= 0.98


def test_a_ratio_of_equal_blocks_is_the_mean() -> None:
    bits = np.array([3.0, 5.0, 4.0, 8.0])
    ratio = clustered_ratio(bits, np.full(4, 2.0), list("abcd"))
    mean = clustered_mean(bits / 2, list("abcd"))
    assert math.isclose(ratio.value, mean.value) and math.isclose(ratio.se, mean.se)


def test_quantiles_are_students() -> None:
    tables = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 10: 2.228, 30: 2.042, 1000: 1.962}
    for degrees, value in tables.items():
        assert math.isclose(t_quantile(degrees), value, rel_tol=0.01)


def test_power_grows_with_the_square_of_the_error() -> None:
    values = np.array([1.0, -1.0] * 50) + 0.1
    found = clustered_mean(values, [str(i) for i in range(100)])
    more = more_units(found)
    assert more is not None
    assert math.isclose(100 + more, 100 * (2.8016 * found.se / 0.1) ** 2, rel_tol=0.01)
    assert more_units(clustered_mean(np.zeros(9), list("abcdefghi"))) is None
    assert [rounded_up(number) for number in (0, 7, 41, 500, 512)] == [0, 7, 50, 500, 600]


def test_the_sign_test_is_binomial() -> None:
    assert sign_test(0, 0) == 1.0
    assert math.isclose(sign_test(0, 5), 2 / 32)
    assert math.isclose(sign_test(9, 1), 2 * 11 / 1024)
    assert math.isclose(sign_test(700, 300), sign_test(300, 700)) and sign_test(700, 300) < 1e-30


def test_measures_of_an_item() -> None:
    even = ItemScore(identity="", kind="", cluster="", bits=[2.0, 2.0, 2.0, 2.0])
    assert (even.accuracy, even.choice_bits, even.margin) == (0.25, 2.0, 0.0)
    sure = ItemScore(identity="", kind="", cluster="", bits=[1.0, 4.0])
    assert sure.accuracy == 1 and sure.margin == 3
    assert math.isclose(sure.choice_bits, -math.log2(8 / 9))
    wrong = ItemScore(identity="", kind="", cluster="", bits=[900.0, 1.0])
    assert wrong.accuracy == 0 and math.isclose(wrong.choice_bits, 899)


def test_exchanging_two_models_changes_the_sign_and_nothing_else() -> None:
    rng = np.random.default_rng(4)
    a, b = (suite(rng.random((60, 2)).round(2).tolist(), [str(i // 3) for i in range(60)]) for _ in range(2))
    for measure in ("accuracy", "choice_bits", "margin"):
        one = compare_suites(a, b, names=("A", "B"), measure=measure)
        other = compare_suites(b, a, names=("B", "A"), measure=measure)
        assert one is not None and other is not None
        assert one.estimate.value == -other.estimate.value
        assert one.estimate.se == other.estimate.se
        assert (one.wins, one.losses) == (other.losses, other.wins)
        assert one.better == other.better


def test_equal_models_are_indistinguishable_and_different_ones_are_not() -> None:
    good, bad = suite([[0.0, 1.0]] * 40), suite([[1.0, 0.0]] * 20 + [[0.0, 1.0]] * 20)
    same = compare_suites(good, good, names=("A", "B"))
    assert same is not None and same.better is None
    assert "A and B are indistinguishable" in same.sentence and "no difference was measured" in same.sentence
    told = compare_suites(good, bad, names=("A", "B"))
    assert told is not None and told.better == "A" and "s: A is better than B" in told.sentence
    bits = compare_suites(bad, good, names=("B", "A"), measure="choice_bits")
    assert bits is not None and bits.estimate.value > 0 and bits.better == "A"


def test_a_small_difference_says_how_many_items_would_tell() -> None:
    a = suite([[0.0, 1.0]] * 21 + [[1.0, 0.0]] * 19)
    b = suite([[0.0, 1.0]] * 18 + [[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 1 + [[1.0, 0.0]] * 17)
    found = compare_suites(a, b, names=("A", "B"))
    assert found is not None and found.better is None
    assert "more items would tell" in found.sentence


def test_only_common_items_are_compared() -> None:
    a, b = suite([[0.0, 1.0]] * 5), suite([[0.0, 1.0]] * 3)
    found = compare_suites(a, b, names=("A", "B"))
    assert found is not None and found.estimate.n == 3 and found.dropped == 2
    assert compare_suites(a, SuiteScore(suite="s", scores=[], sha256=""), names=("A", "B")) is None


def text(name: str, blocks: list[float], n_bytes: int) -> dict[str, object]:
    return {"name": name, "sha256": name, "n_bytes": n_bytes, "blocks": blocks}


def test_texts_are_compared_block_by_block() -> None:
    a = [text("one", [1000.0, 900.0], 1500), text("other", [10.0], 100)]
    b = [text("one", [1100.0, 1000.0], 1500), text("third", [10.0], 100)]
    found = compare_texts(a, b, names=("A", "B"))
    back = compare_texts(b, a, names=("B", "A"))
    assert found is not None and back is not None
    assert math.isclose(found.estimate.value, -200 / 1500) and found.estimate.value == -back.estimate.value
    assert found.dropped == 2
    assert compare_texts(a[1:], b[1:], names=("A", "B")) is None


def test_what_was_inserted_into_the_training_text_is_found() -> None:
    rng = np.random.default_rng(5)
    train = rng.integers(0, 500, size=60_000).astype(np.uint16)
    requests = [
        Continuations(
            np.array([0, *rng.integers(0, 500, size=30)]), tuple(rng.integers(0, 500, size=3) for _ in range(2))
        )
        for _ in range(40)
    ]
    assert clean_items(requests, train, special=frozenset()) == [True] * 40
    for place in (3, 17):
        whole = np.concatenate([requests[place].context[1:], requests[place].choices[0]])
        train[1000 * place : 1000 * place + len(whole)] = whole
    wrong = np.concatenate([requests[5].context[1:], requests[5].choices[1]])  # the wrong answer gives nothing away
    train[50_000 : 50_000 + len(wrong)] = wrong
    flags = clean_items(requests, train, special=frozenset())
    assert [place for place, clean in enumerate(flags) if not clean] == [3, 17]


def test_short_items_are_found_whole_and_very_short_ones_not() -> None:
    train = np.arange(100, dtype=np.uint16)
    ten = Continuations(np.array([0, *range(20, 28)]), (np.array([28, 29]), np.array([1, 1])))
    four = Continuations(np.array([0, 20, 21, 22]), (np.array([23]), np.array([1])))
    assert clean_items([ten, four], train, special=frozenset()) == [False, True]
    assert clean_items([ten], train, special=frozenset({25})) == [True]


def test_the_share_of_a_text_that_is_in_the_training_text() -> None:
    train = np.arange(1000, dtype=np.uint16)
    half = np.concatenate([np.arange(100, 150), np.arange(2000, 2050)])
    assert overlap([np.arange(50), np.arange(3000, 3050), np.arange(5)], train) == [1.0, 0.0, 0.0]
    assert math.isclose(overlap([half], train)[0], 38 / 88)
