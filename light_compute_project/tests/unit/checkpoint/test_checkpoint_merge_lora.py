"""Adapters that travel alone become a plain directory again, or it is said what is missing."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from litgpt_core.checkpoint import is_tied, load_model, save_directory
from litgpt_core.checkpoint.layout import ADAPTER
from litgpt_core.checkpoint.merge_lora import find_adapters, merge_directory
from litgpt_core.core.errors import CheckpointError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.lora import adapters, add_adapters
from litgpt_core.model.optional_settings import LoRASettings

IDX = torch.arange(12).view(1, 12)


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def trained(request: Any, tmp_path: Path, config: GPTConfig, tokenizer_dir: Path) -> GPT:
    """A model with trained adapters; its base is at `base`, the adapters alone at `run/lora`."""
    model = GPT(dataclasses.replace(config, tie_embeddings=request.param)).eval()
    initialize(model, seed=1)
    shared: dict[str, Any] = {"config": model.config, "tokenizer_dir": tokenizer_dir}
    save_directory(tmp_path / "base", weights=model.state_dict(), hyperparameters={}, **shared)
    settings = LoRASettings(r=2, alpha=3, targets=["query", "mlp"])
    add_adapters(model, settings, seed=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    hyperparameters = {**settings.to_litgpt(), "checkpoint_dir": str(tmp_path / "base")}
    weights = adapters(model)
    save_directory(
        tmp_path / "run" / "lora", weights=weights, weights_name=ADAPTER, hyperparameters=hyperparameters, **shared
    )
    return model


@torch.no_grad()
def test_the_merged_directory_computes_what_the_adapted_model_does(trained: GPT, tmp_path: Path) -> None:
    made = merge_directory(tmp_path / "run", tmp_path / "out")
    loaded = load_model(made)
    torch.testing.assert_close(loaded(IDX), trained(IDX), atol=1e-5, rtol=1e-4)
    assert (loaded(IDX) - load_model(tmp_path / "base")(IDX)).abs().max() > 1e-3
    assert is_tied(made) is trained.config.tie_embeddings
    assert {p.name for p in made.iterdir()} >= {"lit_model.pth", "model_config.yaml", "tokenizer.json"}
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["lora"], "what was read stays as it is"


def test_a_base_model_that_has_moved_is_an_error(trained: GPT, tmp_path: Path) -> None:
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="--base CHECKPOINT"):
        merge_directory(tmp_path / "run", tmp_path / "out")
    assert merge_directory(tmp_path / "run", tmp_path / "out", base=tmp_path / "elsewhere").is_dir()


def test_refusals(trained: GPT, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no adapters"):
        merge_directory(tmp_path / "base", tmp_path / "out")
    with pytest.raises(CheckpointError, match="does not exist"):
        find_adapters(tmp_path / "absent")
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="--force"):
        merge_directory(tmp_path / "run", tmp_path / "out")
    assert merge_directory(tmp_path / "run" / "lora" / ADAPTER, tmp_path / "out", force=True).is_dir()
    for source in (tmp_path / "base", tmp_path / "run" / "lora"):
        with pytest.raises(CheckpointError, match="is or contains the source"):
            merge_directory(tmp_path / "run", source, force=True)
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"thesis\.txt was not written by this project"):
        merge_directory(tmp_path / "run", tmp_path / "out", force=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    file = tmp_path / "run" / "lora" / "hyperparameters.yaml"
    hyperparameters = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**hyperparameters, "lora_r": 5}))
    with pytest.raises(CheckpointError, match="do not fit"):
        merge_directory(tmp_path / "run", tmp_path / "other")
    file.write_text("seed: 1\n")
    with pytest.raises(CheckpointError, match="names no adapter"):
        merge_directory(tmp_path / "run", tmp_path / "other")
    shutil.rmtree(tmp_path / "run")
