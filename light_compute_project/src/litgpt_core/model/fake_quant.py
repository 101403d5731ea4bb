"""Quantization-aware training: linear layers that multiply by rounded weights and train the weights behind them.

    forward    y = W_q x + b,   W_q = s * clamp(round(W / s))      s: one per output and 32 inputs, fixed, float16
    backward   dW = dW_q        straight through the rounding      (Bengio et al. 2013, arXiv 1308.3432)

The scales are those with the least squared error when training begins (`scale_search`), as rounding after training has
them, and stay: the codes of the trained weights lie on the grid of `grid`, so they are stored as others are.
Names of weights stay LitGPT's; the scales are the entries of the state dict with `qat_scales` in their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.grid import Grid
from litgpt_core.model.scale_search import search_scales
from litgpt_core.model.structure import LinearPart, structure

MARK = "qat_scales"
"""Ends the names of the scales, and of nothing else."""


def rounded(weight: Tensor, scales: Tensor, *, bits: int) -> Tensor:
    """(O, K) weights and (O, G) scales -> (O, K) float32: the nearest numbers of the grid."""
    codes = Grid(bits).codes(grid.grouped(weight.detach().float()), scales)
    return grid.dequantize(codes.flatten(-2), scales)[:, : weight.size(1)]


class FakeQuantLinear(nn.Linear):
    """A linear layer that computes with rounded weights.

    Args:
        base: The layer it replaces; weight and bias are shared with it.
        bits: See `Grid`.
        scales: (O, G) float32; None: to be loaded.
    """

    qat_scales: Tensor

    def __init__(self, base: nn.Linear, *, bits: int, scales: Tensor | None = None) -> None:
        super().__init__(1, 1, bias=False, device="meta")
        self.in_features, self.out_features, self.bits = base.in_features, base.out_features, bits
        self.weight, self.bias = base.weight, base.bias
        empty = base.weight.detach().new_zeros(base.out_features, grid.n_groups(base.in_features), dtype=torch.float32)
        self.register_buffer(MARK, empty if scales is None else scales)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., O)"""
        near = rounded(self.weight, self.qat_scales, bits=self.bits).to(self.weight.dtype)
        return functional.linear(x, self.weight + (near - self.weight).detach(), self.bias)


def add_fake_quantization(model: GPT, *, bits: int, search: bool = True) -> None:
    """Let all linear layers of the blocks, except routers of mixtures, compute with rounded weights.

    Args:
        model: Changed in place.
        bits: See `Grid`.
        search: Find the scales of the present weights; False: they are about to be loaded.
    """
    for path, _ in _parts(model.config):
        parent_path, _, name = path.rpartition(".")
        base = model.get_submodule(path)
        assert isinstance(base, nn.Linear)
        scales = None
        if search:
            weight = base.weight.detach().float()
            units = grid.grouped(weight).reshape(-1, grid.GROUP)
            scales = search_scales(units, Grid(bits)).view(weight.size(0), -1)
        setattr(model.get_submodule(parent_path), name, FakeQuantLinear(base, bits=bits, scales=scales))


def _parts(config: GPTConfig) -> Iterator[tuple[str, LinearPart]]:
    return ((path, part) for path, part in structure(config).linears() if part.role not in ("router", "head"))


def plain_weights(weights: Mapping[str, Tensor], *, bits: int) -> dict[str, Tensor]:
    """The state dict of the plain model that computes the same: rounded weights, no scales."""
    found = {name: value for name, value in weights.items() if not name.endswith(MARK)}
    for name, scales in weights.items():
        if name.endswith(MARK):
            weight = name.removesuffix(MARK) + "weight"
            found[weight] = rounded(found[weight], scales, bits=bits).to(found[weight].dtype)
    return found


def hidden_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `plain_weights` loses: the weights behind the rounded ones, and the scales."""
    scales = [name for name in weights if name.endswith(MARK)]
    return {name: weights[name] for mark in scales for name in (mark, mark.removesuffix(MARK) + "weight")}


def without_fake_quantization(model: GPT) -> GPT:
    """`model` itself if it computes with its own weights, else another model with the rounded ones."""
    layers = [module for module in model.modules() if isinstance(module, FakeQuantLinear)]
    if not layers:
        return model
    with torch.random.fork_rng(devices=[]):
        plain = GPT(model.config)
    plain.load_state_dict(plain_weights(model.state_dict(), bits=layers[0].bits))
    return plain.to(device=model.device, dtype=model.dtype).train(model.training)
