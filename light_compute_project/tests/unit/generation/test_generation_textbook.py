"""`GPT.generate`, the textbook loop: equal to the engine where both are greedy; seeds, top_k and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from litgpt_core.core.errors import ConfigError
from litgpt_core.generation import Engine, SamplingSettings


def test_greedy_equals_the_engine(directory: Path) -> None:
    engine = Engine.from_directory(directory, device="cpu", dtype="32", compile="false")
    model = engine.model
    greedy = SamplingSettings(temperature=0)
    for prompt in ([5, 6, 7], [9]):
        expected = engine.generate(prompt, max_new_tokens=12, sampling=greedy, stop_ids=())
        found = model.generate(torch.tensor([prompt]), 12, temperature=0)[0, len(prompt) :].tolist()
        assert found == list(expected)


def test_seeds_repeat_and_top_k_narrows(directory: Path) -> None:
    model = Engine.from_directory(directory, device="cpu", dtype="32", compile="false").model
    prompts = torch.tensor([[1, 2], [3, 4]])
    first, again, other = (model.generate(prompts, 8, temperature=2.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (2, 10) and torch.equal(first[:, :2], prompts)
    assert torch.equal(model.generate(prompts, 5, top_k=1, seed=3), model.generate(prompts, 5, temperature=0))
    assert torch.equal(model.generate(prompts, 0), prompts)
    assert int(model.generate(prompts, 40, temperature=5.0, seed=1).max()) < model.config.vocab_size


def test_mistakes_are_answered(directory: Path) -> None:
    model = Engine.from_directory(directory, device="cpu", dtype="32", compile="false").model
    for arguments in ({"temperature": -1.0}, {"top_k": 0}):
        with pytest.raises(ConfigError, match="needed"):
            model.generate(torch.tensor([[1]]), 3, **arguments)
    with pytest.raises(ConfigError):
        model.generate(torch.tensor([1, 2]), 3)
