"""The residual stream as a sum of parts: embeddings, heads, MLPs, biases. Exact for every kind of model.

    resid_post of the last block = token + position + sum over layers of (heads + attention bias + MLP + its bias)

A head's part is W_O z of that head alone. A post norm, and the last norm, are not linear: with the scale that they used
on this input frozen, they are, and the parts still sum to what the model computed (Elhage et al. 2021, "A mathematical
framework"). LayerNorm centres each part; what it adds as a bias is a part of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from litgpt_core.interpret.access import attention_projection, block_of, has_neurons, mlp_projection
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.gpt import GPT
from litgpt_core.model.norm import RMSNorm

Linear = Callable[[Tensor], Tensor]


def frozen_norm(norm: nn.Module, x: Tensor) -> tuple[Linear, Tensor | None]:
    """A norm with the scale that it uses on `x`, as a linear map of (..., C), and the bias that it adds (C,), or None.

    `linear(x) + bias == norm(x)`. Anything that is no norm (a switched-off one) is the identity.
    """
    if isinstance(norm, RMSNorm):
        scale = (x.square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt()
        gain = norm.weight + 1 if norm.add_unit_offset else norm.weight
        return (lambda part: part * scale * gain), None
    if isinstance(norm, nn.LayerNorm):
        scale = (x.var(dim=-1, keepdim=True, correction=0) + norm.eps).rsqrt()
        weight = norm.weight if norm.elementwise_affine else x.new_ones(x.size(-1))
        centred: Linear = lambda part: (part - part.mean(dim=-1, keepdim=True)) * scale * weight  # noqa: E731
        return centred, norm.bias if norm.elementwise_affine else None
    return (lambda part: part), None


NEEDED = ("wte", "embed", "*.z", "*.attn_raw", "*.mlp_raw", "*.mlp_out", "*.attn_out")
"""What must be recorded for `residual_parts`."""


def residual_parts(model: GPT, seen: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name -> (B, T, C): parts of the last block's output, whose sum it is.

    Names: `token`, `position` (learned positions only), `L2H3`, `L2 bias` (attention's, where it has one), `L2M`, and
    `L2 norm` for the bias of a post norm.

    Args:
        model: The model that was traced.
        seen: With the names of `NEEDED`.
    """
    c = model.config
    token = seen["wte"] * (c.n_embd**0.5 if c.scale_embeddings else 1.0)
    parts = {"token": token}
    if model.transformer.wpe is not None:
        parts["position"] = seen["embed"] - token
    for layer in range(c.n_layer):
        block = block_of(model, layer)
        linear, bias = frozen_norm(block.post_attention_norm, seen[f"{layer}.attn_raw"])
        heads = head_outputs(model, layer, seen[f"{layer}.z"])
        parts |= {f"L{layer}H{head}": linear(out) for head, out in enumerate(heads)}
        if (bias_of_attention := attention_projection(model, layer).bias) is not None:
            parts[f"L{layer} bias"] = linear(bias_of_attention.detach().expand_as(token))
        mlp_bias = frozen_norm(block.post_mlp_norm, seen[f"{layer}.mlp_raw"])[1]
        parts[f"L{layer}M"] = seen[f"{layer}.mlp_out"] - (0.0 if mlp_bias is None else mlp_bias)
        added = [each for each in (bias, mlp_bias) if each is not None]
        if added:
            parts[f"L{layer} norm"] = sum(added[1:], added[0]).detach().expand_as(token)
    return parts


def head_outputs(model: GPT, layer: int, z: Tensor) -> list[Tensor]:
    """What each head writes, before a post norm: (B, T, nh, hs_v) -> nh times (B, T, C), without the bias."""
    weight = attention_projection(model, layer).weight.detach()  # (C, nh * hs_v)
    size = z.size(-1)
    return [z[..., head, :] @ weight[:, head * size : (head + 1) * size].mT for head in range(z.size(-2))]


def neuron_outputs(model: GPT, layer: int, units: list[int], seen: dict[str, Tensor]) -> dict[str, Tensor]:
    """`L2N17` -> (B, T, C): what single hidden units of an MLP write into the residual stream.

    Args:
        model: The model that was traced.
        layer: One without a mixture of experts.
        units: Numbers of hidden units.
        seen: With `neurons` and `mlp_raw` of the layer.
    """
    block = block_of(model, layer)
    linear, _ = frozen_norm(block.post_mlp_norm, seen[f"{layer}.mlp_raw"])
    weight, values = mlp_projection(model, layer).weight.detach(), seen[f"{layer}.neurons"]
    return {f"L{layer}N{unit}": linear(values[..., unit, None] * weight[:, unit]) for unit in units}


@torch.no_grad()
def traced_parts(model: GPT, ids: Tensor, *, last_only: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run (B, T) ids; the parts of the residual stream, and everything recorded: `NEEDED`, the residual streams,
    neurons where there are any, `final` and `logits`. With `last_only` all of it at the last position, T = 1.
    """
    units = [f"{layer}.neurons" for layer in range(model.config.n_layer) if has_neurons(model, layer)]
    with trace(model, [*NEEDED, *units, "*.resid_post", "final", "logits"]) as seen:
        model(ids)
    if last_only:
        seen = {name: value[:, -1:] for name, value in seen.items()}
    return residual_parts(model, seen), seen
