"""Models built by hand whose inner workings are known exactly: what every analysis is tested on.

    bigram           lm_head . wte is a table of log probabilities; heads and MLPs add nothing
    previous_token   learned positions; head 0 of layer 0 attends to the token before
    induction        the two-layer circuit of Elhage et al. 2021: L0H0 writes the previous token next to each token,
                     L1H0 looks for the current token there and copies what it finds
    one_neuron       a unit of the MLP that fires on one token and raises another

All are plain `GPT`s of this project with norms switched off as far as the config allows. The last norm cannot be: the
models are built so that RMSNorm's scale is positive and the same for all positions, or does not matter for the answer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from litgpt_core.interpret.access import attention_projection, block_of
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT

SHARP = 400.0
"""Scores by which a chosen key exceeds the others: its attention weight is 1 to float32's precision."""


def _empty(**fields: Any) -> GPT:
    """A model of zeros without norms in its blocks, MLPs included."""
    settings: dict[str, Any] = {
        "norm_class_name": "RMSNorm", "norm_1": False, "norm_2": False, "bias": False, "parallel_residual": False,
        "padding_multiple": 1, "intermediate_size": 4, "position_embedding": "learned", "attention_scores_scalar": 1,
    }  # fmt: skip
    model = GPT(GPTConfig(**(settings | fields)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.get_parameter("weight").fill_(1.0)
    return model.eval().requires_grad_(False)


def bigram(log_probs: Tensor, *, n_layer: int = 2) -> GPT:
    """A model that predicts by a table: (V, V) log probabilities of the next token (column) given the current (row).

    The embedding is one-hot in the first V dimensions and constant in one more, so that every residual stream has the
    same norm; the head undoes the last norm's scale.
    """
    vocabulary = len(log_probs)
    width = 2 * math.ceil((vocabulary + 1) / 2)
    model = _empty(n_layer=n_layer, n_head=2, n_embd=width, block_size=32, vocab_size=vocabulary, norm_eps=1e-12)
    model.transformer.wte.weight[:, :vocabulary] = torch.eye(vocabulary)
    model.lm_head.weight[:, :vocabulary] = log_probs.mT / math.sqrt(
        width
    )  # a one-hot row leaves ln_f times sqrt(width)
    return model


def previous_token(*, vocabulary: int = 16, length: int = 24) -> GPT:
    """One layer, two heads: head 0 attends from each position to the one before, head 1 to all alike.

    Dimensions: [token | position]. The query of position p is the one-hot of p - 1.
    """
    width = 2 * (vocabulary + length)
    model = _empty(n_layer=1, n_head=2, n_embd=width, block_size=length, vocab_size=vocabulary)
    positions = slice(vocabulary, vocabulary + length)
    _one_hot(model, vocabulary, length)
    q, k, _ = _qkv(model, 0, head=0)
    q[:length, positions] = SHARP * torch.eye(length).roll(-1, dims=0)  # row p - 1 reads position p
    q[length - 1] = 0  # position 0 has none before it
    k[:length, positions] = torch.eye(length)
    model.lm_head.weight[:, :vocabulary] = torch.eye(vocabulary)
    return model


def induction(*, vocabulary: int = 16, length: int = 24) -> GPT:
    """Two layers of two heads; after A B ... A it predicts B.

    Dimensions: [token | position | token before | prediction], the last two written by L0H0 and L1H0. Head 1 of each
    layer has weights of zero: it attends to all alike and writes nothing.
    """
    v, n = vocabulary, length
    width = 2 * (3 * v + n)
    model = _empty(n_layer=2, n_head=2, n_embd=width, block_size=n, vocab_size=v)
    token, position = slice(0, v), slice(v, v + n)
    before, prediction = slice(v + n, 2 * v + n), slice(2 * v + n, 3 * v + n)
    _one_hot(model, v, n)
    q, k, values = _qkv(model, 0, head=0)
    q[:n, position] = SHARP * torch.eye(n).roll(-1, dims=0)
    q[n - 1] = 0
    k[:n, position] = torch.eye(n)
    values[:v, token] = torch.eye(v)
    _output(model, 0, head=0)[before, :v] = torch.eye(v)
    q, k, values = _qkv(model, 1, head=0)
    q[:v, token] = SHARP * torch.eye(v)
    k[:v, before] = torch.eye(v)
    k[:v, v] = -1.0  # position 0 has no token before it, and finds itself
    values[:v, token] = torch.eye(v)
    _output(model, 1, head=0)[prediction, :v] = torch.eye(v)
    model.lm_head.weight[:, prediction] = 1.3 * torch.eye(v)  # sure of a copy; wrong first times do not outweigh it
    return model


def one_neuron(*, fires_on: int, raises: int, vocabulary: int = 16) -> GPT:
    """One layer whose unit 2 is positive on one token and 0 (to gelu's precision) on all others, and raises another."""
    width = 2 * vocabulary
    model = _empty(n_layer=1, n_head=2, n_embd=width, block_size=32, vocab_size=vocabulary, mlp_class_name="GptNeoxMLP")
    model.transformer.wte.weight[:, :vocabulary] = torch.eye(vocabulary)
    mlp = block_of(model, 0).mlp
    mlp.get_parameter("fc.weight")[2, fires_on] = 8.0
    mlp.get_parameter("proj.weight")[vocabulary + raises, 2] = 1.0
    model.lm_head.weight[:, vocabulary:] = torch.eye(vocabulary)
    return model


def _one_hot(model: GPT, vocabulary: int, length: int) -> None:
    """Tokens in the first dimensions, positions in the next."""
    assert model.transformer.wpe is not None
    model.transformer.wte.weight[:, :vocabulary] = torch.eye(vocabulary)
    model.transformer.wpe.weight[:, vocabulary : vocabulary + length] = torch.eye(length)


def _qkv(model: GPT, layer: int, *, head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of one head's rows of the query, key and value weights, (hs, C) each."""
    attention = block_of(model, layer).attn
    weight: Tensor = attention.get_parameter("qkv.weight")
    nh, hs = model.config.n_head, model.config.head_size
    rows = weight.view(3, nh, hs, model.config.n_embd)
    return rows[0, head], rows[1, head], rows[2, head]


def _output(model: GPT, layer: int, *, head: int) -> Tensor:
    """A view of one head's columns of the projection, (C, hs)."""
    size = model.config.head_size
    return attention_projection(model, layer).weight[:, head * size : (head + 1) * size]
