"""Zeros in weight matrices, by three scores.

    magnitude    |w_ij|, over the matrix
    wanda        |w_ij| ||x_j||, within each row (Sun et al. 2023, arXiv 2306.11695)
    sparsegpt    (w_ij / U_jj)^2 with U as in GPTQ, block by block; the rest of the row makes up for what is removed
                 (Frantar and Alistarh 2023, arXiv 2301.00774)

With a pattern N:M the N best of every M adjacent weights of a row remain, and the matrix is packed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from litgpt_core.checkpoint.compressed_matrices import SparseMatrix
from litgpt_core.compression.gptq import inverse_factor
from litgpt_core.compression.settings import Prune
from litgpt_core.compression.walk import BlockContext, Inputs
from litgpt_core.model.sparse import check_pattern, pack_sparse

BLOCK = 128
"""Columns of SparseGPT between two updates of the columns after them; a mask is chosen for this many at once."""


def prune_block(context: BlockContext, step: Prune) -> None:
    """Prune every linear layer of a block but routers."""
    n, m = pattern_of(step)
    for part in context.structure.linears:
        if part.role == "router":
            continue
        path, linear = context.path(part.name), context.linear(part.name)
        if m:
            check_pattern(n, m, columns=part.columns, name=path)
        pruned = prune_matrix(linear.weight.detach(), context.inputs.get(part.reads), step)
        if not m:
            linear.weight.copy_(pruned)
            continue
        values, places = pack_sparse(pruned.bfloat16(), n=n, m=m)
        context.work.store(path, SparseMatrix(values, places, n, m))


def pattern_of(step: Prune) -> tuple[int, int]:
    """N and M; zeros without a pattern."""
    n, _, m = step.pattern.partition(":")
    return (int(n), int(m)) if m else (0, 0)


def prune_matrix(weight: Tensor, inputs: Inputs | None, step: Prune) -> Tensor:
    """(O, K) -> (O, K) with zeros."""
    if step.score == "sparsegpt":
        assert inputs is not None
        return sparsegpt(weight, inputs.moment, step)
    scores = weight.abs()
    if step.score == "wanda":
        assert inputs is not None
        scores = scores * inputs.moment.diagonal().sqrt()
    n, m = pattern_of(step)
    if not m and step.score == "magnitude":
        return weight * kept(scores.reshape(1, -1), sparsity=step.sparsity).view_as(weight)
    return weight * (kept_of_m(scores, n=n, m=m) if m else kept(scores, sparsity=step.sparsity))


def kept(scores: Tensor, *, sparsity: float) -> Tensor:
    """1 for the largest scores of every row, 0 for the share `sparsity` of smallest ones."""
    gone = scores.argsort(dim=-1)[:, : int(scores.size(-1) * sparsity)]
    return torch.ones_like(scores).scatter_(-1, gone, 0.0)


def kept_of_m(scores: Tensor, *, n: int, m: int) -> Tensor:
    """1 for the N largest of every M adjacent scores."""
    blocks = scores.reshape(scores.size(0), -1, m)
    return torch.zeros_like(blocks).scatter_(-1, blocks.topk(n, dim=-1).indices, 1.0).reshape(scores.shape)


def sparsegpt(weight: Tensor, moment: Tensor, step: Prune) -> Tensor:
    """Prune column by column, as GPTQ rounds."""
    n, m = pattern_of(step)
    w, upper = weight.clone(), inverse_factor(moment, damp=step.damp)
    diagonal = upper.diagonal()
    for begin in range(0, w.size(1), BLOCK):
        end = min(begin + BLOCK, w.size(1))
        block, errors = w[:, begin:end], torch.zeros(w.size(0), end - begin)
        mask = torch.ones_like(block)
        if not m:
            scores = (block / diagonal[begin:end]).square()
            mask = kept(scores.reshape(1, -1), sparsity=step.sparsity).view_as(block)
        for i in range(end - begin):
            if m and i % m == 0:
                scores = (block[:, i : i + m] / diagonal[begin + i : begin + i + m]).square()
                mask[:, i : i + m] = kept_of_m(scores, n=n, m=m)
            column = w[:, begin + i].clone()
            errors[:, i] = column * (1 - mask[:, i]) / diagonal[begin + i]
            w[:, begin + i : end] -= errors[:, i : i + 1] * upper[begin + i, begin + i : end]
            w[:, begin + i] = column * mask[:, i]
        w[:, end:] -= errors @ upper[begin:end, end:]
    return w
