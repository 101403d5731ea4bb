"""Other weights of the same function: a permutation, and a rotation of the residual stream.

permute   residual channels, the hidden units of every MLP and the value dimensions of every group of heads are
          shuffled. Weights that were rounded in groups of 32 are on no grid of such groups afterwards.
rotate    x -> x R with R orthogonal: RMSNorm without weights commutes with it, so norm weights go into the layers that
          read them, writers get rows R^T W and readers columns W R. R is block-diagonal: Hadamard matrices of the
          largest power of two that divides the width, times random signs (QuaRot, arXiv 2404.00456). Outliers of one
          channel are spread over all of its block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litgpt_core.compression.scaling import divide_norm
from litgpt_core.compression.state import WorkingModel
from litgpt_core.core.errors import ConfigError
from litgpt_core.model.block import Block
from litgpt_core.model.norm import RMSNorm
from litgpt_core.model.structure import BlockStructure, LinearPart


@torch.no_grad()
def permute_model(work: WorkingModel, *, seed: int) -> None:
    """Shuffle in place; see the module."""
    generator = torch.Generator().manual_seed(seed)
    c, transformer = work.model.config, work.model.transformer
    if c.latent_attention is not None:
        raise ConfigError("permute: this model has latent attention.", needed="attention with one qkv layer")
    order = torch.randperm(c.n_embd, generator=generator)
    tables = [transformer.wte.weight] + ([] if transformer.wpe is None else [transformer.wpe.weight])
    if not work.tied:
        tables.append(work.model.lm_head.weight)
    for table in tables:
        table.copy_(table[:, order])
    _permute_norm(transformer.ln_f, order)
    for layer in work.parts.layers:
        for part in layer.linears:
            linear = work.linear(layer.path(part.name))
            if part.reads in ("norm_1", "norm_2"):
                linear.weight.copy_(linear.weight[:, order])
            if part.adds_to_residual:
                _permute_rows(linear, order)
        for norm in layer.norms:
            if norm.size == c.n_embd and norm.name.startswith(("norm_", "post_")):
                _permute_norm(work.model.get_submodule(layer.path(norm.name)), order)
        _permute_hidden(work, layer, generator)
        _permute_values(work, layer, generator)


def _permute_rows(linear: nn.Linear, order: Tensor) -> None:
    linear.weight.copy_(linear.weight[order])
    if linear.bias is not None:
        linear.bias.copy_(linear.bias[order])


def _permute_norm(norm: nn.Module, order: Tensor) -> None:
    for name in ("weight", "bias"):
        if isinstance(vector := getattr(norm, name, None), Tensor):
            vector.copy_(vector[order])


def _permute_hidden(work: WorkingModel, layer: BlockStructure, generator: torch.Generator) -> None:
    down = [part for part in layer.linears if part.role == "mlp" and part.adds_to_residual]
    for part in down:
        order = torch.randperm(part.columns, generator=generator)
        linear = work.linear(layer.path(part.name))
        linear.weight.copy_(linear.weight[:, order])
        prefix = part.name.rpartition(".")[0]
        for up in layer.linears:
            if up.name.startswith(f"{prefix}.fc"):
                _permute_rows(work.linear(layer.path(up.name)), order)


def _permute_values(work: WorkingModel, layer: BlockStructure, generator: torch.Generator) -> None:
    c = work.model.config
    qkv, proj = (work.linear(layer.path(f"attn.{name}")) for name in ("qkv", "proj"))
    first = (c.n_head + c.n_query_groups) * c.head_size
    rows, columns = torch.arange(qkv.out_features), torch.arange(proj.in_features)
    per_group = c.n_head // c.n_query_groups
    for group in range(c.n_query_groups):
        order = torch.randperm(c.head_size, generator=generator)
        begin = first + group * c.head_size
        rows[begin : begin + c.head_size] = begin + order
        for head in range(group * per_group, (group + 1) * per_group):
            columns[head * c.head_size : (head + 1) * c.head_size] = head * c.head_size + order
    _permute_rows(qkv, rows)
    proj.weight.copy_(proj.weight[:, columns])


def hadamard(width: int, *, seed: int) -> Tensor:
    """R (width, width), orthogonal; see the module."""
    size = width & -width
    block = torch.ones(1, 1)
    while len(block) < size:
        block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)])
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1.0
    rotation = torch.kron(torch.eye(width // size), block) / size**0.5
    found: Tensor = signs.unsqueeze(1) * rotation
    return found


@torch.no_grad()
def rotate_model(work: WorkingModel, *, seed: int) -> None:
    """Rotate in place; a tied head becomes a matrix of its own, because it takes in the weight of the last norm.

    Raises:
        ConfigError: The model has other norms than RMSNorm before its layers, or norms after them.
    """
    c = work.model.config
    if c.norm_class_name != "RMSNorm" or c.post_attention_norm or c.post_mlp_norm or not (c.norm_1 and c.norm_2):
        raise ConfigError(
            "rotate: a rotation commutes with RMSNorm only, at the input of attention and MLP.",
            needed="RMSNorm, norm_1 and norm_2, and no norms after attention and MLP",
            fix="leave the step out",
        )
    if work.tied:
        work.untie()
        work.notes.append("rotate: head and embedding are two matrices now")
    transformer = work.model.transformer  # untie() makes another
    rotation = hadamard(c.n_embd, seed=seed)
    _absorb_norm(transformer.ln_f, [work.model.lm_head])
    tables = [transformer.wte.weight, work.model.lm_head.weight]
    for table in tables + ([] if transformer.wpe is None else [transformer.wpe.weight]):
        table.copy_(table @ rotation)
    for layer in work.parts.layers:
        block = transformer.h[layer.index]
        assert isinstance(block, Block)
        for name in ("norm_1", "norm_2"):
            readers = [work.linear(layer.path(part.name)) for part in layer.linears if part.reads == name]
            if readers:
                _absorb_norm(block.get_submodule(name), readers)
        for part in layer.linears:
            _rotate_linear(work.linear(layer.path(part.name)), part, rotation)


def _rotate_linear(linear: nn.Linear, part: LinearPart, rotation: Tensor) -> None:
    if part.reads in ("norm_1", "norm_2"):
        linear.weight.copy_(linear.weight @ rotation)
    if part.adds_to_residual:
        linear.weight.copy_(rotation.T @ linear.weight)
        if linear.bias is not None:
            linear.bias.copy_(rotation.T @ linear.bias)


def _absorb_norm(norm: nn.Module, readers: list[nn.Linear]) -> None:
    assert isinstance(norm, RMSNorm)
    weight = (1 + norm.weight if norm.add_unit_offset else norm.weight).detach().clone()
    safe = torch.where(weight.abs() < 1e-8, torch.full_like(weight, 1e-8), weight)
    for linear in readers:
        linear.weight.mul_(safe)
    divide_norm(norm, safe)
