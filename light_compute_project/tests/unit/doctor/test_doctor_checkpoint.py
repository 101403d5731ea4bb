"""`lcp smoke MODEL`: a good checkpoint passes every check, and each fault fails the check that is about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.commands.smoke_test import main
from litgpt_core.doctor.checkpoint_checks import CheckpointChecks
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32, "padding_multiple": 1}


def saved(folder: Path, *, vocab_size: int = 256, spoil: Callable[[GPT], object] = lambda model: None) -> Path:
    model = GPT(GPTConfig(**SHAPE, vocab_size=vocab_size)).eval()
    initialize(model, seed=1)
    with torch.no_grad():
        spoil(model)
    words = folder / "tokenizer"
    words.mkdir()
    tokenizers.train(tokenizers.ByteSettings(), []).save(words)
    return save_directory(
        folder / "runs" / "a" / "final",
        weights=model.state_dict(),
        config=model.config,
        tokenizer_dir=words,
        hyperparameters={},
    )


def failed(directory: Path) -> dict[str, str]:
    return {result.name: result.detail for result in CheckpointChecks(directory).run() if not result.passed}


def test_a_good_checkpoint_passes_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["a"]) == 0
    said = capsys.readouterr().out
    assert "6 of 6 passed" in said and "runs/a/final" in said and "3 of 3 texts" in said


def test_weights_that_are_not_finite_are_found(tmp_path: Path) -> None:
    found = failed(saved(tmp_path, spoil=lambda model: model.lm_head.weight.fill_(float("nan"))))
    assert "not finite" in found["logits"]


def test_changed_bytes_are_found(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    (directory / "tokenizer_config.json").write_text("{}")
    assert "tokenizer_config.json" in failed(directory)["files"]


def test_a_tokenizer_with_more_ids_than_the_model_is_found(tmp_path: Path) -> None:
    assert "the tokenizer has 256 ids, the model 200" in failed(saved(tmp_path, vocab_size=200))["tokenizer"]


def test_a_model_that_looks_ahead_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, original = saved(tmp_path), GPT.forward

    def leaking(self: GPT, idx: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        return original(self, idx, *rest, **more) + idx[:, -1:, None].float()

    monkeypatch.setattr(GPT, "forward", leaking)
    assert {"causal mask", "KV cache"} <= set(failed(directory))
