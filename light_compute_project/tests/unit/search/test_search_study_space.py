"""Searched settings are separated from fixed ones, in the grammar of Hydra's sweepers."""

from __future__ import annotations

from typing import Any

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.search.study_space import SearchParameter, read_space


def parameter(text: str) -> SearchParameter:
    [found] = read_space(["+experiment=smoke", text]).parameters.values()
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=interval(1e-4,1e-2)", {"kind": "float", "low": 1e-4, "high": 1e-2}),
        ("optim.lr=tag(log,interval(1e-4,1e-2))", {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}),
        ("model.n_layer=int(interval(2,8))", {"kind": "int", "low": 2, "high": 8}),
        ("model.n_layer=tag(int,log,interval(2,8))", {"kind": "int", "low": 2, "high": 8, "log": True}),
        ("model.n_head=range(2,9,2)", {"kind": "int", "low": 2, "high": 8, "step": 2}),
        ("model.dropout=range(0.0,0.35,0.1)", {"kind": "float", "low": 0.0, "high": 0.3, "step": 0.1}),
        ("trainer.global_batch_size=choice(16,32)", {"kind": "choice", "choices": ("16", "32")}),
        ("model=tiny,nano_cpu", {"kind": "choice", "choices": ("tiny", "nano_cpu")}),
        ("optim.betas=[0.9,0.95],[0.9,0.99]", {"kind": "choice", "choices": ("[0.9,0.95]", "[0.9,0.99]")}),
        ("trainer.max_norm=null,1.0", {"kind": "choice", "choices": ("null", "1.0")}),
    ],
)
def test_ranges_mean_what_hydras_sweepers_mean_by_them(text: str, expected: dict[str, Any]) -> None:
    key = text.partition("=")[0]
    assert parameter(text) == SearchParameter(key=key, **expected)


def test_fixed_settings_stay_as_typed_and_names_are_taken_out() -> None:
    space = read_space(["+experiment=smoke", "run.name=x", "run.resume=auto", "trainer.max_steps=7", "seed=1,2"])
    assert space.fixed == ["+experiment=smoke", "trainer.max_steps=7"] and space.name == "x"
    assert space.overrides({"seed": "2"}) == ["+experiment=smoke", "trainer.max_steps=7", "seed=2"]


def test_values_that_there_are_and_ends_where_mistakes_show() -> None:
    assert parameter("model.n_head=range(2,9,2)").values == [2, 4, 6, 8]
    assert parameter("model.dropout=range(0.0,0.35,0.1)").values == [0.0, 0.1, 0.2, 0.3]
    assert parameter("model=tiny,nano_cpu").values == ["tiny", "nano_cpu"]
    assert parameter("optim.lr=interval(0.1,1)").values is None
    assert parameter("optim.lr=interval(0.1,1)").ends == [0.1, 1.0]


def test_suggested_floats_are_short_and_stay_inside() -> None:
    found = parameter("optim.lr=interval(0.00012345,0.00098765)")
    assert found.rounded(0.000456789123) == 0.0004568
    assert found.rounded(0.00012345) == 0.00012345 and found.rounded(0.000987649) == 0.0009876
    assert found.override(0.0004568) == "optim.lr=0.0004568"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lr=0.1"], "nothing is searched"),
        (["optim.lr=interval(1,0.1)"], "the interval is empty"),
        (["optim.lr=tag(log,interval(0,1))"], "begins at 0 or below"),
        (["optim.lr=tag(cosine,interval(0.1,1))"], "tag cosine has no meaning"),
        (["optim.lr=tag(log,choice(0.1,1))"], "tag log has no meaning"),
        (["model.n_layer=tag(int,interval(1.5,3))"], "whole numbers between 1.5 and 3"),
        (["run.name=a,b"], "run.name cannot be searched"),
        (["optim.lr=0.1,0.2", "optim.lr=0.3,0.4"], "optim.lr stands twice"),
        (["otpim=adamw,muon"], "did you mean optim"),
        (["model=glob(*)"], r"glob\(\) is not understood"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space(["+experiment=smoke", *overrides])
