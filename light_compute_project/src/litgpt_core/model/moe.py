"""A mixture of experts: each token is sent to a few of many small MLPs, and their outputs are added up by weight.

                        .--> expert 0 --.
    x --> router -------+--> expert 5 --+--> weighted sum --+--> y        n_expert_per_token = 2 of n_expert
     '--------------------> shared_experts -----------------'             optional: seen by every token

Two routers: a linear layer whose best scores pass a softmax (Mixtral, Qwen3), and `GroupedTopkRouter` (DeepSeek-V3).
Tokens are sorted by expert, so each expert multiplies one contiguous block of rows. On a GPU, in bfloat16, one kernel
multiplies all blocks (`grouped`). Elsewhere expert follows expert, and the host waits for the device once per layer, to
learn how many rows each gets. As that depends on the data, torch.compile leaves this loop out: it would be compiled
anew for every number of rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.grouped import computing_dtype, grouped_product, has_grouped_kernel
from litgpt_core.model.mlp import LLaMAMLP

KINDS = ("fc_1", "fc_2", "proj")
ROWS_WORTH_COPYING = 16
"""Rows of an expert, in the mean, from which one product is used though all matrices are copied for it. Provisional:
not measured on a GPU.
"""


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
        self.stacked: tuple[Tensor, ...] | None = None
        """All experts' fc_1, fc_2 and proj, (n_expert, rows, columns) each: see `stack`."""
        self.register_load_state_dict_pre_hook(_unstack)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        tokens = x.reshape(-1, x.size(-1))  # (N, C)
        weights, chosen = self.route(tokens)  # (N, K) each, K = n_expert_per_token
        mixed: Tensor = (self.mix_grouped if self._one_product(tokens) else self.mix)(tokens, weights, chosen)
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

    def mix_grouped(self, tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """As `mix`, without waiting: every kind of layer of all experts is one product."""
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        token = order // chosen.size(1)
        numbers = torch.arange(len(self.experts), device=chosen.device)
        ends = (flat <= numbers[:, None]).sum(dim=1, dtype=torch.int32)  # (n_expert,): rows up to each expert's last
        x = tokens[token].to(computing_dtype(tokens))
        fc_1, fc_2, proj = self.stacked or self._weights()
        hidden = functional.silu(grouped_product(x, ends, fc_1)) * grouped_product(x, ends, fc_2)
        out = grouped_product(hidden, ends, proj)
        out = weights.flatten()[order, None] * out
        return torch.zeros_like(tokens).index_add_(0, token, out.to(tokens.dtype))

    def _one_product(self, tokens: Tensor) -> bool:
        """Whether `mix_grouped` is possible, and worth copying the matrices where they are not stacked."""
        if self.stacked is not None:
            return True
        enough = tokens.size(0) * self.config.n_expert_per_token >= ROWS_WORTH_COPYING * len(self.experts)
        return enough and has_grouped_kernel(tokens, self._layers())

    def _layers(self) -> list[nn.Module]:
        return [layer for expert in self.experts for layer in expert.children()]

    def _weights(self) -> tuple[list[Tensor], ...]:
        """Those of fc_1, of fc_2 and of proj, expert by expert."""
        return tuple([expert.get_parameter(f"{name}.weight") for expert in self.experts] for name in KINDS)

    @torch.no_grad()
    def stack(self) -> None:
        """For inference: lay the experts' matrices out in one tensor of each kind, of which parameters become views.

        Only where one kernel multiplies them. Moving the module, or giving it other tensors, ends it.
        """
        reference = self.experts[0].get_parameter("fc_1.weight")
        if self.stacked is not None or not has_grouped_kernel(reference, self._layers()):
            return
        stacked = tuple(torch.stack(weights) for weights in self._weights())
        for together, weights in zip(stacked, self._weights(), strict=True):
            for part, weight in zip(together.unbind(), weights, strict=True):
                weight.data = part
        self.stacked = stacked

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LLaMAMoE:
        self.stacked = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

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


def _unstack(module: LLaMAMoE, *_: object) -> None:
    module.stacked = None  # loading may give the experts other tensors


def stack_experts(model: nn.Module) -> None:
    """`LLaMAMoE.stack` of every mixture in `model`."""
    for module in model.modules():
        if isinstance(module, LLaMAMoE):
            module.stack()


def leave_experts_out(model: nn.Module) -> None:
    """Have torch.compile leave the loop over experts out, before anything of `model` is compiled."""
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
