"""Two thin matrices for one: W = U V of rank r, with r (O + K) the given share of O K parameters.

plain       the nearest W in weights: the r largest singular values of W
scaled      of W diag(a), a = mean |x| of each input, and V divided by a again (ASVD, arXiv 2312.05821)
whitened    of W L with L L^T = X^T X / tokens, and V multiplied by L^-1: the nearest in outputs (arXiv 2403.07378)
"""

from __future__ import annotations

import torch
from torch import Tensor

from litgpt_core.checkpoint.compressed_matrices import LowRankMatrix
from litgpt_core.compression.settings import Svd
from litgpt_core.compression.walk import BlockContext, Inputs


def svd_block(context: BlockContext, step: Svd) -> None:
    """Replace every linear layer of a block but routers by two."""
    for part in context.structure.linears:
        if part.role != "router":
            weight = context.linear(part.name).weight.detach()
            rank = max(1, int(step.share * part.rows * part.columns / (part.rows + part.columns)))
            down, up = low_rank(weight, context.inputs.get(part.reads), kind=step.kind, rank=rank)
            context.work.store(context.path(part.name), LowRankMatrix(down.bfloat16(), up.bfloat16()))


def low_rank(weight: Tensor, inputs: Inputs | None, *, kind: str, rank: int) -> tuple[Tensor, Tensor]:
    """(O, K) -> V (r, K) and U (O, r)."""
    transform = torch.eye(weight.size(1))
    if kind == "scaled":
        assert inputs is not None
        transform = torch.diag(inputs.mean.clamp_min(1e-6))
    elif kind == "whitened":
        assert inputs is not None
        transform = whitening(inputs.moment)
    u, values, v = torch.linalg.svd(weight @ transform, full_matrices=False)
    root = values[:rank].sqrt()
    down = torch.linalg.solve_triangular(transform, root.unsqueeze(1) * v[:rank], upper=False, left=False)
    return down, u[:, :rank] * root


def whitening(moment: Tensor) -> Tensor:
    """L, lower triangular, with L L^T = `moment` + as little damping as makes it positive definite."""
    h = moment.double()
    mean, damp = h.diagonal().mean().clamp_min(1e-12), 1e-6
    for _ in range(8):
        factor, problem = torch.linalg.cholesky_ex(h + torch.eye(len(h), dtype=h.dtype) * damp * mean)
        if not problem:
            found: Tensor = factor.float()
            return found
        damp *= 10
    raise ValueError("the calibration inputs are not finite")
