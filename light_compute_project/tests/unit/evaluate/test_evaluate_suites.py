"""Suites: pairs are what they claim to be, chance is exact, and the same seed gives the same items on every machine."""

import ast
import math
import random
import re
from collections import Counter

import pytest

from litgpt_core import tokenizers
from litgpt_core.core.errors import ConfigError
from litgpt_core.data.document import Document
from litgpt_core.evaluate.items import Item, fit, items_sha256
from litgpt_core.evaluate.ngram_scorer import UniformScorer
from litgpt_core.evaluate.suite_score import score_suite
from litgpt_core.evaluate.suites.catalogue import SUITES, build
from litgpt_core.evaluate.suites.english_pairs import base_form, changes, third_person
from litgpt_core.evaluate.suites.material import Material, parsed
from litgpt_core.evaluate.suites.word_pool import WordPool

WORD = re.compile(r"[A-Za-z_]+")
SOURCE = '''\
"""A module about {name}s."""

import math


class {Name}Store:
    """Keeps {name}s."""

    def __init__(self, {name}_limit, factor=2):
        self.{name}_limit = {name}_limit
        self.factor = factor
        self.entries = []

    def append(self, {name}, weight):
        if weight > self.{name}_limit:
            raise ValueError("too heavy: " + str(weight))
        elif weight < 0:
            weight = 0
        else:
            weight = weight * self.factor
        self.entries.append(({name}, weight))
        return self.entries

    def total(self):
        try:
            return sum(weight for {name}, weight in self.entries)
        except TypeError:
            return math.nan


def average_{name}(values, start='0'):
    total = float(start)
    for value in values:
        total = total + value
    return total / len(values)
'''
NAMES = ("apple", "melon", "grape", "berry", "peach", "lemon", "olive", "mango", "guava", "papay", "fruit", "tulip")


@pytest.fixture(scope="module")
def material() -> Material:
    documents = [
        Document("", f"{name}.py", SOURCE.format(name=name, Name=name.title()).replace("factor", f"rate_{name[:2]}"))
        for name in NAMES
    ]
    return Material(documents=documents)


PROSE = """\
# {Name}s are kept in the order in which the user adds them, and each {name} has a weight.
#
# When the {name} is too heavy, it raises an error that names the {name} for these values and the limit of them.
# A caller must check the weight of a {name} before it adds an entry to the list of all entries.
# If the {name} was added by this method, it returns the new entries, and the caller can change an entry again.
# These entries are sorted when the limits are known, but the values were copied before the call.
"""


@pytest.fixture(scope="module")
def prose() -> Material:
    documents = [Document("", f"{name}.txt", PROSE.format(name=name, Name=name.title())) for name in NAMES]
    return Material(documents=documents)


@pytest.fixture(scope="module")
def suites(material: Material, prose: Material) -> dict[str, list[Item]]:
    return {name: build(name, prose if name == "english_pairs" else material) for name in SUITES}


def test_the_same_seed_gives_the_same_items_everywhere(material: Material, suites: dict[str, list[Item]]) -> None:
    """Hashes of this material at seed 1: another hash means that results of earlier versions cannot be paired."""
    assert {name: items_sha256(items)[:12] for name, items in suites.items()} == PINNED
    assert build("induction", material) == suites["induction"]
    assert build("induction", material, seed=2) != suites["induction"]


PINNED = {
    "python_pairs": "aaf068d0142e",
    "english_pairs": "8a0753a23fa1",
    "induction": "6c7e886508b8",
    "cloze": "192a6163c684",
}


def test_uniform_logits_score_exactly_chance(byte_tokenizer, suites: dict[str, list[Item]]) -> None:
    scorer = UniformScorer(byte_tokenizer)
    for name, items in suites.items():
        fitted = fit(items, scorer)
        score = score_suite(name, fitted, scorer)
        assert len(fitted.items) > 20, name
        assert math.isclose(score.estimate().value, score.chance, rel_tol=1e-12)
        assert math.isclose(score.estimate("choice_bits").value, score.chance_bits, rel_tol=1e-12)
        assert score.estimate("margin").value == 0


def test_fitted_choices_are_of_equal_length(byte_tokenizer, suites: dict[str, list[Item]]) -> None:
    for items in suites.values():
        fitted = fit(items, UniformScorer(byte_tokenizer), of_a_kind=7)
        kinds = [item.kind for item in fitted.items]
        assert all(kinds.count(kind) <= 7 for kind in kinds)
        for item, request in zip(fitted.items, fitted.requests, strict=True):
            assert len({len(choice) for choice in request.choices}) == 1
            assert len(request.choices) == len(item.choices)
            assert len({choice.tobytes() for choice in request.choices}) == len(request.choices)


def test_every_choice_is_tokenized_with_its_context(byte_tokenizer, suites: dict[str, list[Item]]) -> None:
    scorer = UniformScorer(byte_tokenizer)
    fitted = fit(suites["cloze"], scorer)
    for item, request in zip(fitted.items, fitted.requests, strict=True):
        for text, choice in zip(item.texts(), request.choices, strict=True):
            assert [*request.context, *choice] == scorer.encode(text).tolist()


def test_syntax_pairs_parse_on_one_side_only(material: Material, suites: dict[str, list[Item]]) -> None:
    """The right side is in the file; with any wrong side in its place the file does not parse, but for names."""
    texts = {document.name: document.text for document in material.documents}
    kinds = {"bracket", "quote", "colon", "keyword", "indent", "name", "attribute"}
    assert {item.kind for item in suites["python_pairs"]} == kinds
    for item in suites["python_pairs"]:
        text, right = texts[item.cluster], item.context + item.choices[0]
        assert right in text and parsed(text) is not None
        for wrong in item.choices[1:]:
            changed = text.replace(right, item.context + str(wrong), 1)
            assert changed != text
            assert (parsed(changed) is not None) is (item.kind in ("name", "attribute")), (item, wrong)


def test_wrong_names_are_not_in_the_file(material: Material, suites: dict[str, list[Item]]) -> None:
    for item in suites["python_pairs"]:
        if item.kind in ("name", "attribute"):
            tree = ast.parse(next(d.text for d in material.documents if d.name == item.cluster))
            known = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(tree)}
            for wrong in item.choices[1:]:
                assert len(wrong) == len(item.choices[0])
                assert not any(str(wrong).startswith(name) for name in known if len(name) >= 3)


def test_english_pairs_are_the_text_and_the_text_with_one_word_changed(
    prose: Material, suites: dict[str, list[Item]]
) -> None:
    texts = {document.name: document.text for document in prose.documents}
    kinds = {"determiner", "auxiliary", "genitive", "preposition", "article", "demonstrative", "agreement", "verb"}
    assert {item.kind for item in suites["english_pairs"]} == kinds
    for item in suites["english_pairs"]:
        right, wrong = (str(item.context) + str(choice) for choice in item.choices)
        assert right in texts[item.cluster] and wrong not in texts[item.cluster]
        differing = [pair for pair in zip(right.split(), wrong.split(), strict=True) if pair[0] != pair[1]]
        assert len(differing) == (2 if item.kind in ("determiner", "auxiliary", "genitive") else 1)


def test_english_contrasts_go_both_ways(suites: dict[str, list[Item]]) -> None:
    """Each word is as often right as wrong."""
    for kind in ("preposition", "article", "demonstrative", "agreement"):
        items = [item for item in suites["english_pairs"] if item.kind == kind]
        right, wrong = (Counter(str(item.choices[side]).split()[0] for item in items) for side in (0, 1))
        assert items and right == wrong
    third = [str(item.choices[0]).split()[0].endswith("s") for item in suites["english_pairs"] if item.kind == "verb"]
    assert third.count(True) == third.count(False) > 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# the file is not in the list of files", True),
        ('    """Return the values that were read from a file."""', True),
        ("if value is not None and key in table or name in other", False),
        ("for name in names if name not in seen else other", False),
        ("lambda x: call(one, two, three, four, five)", False),
        ("import os as system from path import join", False),
        ("the file", False),
    ],
)
def test_prose_is_told_from_code(line: str, expected: bool) -> None:
    assert bool(list(changes(Document("", "a", line)))) is expected


@pytest.mark.parametrize(
    ("base", "third"),
    [("return", "returns"), ("match", "matches"), ("copy", "copies"), ("pass", "passes"), ("fix", "fixes"),
     ("go", "goes"), ("play", "plays"), ("use", "uses"), ("raise", "raises"),
     ("cache", "caches"), ("initialize", "initializes")],
)  # fmt: skip
def test_forms_of_verbs(base: str, third: str) -> None:
    assert third_person(base) == third and base_form(third) == base


def test_wrong_words_of_a_cloze_are_not_in_the_file(material: Material, suites: dict[str, list[Item]]) -> None:
    texts = {document.name: document.text for document in material.documents}
    for item in [*suites["cloze"], *suites["induction"]]:
        right, *wrong = (choice.strip() for choice in item.choices)
        assert right in item.context and item.context + item.choices[0] in texts[item.cluster]
        assert not [word for word in wrong if word in set(WORD.findall(texts[item.cluster]))]


def test_the_right_word_of_an_induction_followed_the_last_time(suites: dict[str, list[Item]]) -> None:
    for item in suites["induction"]:
        tokens = re.findall(r"[A-Za-z_]+|\d+|[^\sA-Za-z_\d]", item.context)
        last = max(place for place in range(2, len(tokens)) if tokens[place - 2 : place] == tokens[-2:])
        assert tokens[last] == item.choices[0].strip()


def test_wrong_words_are_about_as_frequent() -> None:
    texts = {"a": "rare " * 2 + "common " * 60, "b": "seldom " * 2 + "usual " * 61 + "rare_too " * 3}
    pool = WordPool([Document("", name, text) for name, text in texts.items()])
    assert pool.order == ["rare", "seldom", "rare_too", "common", "usual"]
    assert set(pool.others("common", Document("", "a", texts["a"]), random.Random(1))) == {
        "seldom",
        "rare_too",
        "usual",
    }


def test_items_longer_than_the_window_are_left_out(byte_tokenizer, suites: dict[str, list[Item]]) -> None:
    scorer = UniformScorer(byte_tokenizer)
    scorer.block_size = 40
    fitted = fit(suites["cloze"], scorer)
    assert fitted.too_long == len(suites["cloze"]) - len(fitted.items) - fitted.unequal > 0
    assert all(len(r.context) + len(r.choices[0]) - 1 <= 40 for r in fitted.requests)


def test_a_character_that_the_vocabulary_lacks_leaves_its_items_out() -> None:
    letters = tokenizers.train(tokenizers.CharSettings(), ["abc xyz"])
    items = [
        Item(kind="k", cluster="1", context="ab", choices=(" x", " y")),
        Item(kind="k", cluster="2", context="ab", choices=(" x", " Q")),
    ]
    fitted = fit(items, UniformScorer(letters))
    assert [item.cluster for item in fitted.items] == ["1"] and fitted.unequal == 1


def test_an_unknown_suite_is_an_error(material: Material) -> None:
    with pytest.raises(ConfigError, match="did you mean python_pairs"):
        build("python_pair", material)


def test_suites_without_material_are_empty() -> None:
    assert all(suite.build(Material(), random.Random(1)) == [] for suite in SUITES.values())
