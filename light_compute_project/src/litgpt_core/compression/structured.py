"""Fewer blocks, hidden units or heads: the result is a plain, smaller LitGPT checkpoint.

depth   removes the blocks whose output is most like their input: influence = 1 - mean cos(x_in, x_out)
        (ShortGPT, arXiv 2403.03853); the first and the last block stay
width   removes the hidden units of every MLP with the smallest mean square of input times squared norm of output
        weights; every block keeps equally many, because LitGPT and others know one intermediate_size
heads   the same for whole groups of heads: a key/value head and its query heads
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.walk import Action, BlockContext, walk
from litgpt_core.core.errors import ConfigError
from litgpt_core.model.gpt import GPT


@torch.no_grad()
def remove_blocks(work: WorkingModel, windows: Tensor, *, remove: int) -> None:
    """Remove the `remove` least influential blocks. Raises ConfigError if fewer than two would remain."""
    n = work.model.config.n_layer
    if remove > n - 2:
        raise ConfigError(f"depth: remove={remove} of {n} blocks.", needed=f"at most {n - 2}: the ends stay")
    influence = block_influence(work.model, windows)
    gone = set(sorted(range(1, n - 1), key=influence.__getitem__)[:remove])
    kept = [layer for layer in range(n) if layer not in gone]
    work.notes.append(f"depth: removed blocks {sorted(gone)}; their influence is {_some(influence, sorted(gone))}")
    lists = {
        name: [values[layer] for layer in kept]
        for name in ("sliding_window_indices", "rope_indices")
        if (values := getattr(work.model.config, name)) is not None
    }
    weights = work.model.state_dict()
    renamed = {}
    for name, value in weights.items():
        prefix, _, rest = name.removeprefix("transformer.h.").partition(".")
        if not name.startswith("transformer.h."):
            renamed[name] = value
        elif int(prefix) in kept:
            renamed[f"transformer.h.{kept.index(int(prefix))}.{rest}"] = value
    rebuild(work, renamed, n_layer=len(kept), **lists)


def _some(values: list[float], indices: list[int]) -> str:
    return ", ".join(f"{values[index]:.3f}" for index in indices)


def block_influence(model: GPT, windows: Tensor) -> list[float]:
    """1 - mean cosine between input and output of every block."""
    found: list[float] = [0.0] * model.config.n_layer

    def hook(index: int) -> Callable[..., None]:
        def add(_: Any, arguments: tuple[Any, ...], output: Tensor) -> None:
            cosine = torch.nn.functional.cosine_similarity(arguments[0], output, dim=-1)
            found[index] += float(1 - cosine.mean()) / len(windows)

        return add

    hooks = [block.register_forward_hook(hook(i)) for i, block in enumerate(model.transformer.h)]
    for window in windows:
        model.transformer(window.unsqueeze(0))
    for each in hooks:
        each.remove()
    return found


@torch.no_grad()
def narrow_mlps(work: WorkingModel, windows: Tensor, *, keep: float) -> None:
    """Keep the share `keep` of every MLP's hidden units, a multiple of 32. Raises ConfigError for other MLPs."""
    c = work.model.config
    if any(layer.mlp == "LLaMAMoE" for layer in work.parts.layers):
        raise ConfigError("width: this model has mixtures of experts.", needed="plain MLPs")
    size = max(32, round(c.intermediate_size * keep / 32) * 32)
    if size >= c.intermediate_size:
        raise ConfigError(f"width: keep={keep} keeps all {c.intermediate_size} units.", needed="a smaller share")
    chosen: dict[int, Tensor] = {}

    def choose(context: BlockContext) -> None:
        scores = _contribution(context, "hidden", "mlp.proj")
        chosen[context.structure.index] = scores.topk(size).indices.sort().values

    walk(work, [Action(choose, calibrated=True)], windows=windows)
    weights = work.model.state_dict()
    for layer, units in chosen.items():
        for name in [name for name in weights if name.startswith(f"transformer.h.{layer}.mlp.")]:
            down = name.endswith("mlp.proj.weight")
            if down or not name.endswith("mlp.proj.bias"):
                weights[name] = weights[name][:, units] if down else weights[name][units]
    rebuild(work, weights, intermediate_size=size)


@torch.no_grad()
def remove_heads(work: WorkingModel, windows: Tensor, *, keep: int) -> None:
    """Keep `keep` groups of heads in every block. Raises ConfigError if there are not more."""
    c = work.model.config
    if c.latent_attention is not None or keep >= c.n_query_groups or (c.norm_qk and c.norm_qk_type == "olmo2"):
        raise ConfigError(f"heads: keep={keep} of {c.n_query_groups} groups.", needed="fewer than there are")
    per_group = c.n_head // c.n_query_groups
    chosen: dict[int, Tensor] = {}

    def choose(context: BlockContext) -> None:
        scores = _contribution(context, "attention", "attn.proj").view(c.n_query_groups, -1).sum(1)
        chosen[context.structure.index] = scores.topk(keep).indices.sort().values

    walk(work, [Action(choose, calibrated=True)], windows=windows)
    weights = work.model.state_dict()
    for layer, groups in chosen.items():
        heads = (groups.unsqueeze(1) * per_group + torch.arange(per_group)).flatten()
        rows = torch.cat([heads, c.n_head + groups, c.n_head + c.n_query_groups + groups])
        prefix = f"transformer.h.{layer}.attn."
        for name in ("qkv.weight", "qkv.bias"):
            if prefix + name in weights:
                weights[prefix + name] = weights[prefix + name][_dimensions(rows, c.head_size)]
        weights[f"{prefix}proj.weight"] = weights[f"{prefix}proj.weight"][:, _dimensions(heads, c.head_size)]
    rebuild(work, weights, n_head=keep * per_group, n_query_groups=keep, head_size=c.head_size)


def _dimensions(heads: Tensor, head_size: int) -> Tensor:
    return (heads.unsqueeze(1) * head_size + torch.arange(head_size)).flatten()


def _contribution(context: BlockContext, reads: str, reader: str) -> Tensor:
    """(K,): mean square of every input of a layer times the squared norm of its column."""
    return context.inputs[reads].moment.diagonal() * context.linear(reader).weight.square().sum(0)


def rebuild(work: WorkingModel, weights: dict[str, Tensor], **changes: Any) -> None:
    """Give `work` a model of the changed config with these weights."""
    config = dataclasses.replace(work.model.config, tie_embeddings=work.tied, **changes)
    with torch.random.fork_rng(devices=[]):
        model = GPT(config)
    model.load_state_dict(weights)
    work.model = model.eval()
