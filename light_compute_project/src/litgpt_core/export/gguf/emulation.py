"""What llama.cpp computes: it rounds activations before it multiplies by weights that are not float32.

    F16, BF16 weights          activations of that type
    Q4_0 to Q8_0               8 bits, with a float16 scale for every 32 activations; the CPU kernel of this project has
                               the same codes, and float32 scales

In a model of one layer the emulation agrees with llama.cpp to 3e-7, where float32 products are 1e-4 (F16) and 1e-3
(BF16) away. A deeper model can amplify small differences: SmolLM2-135M makes 2e-4 of a log-probability out of
float32's own rounding, and 5e-3 out of float16's. Where an activation lies close to the middle between two 16-bit
numbers, the order of a float32 sum decides to which it is rounded. So the emulation is not one result but several,
each with activations changed at random by about float32's precision, and another program is compared with their mean
and standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from litgpt_core.export.parity import logits_of
from litgpt_core.model import grid
from litgpt_core.model.gpt import GPT

Rounding = Callable[[Tensor], Tensor]


def to_eight_bits(x: Tensor) -> Tensor:
    """(..., K) -> the nearest multiples of the scale of each 32 activations, which is largest size / 127 in float16."""
    codes, scales = grid.activation_codes(x)
    return grid.dequantize(codes, scales.half())


ROUNDED_TO: dict[str, Rounding] = {
    "F16": lambda x: x.half().float(),
    "BF16": lambda x: x.bfloat16().float(),
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"), to_eight_bits),
}
"""Type of the weights -> how activations are rounded."""
NOISE = 2.0**-22
"""Relative size of the random changes: float32 rounds to 2^-24, and long sums lose about two bits."""
RESULTS = 6
DEVIATIONS = 3
"""Standard deviations of the results that another program may be away from their mean."""


@contextmanager
def rounding_activations(model: GPT, rounding: Rounding, *, seed: int | None = None) -> Iterator[None]:
    """Within the block, linear layers round what they read, but for routers, whose weights stay F32.

    Args:
        model: In float32.
        rounding: See `ROUNDED_TO`.
        seed: Of the random changes before the rounding; None: no changes.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)

    def rounded(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = given[0]
        if generator is not None:
            x = x * (1 + NOISE * torch.randn(x.shape, generator=generator))
        return (rounding(x), *given[1:])

    modules = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    layers = [module for name, module in modules if not name.endswith("mlp.gate")]
    hooks = [layer.register_forward_pre_hook(rounded) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def emulated(model: GPT, ids: Sequence[int], *, rows: int, kind: str, results: int = RESULTS) -> Tensor:
    """Log-probabilities that llama.cpp may give: (N, T, rows); N is `results`, or 1 for a type without rounding.

    Args:
        model: The file's weights, float32.
        ids: T tokens.
        rows: Size of the vocabulary.
        kind: GGUF's name of the weights' type.
        results: The first is without noise.
    """
    if kind not in ROUNDED_TO:
        return logits_of(model, ids, rows=rows).log_softmax(-1)[None]
    found = []
    for seed in (None, *range(1, results)):
        with rounding_activations(model, ROUNDED_TO[kind], seed=seed):
            found.append(logits_of(model, ids, rows=rows).log_softmax(-1))
    return torch.stack(found)


def excess(results: Tensor, value: float) -> float:
    """By how much a value is further from the results, (N,), than rounding explains; of one result: the difference."""
    if len(results) == 1:
        return abs(results.item() - value)
    return max(0.0, abs(results.mean().item() - value) - DEVIATIONS * results.std().item())
