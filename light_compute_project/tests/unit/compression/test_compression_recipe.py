"""Recipes: all problems are reported at once, before torch is imported."""

from pathlib import Path

import pytest

from litgpt_core.compression.named_recipes import RECIPES
from litgpt_core.compression.recipe import check_recipe, load_recipe
from litgpt_core.compression.settings import METHODS, Gptq
from litgpt_core.core.errors import ConfigError


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_are_valid(name):
    assert load_recipe(name).plain()


def test_every_method_has_a_description():
    assert all(kind.__doc__ and "Step(" not in kind.__doc__ for kind in METHODS.values())


def test_a_file_and_changes(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("steps:\n  - {method: awq}\n  - {method: gptq, bits: 3, head: null, skip: [attn.proj]}\n")
    recipe = load_recipe(str(file), changes=["damp=0.05"])
    assert recipe.name == "mine" and recipe.needs_text
    assert recipe.steps[1] == Gptq(bits=3, head=None, skip=("attn.proj",), damp=0.05)
    assert not load_recipe("int4").needs_text and load_recipe("int4", changes=["clip=activations"]).needs_text


def test_all_problems_are_told_at_once():
    given = [
        {"method": "round", "bits": 5, "clipp": "mse"},
        {"method": "gptqq"},
        {"method": "svd", "share": 1.5},
        {"method": "depth", "remove": "two"},
        "int4",
    ]
    with pytest.raises(ConfigError) as caught:
        check_recipe("mine", given)
    text = str(caught.value)
    for part in ("bits=5", "'clipp'", "'gptqq'", "share=1.5", "remove='two'", "'int4'", "would undo or ignore"):
        assert part in text


@pytest.mark.parametrize(
    "methods",
    [
        ("round", "depth"),
        ("round", "distill"),
        ("qat",),
        ("reconstruct",),
        ("mixed", "reconstruct"),
        ("round", "gptq"),
        ("prune", "round"),
        ("svd", "awq"),
        ("prune", "svd"),
    ],
)
def test_orders_without_sense_are_refused(methods):
    with pytest.raises(ConfigError, match=r"would undo|one form|both forms|needs one step|same number"):
        check_recipe("mine", [{"method": name} for name in methods])


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("int44", [], "no recipe 'int44'.*int4"),
        ("missing.yaml", [], "cannot be read"),
        ("int4", ["group=64"], "group=64"),
        ("int4", ["bots=3"], "no step has a setting"),
    ],
)
def test_mistakes_on_the_command_line(text, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(text, changes=changes)


def test_a_file_without_steps_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("step: []\n")
    with pytest.raises(ConfigError, match="no list of steps"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_a_rate_in_the_short_form_of_floats_is_a_number(tmp_path: Path) -> None:
    """YAML reads 1e-4, without a point, as a text."""
    file = tmp_path / "short.yaml"
    file.write_text("steps:\n  - {method: depth, remove: 1}\n  - {method: distill, lr: 1e-4}\n", encoding="utf-8")
    assert load_recipe(str(file)).steps[1].lr == 1e-4  # type: ignore[attr-defined]
