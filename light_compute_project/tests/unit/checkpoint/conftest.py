"""A small checkpoint to save: random weights, a real model config, and tokenizer files that nobody reads here."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from litgpt_core.checkpoint import save_directory
from litgpt_core.model.config import GPTConfig


@pytest.fixture
def config() -> GPTConfig:
    return GPTConfig(name="tiny", n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=20, padding_multiple=4)


@pytest.fixture
def tokenizer_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "notes.txt").write_text("not a tokenizer file")
    return folder


@pytest.fixture
def save(config: GPTConfig, tokenizer_dir: Path) -> Callable[..., Path]:
    """`save(path, value=1.0, **more)` writes a checkpoint whose only weight is filled with `value`."""

    def _save(path: Path, *, value: float = 1.0, **more: object) -> Path:
        arguments = {
            "weights": {"w": torch.full((4, 5), value)},
            "config": config,
            "tokenizer_dir": tokenizer_dir,
            "hyperparameters": {"lr": 0.001},
        }
        return save_directory(path, **(arguments | more))

    return _save
