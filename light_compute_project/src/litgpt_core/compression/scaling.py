"""Moves a factor per input channel from an activation into the weights that read it; the model computes the same.

    y = W x  =  (W diag(s)) (x / s)

x is divided where it is made: in the norm before (its weight and bias), for the input of attention's projection in the
value rows of `qkv`, for the hidden units of a gated MLP in `fc_2`. Other activations cannot be scaled.

    AWQ          s_k = mean|x_k|^a, the exponent with the least error of the rounded layer's outputs
    SmoothQuant  s_k = max|x_k|^a / max|W_k|^(1 - a), by which activations shrink: x / s
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litgpt_core.compression.settings import Awq, Smooth
from litgpt_core.compression.walk import BlockContext, Inputs
from litgpt_core.model import grid
from litgpt_core.model.fake_quant import rounded
from litgpt_core.model.grid import Grid
from litgpt_core.model.norm import RMSNorm
from litgpt_core.model.structure import LinearPart


def awq_block(context: BlockContext, step: Awq) -> None:
    """Scale every activation of a block that can be scaled, each by the best exponent of `step.steps` + 1."""
    for reads, parts in readers(context).items():
        inputs, share = context.inputs[reads], _sharing(context, reads)
        weights = [context.linear(part.name).weight.detach() for part in parts]
        best, least = (
            None,
            sum(rounding_error(w, torch.ones_like(inputs.mean), inputs, bits=step.bits) for w in weights),
        )
        for i in range(1, step.steps + 1):
            scales = normalized(share(inputs.mean.clamp_min(1e-6) ** (i / step.steps)))
            error = sum(rounding_error(w, scales, inputs, bits=step.bits) for w in weights)
            if error < least:
                best, least = scales, error
        if best is not None:
            apply_scales(context, reads, parts, best)


def smooth_block(context: BlockContext, step: Smooth) -> None:
    """Scale every activation of a block that can be scaled by SmoothQuant's rule."""
    for reads, parts in readers(context).items():
        largest = torch.stack([context.linear(part.name).weight.detach().abs().amax(0) for part in parts]).amax(0)
        sizes = context.inputs[reads].largest.clamp_min(1e-5)
        scales = sizes**step.alpha / largest.clamp_min(1e-5) ** (1 - step.alpha)
        apply_scales(context, reads, parts, normalized(_sharing(context, reads)(scales)))


def rounding_error(weight: Tensor, scales: Tensor, inputs: Inputs, *, bits: int) -> float:
    """Mean squared error of the outputs when W diag(s) is rounded: tr(D H D^T) with D = Q(W diag(s)) diag(1/s) - W."""
    scaled = weight * scales
    steps = grid.stored_scales(Grid(bits).absmax_scales(grid.grouped(scaled)))
    difference = rounded(scaled, steps, bits=bits) / scales - weight
    return float(((difference @ inputs.moment) * difference).sum())


def normalized(scales: Tensor) -> Tensor:
    """Scales with a geometric mean of 1, within a factor of 10,000 of it."""
    centred = scales / scales.log().mean().exp()
    return centred.clamp(1e-4, 1e4)


def readers(context: BlockContext) -> dict[str, list[LinearPart]]:
    """Activations of this block that can be scaled -> the layers that read them."""
    found: dict[str, list[LinearPart]] = {}
    for part in context.structure.linears:
        found.setdefault(part.reads, []).append(part)
    return {reads: parts for reads, parts in found.items() if _scalable(context, reads)}


def _scalable(context: BlockContext, reads: str) -> bool:
    block = context.work.model.transformer.h[context.structure.index]
    if reads in ("norm_1", "norm_2"):
        return getattr(getattr(block, reads, None), "weight", None) is not None
    if reads == "attention":
        return context.structure.attention == "grouped"
    return reads == "hidden" and context.structure.mlp in ("LLaMAMLP", "GemmaMLP")


def _sharing(context: BlockContext, reads: str):  # type: ignore[no-untyped-def]
    """Makes scales equal where one value row serves several inputs: the heads of a group, by their mean."""
    c = context.work.model.config
    if reads != "attention" or c.n_head == c.n_query_groups:
        return lambda scales: scales

    def share(scales: Tensor) -> Tensor:
        per_head = scales.view(c.n_query_groups, c.n_head // c.n_query_groups, c.head_size)
        return per_head.mean(1, keepdim=True).expand_as(per_head).reshape(-1)

    return share


def apply_scales(context: BlockContext, reads: str, parts: list[LinearPart], scales: Tensor) -> None:
    """Multiply the readers' columns by `scales` (K,), and divide what makes the activation."""
    for part in parts:
        context.linear(part.name).weight.mul_(scales)
    context.inputs[reads].divide(scales)
    block = context.work.model.transformer.h[context.structure.index]
    if reads in ("norm_1", "norm_2"):
        divide_norm(block.get_submodule(reads), scales)
    elif reads == "attention":
        c = context.work.model.config
        kept = scales.view(c.n_query_groups, -1, c.head_size)[:, 0].reshape(-1)
        _divide_rows(context.linear("attn.qkv"), kept)
    else:
        _divide_rows(context.linear("mlp.fc_2"), scales)


def divide_norm(norm: nn.Module, scales: Tensor) -> None:
    """Divide the output of a norm by `scales`."""
    weight = norm.weight
    assert isinstance(weight, Tensor)
    if isinstance(norm, RMSNorm) and norm.add_unit_offset:
        weight.copy_((1 + weight) / scales - 1)
    else:
        weight.div_(scales)
    if isinstance(bias := getattr(norm, "bias", None), Tensor):
        bias.div_(scales)


def _divide_rows(linear: nn.Linear, scales: Tensor) -> None:
    """Divide the last rows of a layer, as many as there are scales."""
    linear.weight[-len(scales) :].div_(scales.unsqueeze(1))
    if linear.bias is not None:
        linear.bias[-len(scales) :].div_(scales)
