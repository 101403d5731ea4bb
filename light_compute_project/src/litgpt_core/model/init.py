"""All initial values, in one place.

    what                                                       value
    ---------------------------------------------------------  ---------------------------------------------------------
    wte, wpe, linear weights, routers                          normal(0, 0.02)
    projections into the residual stream: attn.proj,           "scaled": normal(0, 0.02 / sqrt(2 * n_layer)), as GPT-2:
      mlp.proj, experts' and shared experts' proj                2 * n_layer branches add up;
                                                               "zero": 0, so that each block starts as the identity
    biases, e_score_correction_bias                            0
    norm weights                                               1, or 0 where the norm multiplies by (1 + weight)

A parameter's values depend on the seed, its name and its shape, and on nothing else: not on the global random state,
not on the device, not on which other parameters there are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from litgpt_core.model.gpt import GPT
from litgpt_core.model.moe import GroupedTopkRouter
from litgpt_core.model.norm import RMSNorm
from litgpt_core.model.structure import structure

STD = 0.02
Place = Callable[[Tensor, Tensor], None]
"""Writes values (second) into a parameter (first), which may be a shard of that shape."""


def copy_values(target: Tensor, values: Tensor) -> None:
    """The `Place` for whole tensors."""
    target.copy_(values)


@torch.no_grad()
def initialize(model: GPT, *, seed: int, place: Place = copy_values) -> None:
    """Set every parameter and persistent buffer of `model` by the rules above, in place; it must not be on meta.

    Args:
        model: Whole, or in shards, whose values are those of the whole model.
        seed: With a parameter's name it decides its values.
        place: Writes values into parameters; of shards: `distributed.sharding.copy_share`.
    """
    config = model.config
    linears = dict(structure(config).linears())
    residual = {path for path, linear in linears.items() if linear.adds_to_residual}
    residual_std = STD / math.sqrt(2 * config.n_layer) if config.init_projection == "scaled" else 0.0
    for prefix, module in model.named_modules():
        if isinstance(module, RMSNorm):
            module.weight.fill_(0.0 if module.add_unit_offset else 1.0)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()  # weight 1, bias 0
        elif isinstance(module, (nn.Linear, nn.Embedding, GroupedTopkRouter)):
            if not (config.tie_embeddings and module is model.lm_head):  # a tied head has wte's values
                std = residual_std if prefix in residual else STD
                linear = linears.get(prefix)  # says the whole size, of which the module may have a share
                shape = module.weight.shape if linear is None else (linear.rows, linear.columns)
                _normal(module.weight, shape, std=std, seed=seed, name=f"{prefix}.weight", place=place)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
            if isinstance(module, GroupedTopkRouter):
                module.e_score_correction_bias.zero_()


def _normal(tensor: Tensor, shape: tuple[int, ...], *, std: float, seed: int, name: str, place: Place) -> None:
    """Fill with normal(0, std) numbers that depend on `seed` and `name`, sampled on the CPU in fp32."""
    if std == 0.0:
        tensor.zero_()
        return
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
    place(tensor, torch.empty(shape, dtype=torch.float32, device="cpu").normal_(0.0, std, generator=generator))
