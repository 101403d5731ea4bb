"""Is a model's every weight on a grid of few levels per group already, as one that came from a 4-bit file is?

Rounding such a model to the same grid changes nothing and proves nothing: it lost what it could lose before.
"""

from __future__ import annotations

import torch

from litgpt_core.model.gpt import GPT
from litgpt_core.model.structure import structure

GROUP = 32
LEVELS = 16
SAMPLE = 2_000
"""Groups looked at per matrix."""


@torch.no_grad()
def gridded_share(model: GPT) -> float:
    """Share of groups of 32 weights in a row, in blocks' linear layers, that hold at most 16 different values."""
    few = total = 0
    for path, part in structure(model.config).linears():
        weight = model.get_submodule(path).weight
        assert isinstance(weight, torch.Tensor)
        if part.role == "head" or part.columns % GROUP:
            continue
        groups = weight.detach().reshape(-1, GROUP)
        groups = groups[:: max(1, len(groups) // SAMPLE)].sort(dim=1).values
        different = (groups[:, 1:] != groups[:, :-1]).sum(dim=1) + 1
        few, total = few + int((different <= LEVELS).sum()), total + len(groups)
    return few / total if total else 0.0


def gridded_note(model: GPT) -> str | None:
    """A warning for the report, or None for an ordinary model."""
    share = gridded_share(model)
    if share < 0.5:
        return None
    return (
        f"WARNING: {share:.0%} of the source's groups of {GROUP} weights have at most {LEVELS} levels: it was quantized"
        f" before. 4-bit grids of group {GROUP} are free here and prove nothing; begin the recipe with the step"
        " `permute`, which computes the same and leaves the grid."
    )
