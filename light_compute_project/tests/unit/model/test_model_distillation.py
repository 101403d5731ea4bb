"""The loss of distillation: its parts, its chunks, and which tokens count."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.core.errors import ConfigError
from litgpt_core.model.distillation import DIVERGENCES, distillation_loss
from litgpt_core.model.optional_settings import DistillSettings

V, OURS, THEIRS = 11, 14, 12
"""Tokens, and the padded rows of the two heads."""


@pytest.fixture
def parts() -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(OURS, 6, generator=g), torch.randn(THEIRS, 9, generator=g)
    targets = torch.randint(V, (2, 5), generator=g)
    targets[0, 1:4] = -100
    return {
        "hidden": torch.randn(2, 5, 6, generator=g, requires_grad=True),
        "head": lambda x: functional.linear(x, ours),
        "source": torch.randn(2, 5, 9, generator=g),
        "source_head": lambda x: functional.linear(x, theirs),
        "targets": targets,
        "vocab_size": V,
    }


def by_hand(parts: dict[str, Any], settings: DistillSettings) -> Tensor:
    """Token by token, as the formula says."""
    total, n = torch.zeros(()), 0
    ours, theirs = parts["head"](parts["hidden"]), parts["source_head"](parts["source"])
    for place in (parts["targets"] != -100).nonzero():
        z, t = ours[tuple(place)], theirs[tuple(place)]
        q, p = (each[:V].div(settings.temperature).log_softmax(-1) for each in (z, t))
        text = functional.cross_entropy(z[None], parts["targets"][tuple(place)][None])
        scaled = settings.temperature**2 * DIVERGENCES[settings.loss](q, p)
        total, n = total + settings.weight * scaled + (1 - settings.weight) * text, n + 1
    return total / n


@pytest.mark.parametrize("loss", ["forward", "reverse", "jsd"])
@pytest.mark.parametrize("chunk", [0, 3])
def test_the_loss_is_the_formula_and_chunks_do_not_change_it(parts: dict[str, Any], loss: Any, chunk: int):
    settings = DistillSettings(teacher="x", loss=loss, weight=0.3, temperature=2.0)
    found, expected = distillation_loss(**parts, settings=settings, chunk_size=chunk), by_hand(parts, settings)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    one, two = (torch.autograd.grad(each, parts["hidden"], retain_graph=True)[0] for each in (found, expected))
    assert torch.allclose(one, two, atol=1e-6) and not one[0, 1:4].any()


def test_the_teachers_own_copy_has_nothing_to_learn(parts: dict[str, Any]):
    same = {**parts, "source": parts["hidden"].detach(), "source_head": parts["head"]}
    for loss in ("forward", "reverse", "jsd"):
        settings = DistillSettings(teacher="x", loss=loss, weight=1.0)
        assert abs(distillation_loss(**same, settings=settings).item()) < 1e-6


def test_a_count_of_the_whole_step_replaces_that_of_the_micro_batch(parts: dict[str, Any]):
    settings = DistillSettings(teacher="x")
    counted = distillation_loss(**parts, settings=settings, count=torch.tensor(14.0))
    assert counted.item() == pytest.approx(distillation_loss(**parts, settings=settings).item() / 2)


def test_impossible_settings_are_reported_together():
    with pytest.raises(ConfigError, match=r"distill.loss=kl.*distill.weight=0.*distill.temperature=-1"):
        DistillSettings(loss="kl", weight=0.0, temperature=-1.0)  # type: ignore[arg-type]
