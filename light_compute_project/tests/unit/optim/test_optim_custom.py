"""An optimizer by its class path: what is refused, the groups it gets, and that it is the class itself that steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from litgpt_core.core.errors import ConfigError
from litgpt_core.doctor.model_checks import build
from litgpt_core.optim.build import build_optimizer, set_learning_rate
from litgpt_core.optim.settings import CustomOptimSettings

NADAM = "torch.optim.NAdam"


def settings(path: str = NADAM, **kwargs: object) -> CustomOptimSettings:
    return CustomOptimSettings(class_path=path, kwargs=kwargs)


def test_the_groups_are_adamws_and_the_class_is_the_one_named() -> None:
    optimizer = build_optimizer(build("MHA"), settings(lr=0.02, weight_decay=0.3, momentum_decay=0.01))
    assert type(optimizer) is torch.optim.NAdam
    decay = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decay == {"matrices": 0.3, "tables": 0.3, "vectors": 0.0}
    assert {group["momentum_decay"] for group in optimizer.param_groups} == {0.01}
    set_learning_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def test_a_step_equals_that_of_the_class_used_directly() -> None:
    ours, theirs = build("MHA"), build("MHA")
    theirs.load_state_dict(ours.state_dict())
    ids = torch.arange(8)[None]
    optimizers = (build_optimizer(ours, settings(lr=0.02)), torch.optim.NAdam(theirs.parameters(), lr=0.02))
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            model(ids).square().mean().backward()
            optimizer.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_rate_and_decay_that_are_not_given_are_the_classs_own() -> None:
    assert (settings().lr, settings().weight_decay) == (2e-3, 0)
    without = build_optimizer(build("MHA"), settings("torch.optim.Rprop", lr=0.1))
    assert not any("weight_decay" in group for group in without.param_groups)


def test_a_class_of_the_users_own_is_found_where_the_command_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_optimizer_for_a_test.py").write_text("import torch\n\n\nclass Own(torch.optim.SGD):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    assert type(build_optimizer(build("MHA"), settings("own_optimizer_for_a_test.Own", lr=0.1))).__name__ == "Own"


@pytest.mark.parametrize(
    ("path", "kwargs", "said"),
    [
        ("???", {}, "optim.class_path=nothing (???)"),
        ("NAdam", {}, "an import path such as torch.optim.Optimizer"),
        ("torch.optm.NAdam", {}, "module torch.optm cannot be imported"),
        ("torch.optim.NAdm", {}, "did you mean NAdam"),
        ("torch.nn.Linear", {}, "a subclass of torch.optim.Optimizer"),
        ("torch.optim.Optimizer", {}, "a subclass of torch.optim.Optimizer"),
        (NADAM, {"lrr": 1.0}, "unknown argument optim.kwargs.lrr of NAdam; did you mean lr"),
        (NADAM, {"params": []}, "optim.kwargs.params cannot be set"),
        (NADAM, {"lr": -1.0}, "optim.kwargs.lr=-1.0"),
        (NADAM, {"lr": math.inf}, "optim.kwargs.lr=inf"),
        (NADAM, {"lr": "fast"}, "optim.kwargs.lr='fast'"),
    ],
)
def test_a_mistake_is_named_when_the_config_is_checked(path: str, kwargs: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(path, **kwargs)
    assert said in str(caught.value)


def test_values_that_the_class_refuses_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="does not take optim"):
        build_optimizer(build("MHA"), settings(betas=[2.0, 0.9]))


def test_a_fused_kernel_is_refused_where_gradients_are_scaled() -> None:
    with pytest.raises(ConfigError, match="loss scaling"):
        build_optimizer(build("MHA"), settings("torch.optim.Adam", fused=True), fused=False)
