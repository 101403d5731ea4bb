"""From a directory to a model that computes what the saved one did."""

from pathlib import Path

import pytest
import torch

from litgpt_core.checkpoint import load_into, load_model, load_weights, save_directory
from litgpt_core.core.errors import CheckpointError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 20, "padding_multiple": 4}
IDX = torch.arange(12).view(1, 12)


def made(tmp_path: Path, tokenizer_dir: Path, **settings: object) -> tuple[GPT, Path]:
    model = GPT(GPTConfig(**(SMALL | settings))).eval()
    initialize(model, seed=1)
    path = save_directory(
        tmp_path / "c",
        weights=model.state_dict(),
        config=model.config,
        tokenizer_dir=tokenizer_dir,
        hyperparameters={},
    )
    return model, path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"position_embedding": "learned"},
        {"tie_embeddings": True},
        {"rope_local_base_freq": 100.0, "rope_indices": [0, 1], "norm_class_name": "RMSNorm", "bias": False},
        {"name": "Gemma-x", "norm_class_name": "RMSNorm", "mlp_class_name": "GemmaMLP", "scale_embeddings": True},
    ],
)
def test_a_loaded_model_gives_the_same_logits(tmp_path, tokenizer_dir, settings):
    model, path = made(tmp_path, tokenizer_dir, **settings)
    loaded = load_model(path)
    assert not loaded.training
    assert not [name for name, value in [*loaded.named_parameters(), *loaded.named_buffers()] if value.is_meta]
    with torch.no_grad():
        assert torch.equal(loaded(IDX), model(IDX))
    assert loaded.num_parameters() == model.num_parameters()


def test_tied_weights_stay_tied_and_are_stored_once(tmp_path, tokenizer_dir):
    _, path = made(tmp_path, tokenizer_dir, tie_embeddings=True)
    assert {"lm_head.weight", "transformer.wte.weight"} <= set(load_weights(path))
    loaded = load_model(path)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert load_model(path, dtype=torch.bfloat16).lm_head.weight.dtype == torch.bfloat16


def test_bf16_keeps_the_rope_frequencies_in_fp32(tmp_path, tokenizer_dir):
    model, path = made(tmp_path, tokenizer_dir)
    loaded = load_model(path, dtype=torch.bfloat16)
    assert loaded.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(loaded.transformer.rope.theta, model.transformer.rope.theta)
    assert (loaded(IDX).float() - model(IDX)).abs().max() < 0.05


def test_training_a_loaded_model_does_not_write_into_the_file(tmp_path, tokenizer_dir):
    _, path = made(tmp_path, tokenizer_dir)
    before = (path / "lit_model.pth").read_bytes()
    loaded = load_model(path)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert (path / "lit_model.pth").read_bytes() == before


def test_weights_of_another_model_are_refused_by_name(tmp_path, tokenizer_dir):
    model, path = made(tmp_path, tokenizer_dir)
    weights = model.state_dict()
    weights["extra.weight"] = weights.pop("lm_head.weight")
    weights["transformer.ln_f.weight"] = torch.ones(3)
    torch.save(weights, path / "lit_model.pth")
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    for part in (
        "missing 1 (lm_head.weight)",
        "unexpected 1 (extra.weight)",
        "transformer.ln_f.weight (3,) instead of (16,)",
    ):
        assert part in caught.value.given
    with pytest.raises(CheckpointError, match="do not fit the model"):
        load_into(model, path)


def test_load_into_copies_and_a_tied_model_refuses_untied_weights(tmp_path, tokenizer_dir):
    model, path = made(tmp_path, tokenizer_dir)
    other = GPT(model.config)
    initialize(other, seed=2)
    load_into(other, path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="differ"):
        load_into(GPT(GPTConfig(**SMALL, tie_embeddings=True)), path)


def test_a_broken_model_config_is_named(tmp_path, tokenizer_dir):
    _, path = made(tmp_path, tokenizer_dir)
    (path / "model_config.yaml").write_text("n_layr: 2\n")
    with pytest.raises(CheckpointError, match="n_layr"):
        load_model(path)
