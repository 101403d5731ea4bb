"""GPT-2's four sizes: the published number of parameters, and every weight's name and shape, on the meta device.

Logits of weights in the Hugging Face layout are compared where such weights are read, not here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from litgpt_core.doctor.model_checks import shipped_configs
from litgpt_core.model import GPT, GPTConfig
from litgpt_core.model.cost import count_parameters

PUBLISHED = {
    "gpt2_124m": (124_439_808, 12, 12, 768),
    "gpt2_355m": (354_823_168, 24, 16, 1024),
    "gpt2_774m": (774_030_080, 36, 20, 1280),
    "gpt2_1558m": (1_557_611_200, 48, 25, 1600),
}
"""Parameters with a tied table of 50,257 rows counted once; layers, heads, width (Radford et al. 2019, table 2)."""

VOCABULARY, POSITIONS = 50257, 1024


def original(file: str) -> GPTConfig:
    """The shipped model with the table as published, without padding."""
    config = shipped_configs(vocab_size=VOCABULARY)[file]
    return replace(config, padding_multiple=1, padded_vocab_size=None)  # type: ignore[arg-type]


def on_meta(config: GPTConfig, monkeypatch: pytest.MonkeyPatch) -> GPT:
    for layer in (torch.nn.Linear, torch.nn.Embedding):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: None)  # most of the time, for nothing
    with torch.device("meta"):
        return GPT(config)


def layer_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """One block by hand: two norms, and four linear layers with biases."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, rows, columns in (
        ("attn.qkv", 3 * width, width),
        ("attn.proj", width, width),
        ("mlp.fc", 4 * width, width),
        ("mlp.proj", width, 4 * width),
    ):
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    for name in ("norm_1", "norm_2"):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


@pytest.mark.parametrize("file", PUBLISHED)
def test_parameters_are_as_published(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    published, n_layer, n_head, n_embd = PUBLISHED[file]
    config = original(file)
    assert (config.n_layer, config.n_head, config.n_embd) == (n_layer, n_head, n_embd)
    assert (config.head_size, config.block_size, config.padded_vocab_size) == (64, POSITIONS, VOCABULARY)
    model = on_meta(config, monkeypatch)
    assert model.num_parameters() == sum(p.numel() for p in model.parameters()) == published
    assert count_parameters(config) == published
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize("file", PUBLISHED)
def test_names_and_shapes_are_those_counted_by_hand(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, n_layer, _, width = PUBLISHED[file]
    expected: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (VOCABULARY, width),
        "transformer.wte.weight": (VOCABULARY, width),
        "transformer.wpe.weight": (POSITIONS, width),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
    }
    for layer in range(n_layer):
        expected |= {f"transformer.h.{layer}.{name}": shape for name, shape in layer_shapes(width).items()}
    found = on_meta(original(file), monkeypatch).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == expected


RENAMED = {"attn.c_attn": "attn.qkv", "attn.c_proj": "attn.proj", "mlp.c_fc": "mlp.fc", "mlp.c_proj": "mlp.proj"}
"""Hugging Face's linear layers, which hold their weights transposed."""


def renamed(name: str, shape: torch.Size) -> tuple[str, tuple[int, ...]]:
    """A tensor of `GPT2LMHeadModel` under the name and in the shape that it has here."""
    for theirs, ours in RENAMED.items():
        if theirs in name:
            return name.replace(theirs, ours), tuple(reversed(shape))
    return name.replace(".ln_1.", ".norm_1.").replace(".ln_2.", ".norm_2."), tuple(shape)


@pytest.mark.parametrize("file", PUBLISHED)
def test_names_and_shapes_correspond_to_hugging_faces(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2 = pytest.importorskip("transformers.models.gpt2.modeling_gpt2")
    configuration = pytest.importorskip("transformers.models.gpt2.configuration_gpt2")
    _, n_layer, n_head, n_embd = PUBLISHED[file]
    with torch.device("meta"):
        theirs = gpt2.GPT2LMHeadModel(configuration.GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd))
    assert sum(p.numel() for p in theirs.parameters()) == PUBLISHED[file][0]
    expected = dict(renamed(name, tensor.shape) for name, tensor in theirs.state_dict().items())
    found = on_meta(original(file), monkeypatch).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == expected
