"""GPTQ (Frantar et al. 2022, arXiv 2210.17323).

Rounding column k of W by the error e_k changes the outputs; the later columns can make up for part of it. With
H = X^T X over calibration inputs, and U the upper Cholesky factor of H^-1 (H^-1 = U^T U):

    e_k = (w_k - q_k) / U_kk            w_j -= e_k U_kj   for all j > k

Scales belong to groups of 32 columns and are chosen when a group begins, from its weights as they are then. Afterwards
`refit_scales` may choose them again for the codes that were found: the outputs of all groups together are fitted.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from litgpt_core.checkpoint.compressed_matrices import IntegerMatrix
from litgpt_core.model import grid
from litgpt_core.model.grid import Grid
from litgpt_core.model.scale_search import search_scales


def inverse_factor(hessian: Tensor, *, damp: float) -> Tensor:
    """U, upper triangular, (K, K) float32, with H^-1 = U^T U for H = `hessian` + damping.

    Inputs that are always zero get a 1 on the diagonal. Damping is raised tenfold until the factorisation succeeds.
    """
    h = hessian.double()
    dead = h.diagonal() == 0
    h = h + torch.diag(dead.double())
    mean = h.diagonal()[~dead].mean() if not bool(dead.all()) else 1.0
    for _ in range(8):
        damped = h + torch.eye(len(h), dtype=h.dtype) * damp * mean
        factor, problem = torch.linalg.cholesky_ex(damped)
        if not problem:
            inverse = torch.cholesky_inverse(factor)
            upper, problem = torch.linalg.cholesky_ex(inverse, upper=True)
            if not problem:
                found: Tensor = upper.float()
                return found
        damp *= 10
    raise ValueError("the calibration inputs are not finite")


def gptq_matrix(
    weight: Tensor,
    hessian: Tensor,
    *,
    bits: int,
    clip: str = "activations",
    damp: float = 0.01,
    refit: bool = False,
) -> IntegerMatrix:
    """Quantize (O, K) float32 with the (K, K) second moment of its inputs.

    Args:
        weight: W.
        hessian: H.
        bits: See `Grid`.
        clip: How scales are chosen when a group begins: absmax, mse or activations.
        damp: Added to the diagonal of H, as a share of its mean.
        refit: Choose the scales again in the end.
    """
    more = -weight.size(1) % grid.GROUP  # inputs that are always zero fill the last group up
    kind, w, hessian = Grid(bits), pad(weight, (0, more)).clone(), pad(hessian, (0, more, 0, more))
    upper = inverse_factor(hessian, damp=damp)
    codes = torch.empty_like(w)
    scales = torch.empty(w.size(0), w.size(1) // grid.GROUP)
    moments = hessian.diagonal()
    for g in range(scales.size(1)):
        begin, end = g * grid.GROUP, (g + 1) * grid.GROUP
        block = w[:, begin:end]
        if clip == "absmax":
            scale = grid.stored_scales(kind.absmax_scales(block))
        else:
            h = moments[begin:end].expand_as(block) if clip == "activations" else None
            scale = search_scales(block, kind, importance=h)
        scales[:, g] = scale
        errors = torch.empty_like(block)
        for i in range(grid.GROUP):
            k = begin + i
            q = kind.codes(w[:, k : k + 1], scale)[:, 0]
            codes[:, k] = q
            errors[:, i] = (w[:, k] - q * scale) / upper[k, k]
            w[:, k:end] -= errors[:, i : i + 1] * upper[k, k:end]
        w[:, end:] -= errors @ upper[begin:end, end:]
    if refit:
        scales = refit_scales(pad(weight, (0, more)), codes, scales, hessian, damp=damp)
    return IntegerMatrix.packed(codes, scales, stored_bits=kind.stored_bits, columns=weight.size(1))


def refit_scales(weight: Tensor, codes: Tensor, scales: Tensor, hessian: Tensor, *, damp: float) -> Tensor:
    """The scales with the least error of the outputs for given codes: per row, one linear system over its groups.

    With q_g the codes of group g at their places and zeros elsewhere, the error of a row is

        (w - sum_g s_g q_g)^T H (w - sum_g s_g q_g),   so   A s = b,   A_gh = q_g^T H q_h,   b_g = q_g^T H w

    Args:
        weight: (O, K) before it was rounded; K is a multiple of 32.
        codes: (O, K).
        scales: (O, G), returned for rows that would not become better, float16 rounding included.
        hessian: (K, K).
        damp: Added to the diagonal of H, as a share of its mean.
    """
    h = hessian + torch.eye(len(hessian)) * damp * hessian.diagonal().mean()
    rows, n = codes.size(0), scales.size(1)
    grouped = codes.view(rows, n, grid.GROUP)
    system = torch.empty(rows, n, n)
    for g in range(n):
        seen = grouped[:, g] @ h[g * grid.GROUP : (g + 1) * grid.GROUP]  # (O, K): H q_g
        system[:, g] = (seen.view(rows, n, grid.GROUP) * grouped).sum(-1)
    wanted = ((weight @ h).view(rows, n, grid.GROUP) * grouped).sum(-1)
    system += torch.diag_embed((grouped == 0).all(-1).float() + 1e-6 * system.diagonal(dim1=1, dim2=2).mean(1, True))
    found = grid.stored_scales(torch.linalg.solve(system.double(), wanted.double()).float())
    better = _output_error(weight, codes, found, h) < _output_error(weight, codes, scales, h)
    return torch.where(better.unsqueeze(1), found, scales)


def _output_error(weight: Tensor, codes: Tensor, scales: Tensor, hessian: Tensor) -> Tensor:
    """(O,): (w - w_q)^T H (w - w_q) of every row."""
    difference = weight - grid.dequantize(codes, scales)
    return ((difference @ hessian) * difference).sum(-1)
