"""Parameter groups and the optimizer, from settings.

| parameter                                  | decays | adamw | muon                        |
|--------------------------------------------|--------|-------|-----------------------------|
| blocks' matrices (qkv, proj, fc, gate ...) | yes    | `lr`  | Muon at `matrix_lr`         |
| embeddings, positions, lm_head             | yes    | `lr`  | AdamW at `lr`               |
| norms, biases (one dimension)              | no     | `lr`  | AdamW at `lr`               |

An optimizer of another class (`optim=custom`) gets the groups of `adamw`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from litgpt_core.core.errors import ConfigError
from litgpt_core.optim.flat import FlatOptimizer, FlatParameters
from litgpt_core.optim.muon import MuonAdamW
from litgpt_core.optim.settings import AdamWSettings, CustomOptimSettings, MuonSettings, OptimSettings


def parameter_groups(model: nn.Module, settings: OptimSettings) -> list[dict[str, Any]]:
    """Sort every trainable parameter of `model` into the groups of the table above; a tied parameter appears once.

    Each group carries its peak rate as `peak_lr`, which the schedule multiplies, and a `name` for logs.
    """
    matrices, tables, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif ".h." in f".{name}":
            matrices.append(parameter)
        else:
            tables.append(parameter)
    decay = settings.weight_decay  # None where another class has none: then no group names it
    matrix_lr = settings.matrix_lr if isinstance(settings, MuonSettings) else settings.lr
    groups: list[dict[str, Any]] = [
        {"name": "matrices", "params": matrices, "peak_lr": matrix_lr, "weight_decay": decay},
        {"name": "tables", "params": tables, "peak_lr": settings.lr, "weight_decay": decay},
        {"name": "vectors", "params": vectors, "peak_lr": settings.lr, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    for group in groups:
        group["lr"] = group["peak_lr"]
        if decay is None:
            del group["weight_decay"]
    return groups


def build_optimizer(
    model: nn.Module,
    settings: OptimSettings,
    *,
    fast_bf16: bool = False,
    fused: bool = True,
    replicas: dist.ProcessGroup | None = None,
) -> torch.optim.Optimizer:
    """The optimizer over `model`'s parameters, which must already be on their device.

    Args:
        model: Named parameters decide the groups.
        settings: AdamW's, Muon's, or those of another class.
        fast_bf16: Let Muon's matrix products run in bfloat16.
        fused: Use torch's one-kernel AdamW. It must be off under float16 loss scaling: that kernel unscales gradients
            by itself, after they would have been clipped.
        replicas: Processes with the same whole weights, which divide Muon's products among them.

    Raises:
        ConfigError: The other class does not take the values of its arguments.
    """
    groups = parameter_groups(model, settings)
    if isinstance(settings, AdamWSettings):
        device = next(model.parameters()).device.type
        return torch.optim.AdamW(
            groups,
            betas=(settings.betas[0], settings.betas[1]),
            eps=settings.eps,
            fused=fused and device in ("cpu", "cuda", "mps"),
        )
    if isinstance(settings, CustomOptimSettings):
        return _custom(groups, settings, fused=fused)
    return MuonAdamW(_with_rules(groups, settings), dtype=_products(fast_bf16), replicas=replicas)


def _custom(groups: list[dict[str, Any]], settings: CustomOptimSettings, *, fused: bool) -> torch.optim.Optimizer:
    if settings.kwargs.get("fused") and not fused:
        raise ConfigError(
            "optim.kwargs.fused=true under float16 loss scaling", needed="gradients that are clipped after unscaling",
            fix="optim.kwargs.fused=false",
        )  # fmt: skip
    try:
        optimizer = settings.optimizer_class(groups, **settings.kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{settings.class_path} does not take optim.kwargs={settings.kwargs}: {error}",
            needed="values that its constructor accepts for three parameter groups",
        ) from error
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def build_flat_optimizer(
    model: nn.Module, settings: AdamWSettings | MuonSettings, *, dtype: torch.dtype, fast_bf16: bool = False
) -> FlatOptimizer:
    """The same updates over one buffer, which `model`'s parameters move into; see `optim/flat.py`.

    Args:
        model: Float32, on its device.
        settings: AdamW's or Muon's: other classes have no updates over one buffer.
        dtype: What forward and backward compute with; the optimizer's `flat.working` is the model for them.
        fast_bf16: Let Muon's matrix products run in bfloat16.
    """
    groups = _with_rules(parameter_groups(model, settings), settings)
    return FlatOptimizer(FlatParameters(model, groups, dtype=dtype), groups, dtype=_products(fast_bf16))


def _with_rules(groups: list[dict[str, Any]], settings: AdamWSettings | MuonSettings) -> list[dict[str, Any]]:
    """Add to every group which rule steps it and with which numbers."""
    for group in groups:
        group["muon"] = isinstance(settings, MuonSettings) and group["name"] == "matrices"
        group["momentum"] = settings.momentum if isinstance(settings, MuonSettings) else 0.0
        group["betas"], group["eps"] = settings.betas, settings.eps
    return groups


def _products(fast_bf16: bool) -> torch.dtype:
    return torch.bfloat16 if fast_bf16 else torch.float32


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's rate to its peak times `factor`; returns the first group's rate, the one that logs show."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])
