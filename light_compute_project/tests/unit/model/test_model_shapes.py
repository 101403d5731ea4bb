"""The list of parameters is that of the real model: names, shapes, order."""

from __future__ import annotations

import pytest
import torch

from litgpt_core.doctor.model_checks import KINDS, build, shipped_configs
from litgpt_core.model import GPT, GPTConfig
from litgpt_core.model.shapes import block_parameters, outer_parameters

REGISTRY = (
    "pythia-14m",
    "Llama-3.2-1B",
    "OLMo-1B-hf",
    "OLMo-2-1124-7B",
    "Gemma-2-2b",
    "gemma-3-1b-it",
    "phi-2",
    "falcon-7b",
)
MOE = ("Mixtral-8x7B-v0.1", "Qwen3-30B-A3B")


def listed(config: GPTConfig) -> list[tuple[str, tuple[int, ...]]]:
    outer = [(p.name, p.shape) for p in outer_parameters(config)]
    before = [pair for pair in outer if not pair[0].startswith("transformer.ln_f")]
    blocks = [
        (f"transformer.h.{layer}.{p.name}", p.shape)
        for layer in range(config.n_layer)
        for p in block_parameters(config, layer)
    ]
    return [*before, *blocks, *outer[len(before) :]]


def real(config: GPTConfig) -> list[tuple[str, tuple[int, ...]]]:
    with torch.device("meta"):
        model = GPT(config)
    names = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    if config.tie_embeddings:  # the table goes by the name of the head, which comes first
        table, (_, *positions) = ("transformer.wte.weight", names[0][1]), names[: 1 + config.lm_head_bias]
        names = [*positions, table, *names[1 + config.lm_head_bias :]]
    return names


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("biases", [False, True])
def test_every_kind(kind: str, biases: bool) -> None:
    config = build(kind, bias=biases, attn_bias=biases, lm_head_bias=biases).config
    assert listed(config) == real(config)


def test_every_shipped_config() -> None:
    for name, config in shipped_configs(vocab_size=1000).items():
        assert listed(config) == real(config), name


@pytest.mark.parametrize("name", [*REGISTRY, *MOE])
def test_models_of_the_registry(name: str) -> None:
    config = GPTConfig.from_name(name, n_layer=2)
    assert listed(config) == real(config)
