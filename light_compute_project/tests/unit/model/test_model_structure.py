"""The structure is that of the real model: names, shapes, order; and what reads it follows a new field by itself."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from litgpt_core.core.errors import CheckpointError
from litgpt_core.doctor.model_checks import KINDS, build, shipped_configs
from litgpt_core.export.huggingface.families import choose
from litgpt_core.generation.kernel_support import structure_obstacle
from litgpt_core.model import GPT, GPTConfig
from litgpt_core.model import block as block_module
from litgpt_core.model import structure as structure_module
from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.cost import count_parameters, matmul_parameters
from litgpt_core.model.init import initialize
from litgpt_core.model.lora import LoRALinear, add_adapters
from litgpt_core.model.optional_settings import LoRASettings
from litgpt_core.model.structure import LinearPart, block_parameters, outer_parameters, structure
from litgpt_core.planning.memory import memory
from litgpt_core.planning.recipe import DeviceLayout, Recipe

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


def test_layers_say_what_they_read_and_where_their_result_goes() -> None:
    config = GPTConfig.from_name("Llama-3.2-1B", n_layer=1)
    described = {linear.name: linear for linear in structure(config).layers[0].linears}
    assert {name: linear.reads for name, linear in described.items()} == {
        "attn.qkv": "norm_1",
        "attn.proj": "attention",
        "mlp.fc_1": "norm_2",
        "mlp.fc_2": "norm_2",
        "mlp.proj": "hidden",
    }
    assert [name for name, linear in described.items() if linear.adds_to_residual] == ["attn.proj", "mlp.proj"]
    assert described["attn.qkv"].row_groups == (("query", 2048), ("key", 512), ("value", 512))


# ---- a new field: the config, the module and the structure know it, and nothing else has to ----


@dataclass(kw_only=True)
class GatedConfig(GPTConfig):
    """GPTConfig with a field that upstream does not have: attention outputs are gated."""

    attn_gate: bool = False


class GatedAttention(CausalSelfAttention):
    """The module of the new field."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.gate = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, *others: Tensor | None) -> Tensor:
        return super().forward(x, *others) * self.gate(x).sigmoid()


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> GPTConfig:
    known = structure_module._attention

    def attention(config: GPTConfig) -> list[LinearPart | structure_module.NormPart]:
        width = config.n_embd
        gate = LinearPart(name="attn.gate", rows=width, columns=width, bias=False, role="attention", reads="norm_1")
        return [*known(config), gate]

    monkeypatch.setattr(structure_module, "_attention", attention)
    monkeypatch.setattr(block_module, "CausalSelfAttention", GatedAttention)
    return GatedConfig(n_layer=2, n_head=2, n_embd=16, block_size=16, vocab_size=32, attn_gate=True)


def test_a_new_layer_is_counted_planned_and_initialised(gated: GPTConfig) -> None:
    model = GPT(gated)
    assert sorted(listed(gated)) == sorted(real(gated))
    assert count_parameters(gated) == model.num_parameters()
    assert matmul_parameters(gated) == sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    assert memory(Recipe(model=gated, precision="32-true"), DeviceLayout()).weights == 4 * model.num_parameters()
    initialize(model, seed=0)
    assert model.transformer.h[0].attn.gate.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_a_new_layer_gets_adapters_and_is_refused_by_what_does_not_compute_it(gated: GPTConfig) -> None:
    model = GPT(gated)
    assert "GatedAttention" in str(structure_obstacle(model)) or "attn_gate" in str(structure_obstacle(model))
    with pytest.raises(CheckpointError, match="attn_gate"):
        choose(gated)
    add_adapters(model, LoRASettings(targets=["projection"]), seed=0)
    assert isinstance(model.transformer.h[1].attn.gate, LoRALinear)
