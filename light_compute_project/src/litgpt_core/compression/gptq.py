"""GPTQ (Frantar et al. 2022, arXiv 2210.17323).

Rounding column k of W by the error e_k changes the outputs; the later columns can make up for part of it. With
H = X^T X over calibration inputs, and U the upper Cholesky factor of H^-1 (H^-1 = U^T U):

    e_k = (w_k - q_k) / U_kk            w_j -= e_k U_kj   for all j > k

Scales belong to groups of 32 columns and are chosen when a group begins, from its weights as they are then.
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
    weight: Tensor, hessian: Tensor, *, bits: int, clip: str = "activations", damp: float = 0.01
) -> IntegerMatrix:
    """Quantize (O, K) float32 with the (K, K) second moment of its inputs."""
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
    return IntegerMatrix.packed(codes, scales, stored_bits=kind.stored_bits, columns=weight.size(1))
