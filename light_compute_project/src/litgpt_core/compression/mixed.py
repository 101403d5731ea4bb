"""Mixed precision: 8 bits where rounding costs most per byte, 4 elsewhere, under a budget.

The cost of rounding a matrix by D is estimated from gradients over calibration text (a diagonal Fisher information):

    cost = 1/2 sum_ij F_ij D_ij^2,     F_ij = mean over windows of (d loss / d w_ij)^2 * tokens per window

All matrices begin with 4 bits; then the one with the largest gain per additional byte gets 8, while the budget lasts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.compression.rounding import round_matrix
from litgpt_core.compression.settings import Mixed
from litgpt_core.compression.state import WorkingModel

BITS = {4: 4.5, 8: 8.5}
"""Bits per weight with its share of a scale."""
MOST_WINDOWS = 16


def choose_bits(work: WorkingModel, windows: Tensor, step: Mixed) -> dict[str, int]:
    """Module path of every linear layer in a block -> 4 or 8; adds what was chosen to the notes."""
    layers = [(path, part) for path, part in work.parts.linears() if part.role not in ("router", "head")]
    layers = [(path, part) for path, part in layers if not any(text in path for text in step.skip)]
    costs = rounding_costs(
        work, windows[:: max(1, len(windows) // MOST_WINDOWS)], [p for p, _ in layers], clip=step.clip
    )
    sizes = {path: part.rows * part.columns for path, part in layers}
    spare = (step.budget - BITS[4]) * sum(sizes.values())
    chosen = dict.fromkeys(sizes, 4)
    for path in sorted(sizes, key=lambda path: (costs[path][8] - costs[path][4]) / sizes[path]):
        price = (BITS[8] - BITS[4]) * sizes[path]
        if price <= spare:
            chosen[path], spare = 8, spare - price
    eight = [path for path, bits in chosen.items() if bits == 8]
    work.notes.append(f"mixed: {len(eight)} of {len(chosen)} matrices have 8 bits: {', '.join(eight[:12])}")
    return chosen


def rounding_costs(work: WorkingModel, windows: Tensor, paths: list[str], *, clip: str) -> dict[str, dict[int, float]]:
    """Estimated increase of the loss in nats per token for 4 and 8 bits."""
    fisher = {path: torch.zeros_like(work.linear(path).weight) for path in paths}
    for window in windows:
        work.model.zero_grad(set_to_none=True)
        with torch.enable_grad():
            for path in paths:
                work.linear(path).weight.requires_grad_(True)
            logits = work.model(window[:-1].unsqueeze(0))[0]
            loss = functional.cross_entropy(logits.float(), window[1:])
            loss.backward()  # type: ignore[no-untyped-call]
        for path in paths:
            gradient = work.linear(path).weight.grad
            assert gradient is not None
            fisher[path] += gradient.square() * (len(window) - 1) / len(windows)
    work.model.zero_grad(set_to_none=True)
    costs = {}
    for path in paths:
        weight = work.linear(path).weight.detach()
        errors = {bits: round_matrix(weight, bits=bits, clip=clip).dense() - weight for bits in BITS}
        costs[path] = {bits: float((fisher[path] * error.square()).sum()) / 2 for bits, error in errors.items()}
    return costs
