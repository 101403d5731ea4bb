from __future__ import annotations

import copy
from typing import Any

import pytest

from litgpt_core.audit.overrides import arguments_for, literal
from litgpt_core.config.compose import compose, load, normalise_overrides
from litgpt_core.core.errors import ConfigError


def composed(*typed: str) -> dict[str, Any]:
    return load(typed).plain


@pytest.mark.parametrize("name", ["smoke", "shakespeare_best"])
def test_a_recipe_comes_back_from_nothing_but_its_values(name: str) -> None:
    target = composed(f"+experiment={name}", "logger=none", "trainer.stop_after=7")
    arguments = arguments_for(target)
    assert load(arguments).plain == target
    assert not any(argument.startswith("+experiment") for argument in arguments)


def test_adapters_and_conversations_come_back() -> None:
    target = composed("+experiment=finetune_chat", "init_from=SOME/DIR", "lora=default", "data.path=my chats")
    assert load(arguments_for(target)).plain == target


def test_what_was_typed_comes_first_and_only_the_rest_is_added() -> None:
    typed = ["+experiment=smoke", "seed=3"]
    target = composed(*typed)
    assert arguments_for(target, given=typed) == typed
    target["trainer"]["threads"] = 2
    assert arguments_for(target, given=typed) == [*typed, "trainer.threads=2"]


def test_original_arguments_that_no_longer_compose_are_left_out() -> None:
    target = composed("+experiment=smoke")
    arguments = arguments_for(target, given=["+experiment=gone_by_now"])
    assert "+experiment=gone_by_now" not in arguments and compose(normalise_overrides(arguments)) == target


ODD_TEXTS = [
    *("plain", "32-true", "90m", "two words", "it's", 'a "quote"', "line\nbreak", "null", "true", "1e-3", "5", ""),
    *(
        "a=b,c",
        "[x]",
        "{y}",
        "~home",
        "back\\slash",
        "end\\",
        "ends with \\'",
        "${not.a.key}",
        "ümlaut",
        "# none",
        "nan",
    ),
]


def test_any_text_survives() -> None:
    target = composed("+experiment=smoke")
    target["trainer"]["sample_prompts"] = ODD_TEXTS
    found = compose(normalise_overrides(arguments_for(target)))
    assert found["trainer"]["sample_prompts"] == ODD_TEXTS


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (3, "3"), (1e-05, "1e-05"), ([1, "a"], "[1,a]"), ({"k": [None]}, "{k:[null]}")],
)
def test_literals(value: Any, text: str) -> None:
    assert literal(value) == text


def test_a_table_goes_with_its_last_entry() -> None:
    target = composed("+experiment=smoke", "data=tiny_shakespeare", "tokenizer=char")
    kept = copy.deepcopy(target)
    assert compose(normalise_overrides(arguments_for(target))) == target == kept


def test_what_cannot_be_written_is_refused_instead_of_run_wrongly() -> None:
    target = composed("+experiment=smoke")
    target["trainer"]["sample_prompts"] = [{"a key with: a colon": 1}]
    with pytest.raises(ConfigError):
        arguments_for(target)
