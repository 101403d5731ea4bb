"""The checks of a GPU, rehearsed on the CPU; and each notices what it is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.doctor import gpu_checks
from litgpt_core.doctor.gpu_checks import gpu_to_check, run_gpu_checks
from litgpt_core.doctor.results import CheckFailed
from litgpt_core.model.gpt import GPT


def test_all_checks_pass_on_a_cpu() -> None:
    results = list(run_gpu_checks("cpu"))
    assert [result.name for result in results if not result.passed] == [], results
    assert len(results) == 8 and all(result.detail for result in results)


def test_a_device_that_is_not_here_is_refused_with_the_rehearsal() -> None:
    assert gpu_to_check("cpu") == "cpu"
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        with pytest.raises(EnvironmentProblem, match="--device cpu"):
            gpu_to_check("auto")


def wrong_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second model of two, which stands for the one on the GPU, has slightly other logits."""
    calls: list[int] = []
    head = GPT.head

    def other(self: GPT, hidden: Tensor) -> Tensor:
        calls.append(1)
        return head(self, hidden) * (1.0 if len(calls) < 4 else 1.01)

    monkeypatch.setattr(GPT, "head", other)


def test_numbers_that_differ_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_once(monkeypatch)
    with pytest.raises(CheckFailed, match="differs by"):
        gpu_checks.check_numbers("cpu", dtype=torch.float32)


def test_dropout_that_does_not_come_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_checks, "set_random_state", lambda state: None)
    with pytest.raises(CheckFailed, match="after the resume"):
        gpu_checks.check_resume("cpu")


def test_other_tokens_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    sample = gpu_checks.sample

    def other(*arguments: object, **options: object) -> list[int]:
        drawn.append(1)
        tokens = sample(*arguments, **options)  # type: ignore[arg-type]
        return [0] * len(tokens) if len(drawn) > 12 else tokens

    monkeypatch.setattr(gpu_checks, "sample", other)
    with pytest.raises(CheckFailed, match="instead of"):
        gpu_checks.check_decoding("cpu")
