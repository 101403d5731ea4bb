"""A mixture of experts: each token is sent to a few of many small MLPs, and their outputs are added up by weight.

                        .--> expert 0 --.
    x --> router -------+--> expert 5 --+--> weighted sum --+--> y        n_expert_per_token = 2 of n_expert
     '--------------------> shared_experts -----------------'             optional: seen by every token

Two routers: a linear layer whose best scores pass a softmax (Mixtral, Qwen3), and `GroupedTopkRouter` (DeepSeek-V3).
Tokens are sorted by expert, so each expert multiplies one contiguous block of rows, and the host waits for the device
once per layer, to learn how many rows each gets. As that depends on the data, torch.compile leaves the experts out:
they would be compiled anew for every number of rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.mlp import LLaMAMLP


class LLaMAMoE(nn.Module):
    """Routed LLaMAMLPs, plus an optional shared one."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        size = config.moe_intermediate_size
        self.gate = (
            GroupedTopkRouter(config)
            if config.n_expert_groups
            else nn.Linear(config.n_embd, config.n_expert, bias=False)
        )
        self.experts = nn.ModuleList(LLaMAMLP(config, intermediate_size=size) for _ in range(config.n_expert))
        self.shared_experts: LLaMAMLP | None = None
        if config.n_shared_expert and size is not None:
            self.shared_experts = LLaMAMLP(config, intermediate_size=size * config.n_shared_expert)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        tokens = x.reshape(-1, x.size(-1))  # (N, C)
        weights, chosen = self.route(tokens)  # (N, K) each, K = n_expert_per_token
        mixed: Tensor = self.mix(tokens, weights, chosen)
        y = mixed.view_as(x)
        return y if self.shared_experts is None else y + self.shared_experts(x)

    def mix(self, tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """(N, C), weights (N, K) and expert numbers (N, K) -> (N, C): the weighted sum of each token's K experts."""
        order = chosen.flatten().argsort(stable=True)  # (N * K,): all of expert 0, all of expert 1, ...
        token = order // chosen.size(1)
        numbers = torch.arange(len(self.experts), device=chosen.device)
        counts: list[int] = (chosen.flatten() == numbers[:, None]).sum(dim=1).tolist()  # the host waits, here only
        # An expert without tokens still runs, on zero rows: its gradients are then zeros and not missing.
        blocks = torch.split(tokens[token], counts)
        out = torch.cat([expert(block) for expert, block in zip(self.experts, blocks, strict=True)])
        out = weights.flatten()[order, None] * out
        return torch.zeros_like(tokens).index_add_(0, token, out.to(tokens.dtype))

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> weights (N, K) and expert numbers (N, K) of the K chosen experts."""
        c = self.config
        if isinstance(self.gate, GroupedTopkRouter):
            weights, chosen = self.gate(tokens)
        else:
            scores, chosen = torch.topk(self.gate(tokens), c.n_expert_per_token)
            wide = torch.promote_types(tokens.dtype, torch.float32)
            weights = scores.softmax(dim=-1, dtype=wide).to(tokens.dtype)
        return weights * c.routed_scaling_factor, chosen


def leave_experts_out(model: nn.Module) -> None:
    """Have torch.compile leave the experts of `model` out, before anything of it is compiled."""
    for module in model.modules():
        if isinstance(module, LLaMAMoE) and "mix" not in vars(module):
            module.mix = torch.compiler.disable(module.mix)  # type: ignore[method-assign, no-untyped-call]


class GroupedTopkRouter(nn.Module):
    """Experts come in groups; the best groups are kept, and the best experts of those are used (DeepSeek-V3).

    `e_score_correction_bias` shifts the choice but not the weights. It is a buffer of the checkpoint that training
    here leaves alone.
    """

    e_score_correction_bias: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_expert, config.n_embd))
        nn.init.normal_(self.weight, std=0.02)
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_expert))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> weights (N, K) and expert numbers (N, K)"""
        wide = torch.promote_types(tokens.dtype, torch.float32)
        scores = functional.linear(tokens.to(wide), self.weight.to(wide)).sigmoid()  # (N, n_expert)
        chosen = self.choose(scores)
        weights = scores.gather(1, chosen)
        if self.config.norm_topk_prob:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return weights, chosen

    @torch.no_grad()
    def choose(self, scores: Tensor) -> Tensor:
        """(N, n_expert) scores -> (N, K) expert numbers. A group ranks by the sum of its best few scores."""
        c = self.config
        assert c.n_expert_groups is not None and c.n_topk_groups is not None and c.n_topk_scores_per_group is not None
        biased = scores + self.e_score_correction_bias
        grouped = biased.view(-1, c.n_expert_groups, c.n_expert // c.n_expert_groups)  # (N, groups, per group)
        rank = grouped.topk(c.n_topk_scores_per_group, dim=-1).values.sum(dim=-1)  # (N, groups)
        best = rank.topk(c.n_topk_groups, dim=-1).indices
        kept = torch.zeros_like(rank, dtype=torch.bool).scatter(1, best, value=True)
        candidates = grouped.masked_fill(~kept.unsqueeze(-1), 0.0).view_as(scores)
        return candidates.topk(c.n_expert_per_token, dim=-1).indices
