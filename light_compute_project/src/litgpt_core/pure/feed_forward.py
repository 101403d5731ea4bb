"""The networks between attentions, as in `litgpt_core.model.mlp` and `moe`: two layers, gated ones, and experts."""

from __future__ import annotations

from collections.abc import Callable
from operator import mul

from litgpt_core.pure.arithmetic import Vector, gelu, gelu_tanh, plus, sigmoid, silu, softmax, times
from litgpt_core.pure.config import ModelConfig
from litgpt_core.pure.layers import Weights

Function = Callable[[Vector], Vector]


def feed_forward(weights: Weights, config: ModelConfig, layer: int) -> Function:
    """(C) -> (C): the network of this layer."""
    kind = config.mlp_class_of(layer)
    curve = gelu_tanh if config.gelu_approximate == "tanh" else gelu
    if kind == "LLaMAMoE":
        return MixtureOfExperts(weights, config)
    if kind != "GptNeoxMLP":
        return gated(weights, silu if kind == "LLaMAMLP" else curve)
    fc, proj = weights.linear("fc"), weights.linear("proj")
    return lambda x: proj(list(map(curve, fc(x))))


def gated(weights: Weights, curve: Callable[[float], float]) -> Function:
    """proj(curve(fc_1(x)) * fc_2(x))"""
    fc_1, fc_2, proj = weights.linear("fc_1"), weights.linear("fc_2"), weights.linear("proj")
    return lambda x: proj(list(map(mul, map(curve, fc_1(x)), fc_2(x))))


class MixtureOfExperts:
    """Some of many small networks, chosen for each token, added up by weight; and one that all tokens use."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        self.config, self.gate = config, weights.inside("gate")
        self.experts = [gated(weights.inside(f"experts.{number}"), silu) for number in range(config.n_expert)]
        self.shared = gated(weights.inside("shared_experts"), silu) if config.n_shared_expert else None
        self.router = self.gate.rows("weight")
        self.correction = self.gate.vector("e_score_correction_bias")

    def __call__(self, x: Vector) -> Vector:
        """(C) -> (C)"""
        y = [0.0] * len(x)
        for number, weight in self.route(x):
            y = plus(y, [weight * each for each in self.experts[number](x)])
        return y if self.shared is None else plus(y, self.shared(x))

    def route(self, x: Vector) -> list[tuple[int, float]]:
        """The chosen experts and their weights."""
        c, scores = self.config, times(self.router, x)
        if not c.n_expert_groups:
            chosen = largest(scores, c.n_expert_per_token)
            weights = softmax([scores[number] for number in chosen])
        else:
            scores = list(map(sigmoid, scores))
            chosen = self.choose(scores)
            weights = [scores[number] for number in chosen]
            if c.norm_topk_prob:
                total = sum(weights) + 1e-20
                weights = [weight / total for weight in weights]
        return [(number, weight * c.routed_scaling_factor) for number, weight in zip(chosen, weights, strict=True)]

    def choose(self, scores: Vector) -> list[int]:
        """The best experts of the best groups; a group ranks by the sum of its best few scores (DeepSeek-V3)."""
        c = self.config
        assert c.n_expert_groups and c.n_topk_groups and c.n_topk_scores_per_group
        biased = scores if self.correction is None else plus(scores, self.correction)
        size = c.n_expert // c.n_expert_groups
        groups = [biased[at : at + size] for at in range(0, c.n_expert, size)]
        ranks = [sum(sorted(group, reverse=True)[: c.n_topk_scores_per_group]) for group in groups]
        kept = set(largest(ranks, c.n_topk_groups))
        return largest([each if at // size in kept else 0.0 for at, each in enumerate(biased)], c.n_expert_per_token)


def largest(values: Vector, count: int) -> list[int]:
    """Where the largest values stand, largest first."""
    return sorted(range(len(values)), key=lambda at: -values[at])[:count]
