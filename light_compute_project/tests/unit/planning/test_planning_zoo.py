"""The shipped models side by side: numbers of their configs, records of `metrics/`, commands that compose."""

from __future__ import annotations

import itertools
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

from litgpt_core import cli
from litgpt_core.config.compose import load
from litgpt_core.core.errors import ConfigError
from litgpt_core.model.gpt import GPT
from litgpt_core.planning.zoo import find, page, records, zoo

MODELS = {model.name: model for model in zoo()}


def test_the_zoo_reaches_from_a_tenth_of_a_million_to_a_billion() -> None:
    sizes = [model.parameters for model in zoo()]
    assert sizes == sorted(sizes) and sizes[0] < 2e5 and sizes[-1] > 1e9
    assert all(bigger / smaller < 10 for smaller, bigger in itertools.pairwise(sizes)), "no gap of a decade"


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_of_the_model_and_the_command_composes(name: str) -> None:
    model = MODELS[name]
    with torch.device("meta"):
        assert GPT(model.config).num_parameters() == model.parameters
    assert model.weight_bytes < model.training_bytes
    assert model.flops == pytest.approx(3 * model.decode_flops)
    words = shlex.split(model.command)
    arguments = words[words.index("train") + 1 :]
    assert load(arguments).model.build(vocab_size=256).n_layer == model.config.n_layer
    assert model.description and not model.description.endswith(":")


def test_measured_results_are_those_of_metrics_best_first() -> None:
    assert find("baseline").measured[0].record["n_params"] == find("baseline").parameters
    best = [one.val_bpb for one in find("shakespeare_best").measured]
    assert len(best) == 3 and best == sorted(best)
    assert not find("gpt2_774m").measured
    assert {one.experiment for one in records()} <= {name for model in zoo() for name in model.experiments}


def test_a_vocabulary_can_be_counted_with() -> None:
    assert find("tiny", 1000).parameters > find("tiny").parameters
    assert any("1,000 tokens" in line for line in page(find("tiny", 1000)))


def test_the_command_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == cli.main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    measured = find("baseline").measured[0].val_bpb
    assert all(name in listed for name in MODELS) and f"{measured:.3f}" in listed
    assert cli.main(["models", "show", "baseline"]) == 0
    shown = capsys.readouterr().out
    assert (
        "4,066,048" in shown and f"{measured:.4f} bits per byte" in shown and "lcp train +experiment=baseline" in shown
    )
    with pytest.raises(ConfigError, match="did you mean baseline"):
        cli.main(["models", "show", "basline"])
    with pytest.raises(ConfigError, match="lcp models show baseline"):
        cli.main(["models", "show"])


def test_the_example_builds_what_it_lists(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).resolve().parents[3] / "examples" / "04_model_zoo.py"
    monkeypatch.setattr(sys, "argv", [str(example), "tiny"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(example), run_name="__main__")
    assert not end.value.code
    assert "logits of shape (1, 8, 256)" in capsys.readouterr().out
