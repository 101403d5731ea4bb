"""The modules of a model by layer, with their types."""

from __future__ import annotations

from torch import nn

from litgpt_core.interpret.names import present
from litgpt_core.model.block import Block
from litgpt_core.model.gpt import GPT


def block_of(model: GPT, layer: int) -> Block:
    """One transformer block."""
    block = model.transformer.h[layer]
    assert isinstance(block, Block)
    return block


def attention_projection(model: GPT, layer: int) -> nn.Linear:
    """W_O of all heads, (C, nh * hs_v)."""
    projection = block_of(model, layer).attn.proj
    assert isinstance(projection, nn.Linear)
    return projection


def mlp_projection(model: GPT, layer: int) -> nn.Linear:
    """What the hidden units write, (C, I); of a layer without a mixture of experts."""
    projection = block_of(model, layer).mlp.get_submodule("proj")
    assert isinstance(projection, nn.Linear)
    return projection


def has_neurons(model: GPT, layer: int) -> bool:
    """Whether the layer has one MLP whose hidden units every token uses, and no mixture of experts."""
    return any(kind.name == "neurons" for kind in present(model.config, layer))
