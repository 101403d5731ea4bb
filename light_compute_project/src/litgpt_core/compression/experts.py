"""Fewer experts in every mixture: the router's least used are merged into similar ones (M-SMoE, arXiv 2310.01334).

    groups     the least used expert, or group, joins the one whose router scores over the calibration tokens are most
               like its own (cosine), until `keep` are left
    merging    hidden units are matched by their weights, then averaged by use; so are the rows of the router

The result is a plain, smaller LitGPT checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.structured import rebuild
from litgpt_core.core.errors import ConfigError
from litgpt_core.model.gpt import GPT
from litgpt_core.model.moe import LLaMAMoE

PARTS = ("fc_1", "fc_2", "proj")


@dataclass(frozen=True)
class ExpertUse:
    """How one layer's experts were used by the calibration tokens."""

    counts: Tensor
    """(n_expert,) tokens that were sent to each."""
    scores: Tensor
    """(N, n_expert): the router's."""


@torch.no_grad()
def merge_experts(work: WorkingModel, windows: Tensor, *, keep: int) -> None:
    """Merge the experts of every mixture into `keep`.

    Raises:
        ConfigError: The model has no mixtures, not more experts than that, or a router with groups.
    """
    c = work.model.config
    if c.mlp_class_name != "LLaMAMoE" or c.n_expert_groups or keep >= c.n_expert:
        raise ConfigError(
            f"experts: keep={keep} of {c.n_expert} experts.", needed="a mixture of more experts, with a linear router"
        )
    weights = work.model.state_dict()
    for layer, use in expert_use(work.model, windows).items():
        groups = grouped_experts(use, keep=keep)
        shares = ", ".join(f"{count / use.counts.sum():.0%}" for count in use.counts.tolist())
        work.notes.append(f"experts of block {layer}: used by {shares} of the choices; merged into {groups}")
        _merge_layer(weights, f"transformer.h.{layer}.mlp", groups, use.counts.float())
    rebuild(work, weights, n_expert=keep, n_expert_per_token=min(keep, c.n_expert_per_token))


@torch.no_grad()
def expert_use(model: GPT, windows: Tensor) -> dict[int, ExpertUse]:
    """Use of the experts of every mixture, by block, over (N, T) ids."""
    rows: dict[int, list[Tensor]] = {}

    def hook(index: int) -> Callable[..., None]:
        def add(module: Any, arguments: tuple[Any, ...]) -> None:
            rows.setdefault(index, []).append(module.gate(arguments[0].flatten(0, -2)).float())

        return add

    mixtures = [(i, block.mlp) for i, block in enumerate(model.transformer.h) if isinstance(block.mlp, LLaMAMoE)]
    hooks = [mlp.register_forward_pre_hook(hook(i)) for i, mlp in mixtures]
    for window in windows:
        model.transformer(window.unsqueeze(0))
    for each in hooks:
        each.remove()
    found = {}
    for index, parts in rows.items():
        scores = torch.cat(parts)
        chosen = scores.topk(model.config.n_expert_per_token, dim=-1).indices
        found[index] = ExpertUse(torch.bincount(chosen.flatten(), minlength=scores.size(1)), scores)
    return found


def grouped_experts(use: ExpertUse, *, keep: int) -> list[list[int]]:
    """Numbers of the experts of each group, the most used one first; groups in the order of those."""
    counts = use.counts.tolist()
    groups = [[number] for number in range(len(counts))]
    columns = list(torch.nn.functional.normalize(use.scores, dim=0).T)
    while len(groups) > keep:
        least = min(range(len(groups)), key=lambda place: sum(counts[number] for number in groups[place]))
        group, column = groups.pop(least), columns.pop(least)
        nearest = int(torch.stack([column @ other / other.norm() for other in columns]).argmax())
        weights = [max(1, sum(counts[number] for number in each)) for each in (groups[nearest], group)]
        columns[nearest] = (weights[0] * columns[nearest] + weights[1] * column) / sum(weights)
        groups[nearest] = sorted(groups[nearest] + group, key=lambda number: -counts[number])
    return sorted(groups)


def _merge_layer(weights: dict[str, Tensor], prefix: str, groups: list[list[int]], counts: Tensor) -> None:
    """Replace the experts and the router of one mixture in a state dict."""
    merged: dict[str, Tensor] = {}
    rows = []
    for place, group in enumerate(groups):
        share = counts[group] / counts[group].sum() if counts[group].sum() > 0 else torch.ones(len(group)) / len(group)
        rows.append((weights[f"{prefix}.gate.weight"][group] * share[:, None]).sum(0))
        experts = [{name: weights[f"{prefix}.experts.{number}.{name}.weight"] for name in PARTS} for number in group]
        for part in PARTS:
            merged[f"{prefix}.experts.{place}.{part}.weight"] = experts[0][part] * share[0]
        for expert, part_share in zip(experts[1:], share[1:], strict=True):
            order = matched_units(experts[0], expert)
            for part in PARTS:
                aligned = expert[part][:, order] if part == "proj" else expert[part][order]
                merged[f"{prefix}.experts.{place}.{part}.weight"] += aligned * part_share
    for name in [name for name in weights if name.startswith(f"{prefix}.experts.")]:
        if name not in merged:
            del weights[name]
    weights |= merged
    weights[f"{prefix}.gate.weight"] = torch.stack(rows)


def matched_units(base: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
    """(units,): for every hidden unit of `base` the most similar one of `other`, each taken once, best pairs first."""
    ours, theirs = (
        torch.nn.functional.normalize(torch.cat([expert["fc_1"], expert["fc_2"], expert["proj"].T], dim=1), dim=1)
        for expert in (base, other)
    )
    alike = ours @ theirs.T
    order = torch.full((len(ours),), -1, dtype=torch.long)
    for _ in range(len(ours)):
        best = int(alike.argmax())
        unit, match = best // len(ours), best % len(ours)
        order[unit] = match
        alike[unit], alike[:, match] = -torch.inf, -torch.inf
    return order
