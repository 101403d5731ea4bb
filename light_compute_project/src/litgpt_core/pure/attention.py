"""Causal self-attention with a cache of keys and values, as in `litgpt_core.model.attention` and `latent_attention`."""

from __future__ import annotations

import math

from litgpt_core.pure.arithmetic import Vector, dot, soft_cap, softmax, times
from litgpt_core.pure.config import ModelConfig
from litgpt_core.pure.layers import Weights, norm
from litgpt_core.pure.rope import rotate, score_scaling

Turn = tuple[Vector, Vector] | None
"""Cosines and sines at one position; None turns nothing."""


class Cache:
    """Keys and values of the tokens so far: for each group a list of keys, and the values column by column."""

    def __init__(self, groups: int, value_size: int) -> None:
        self.keys: list[list[Vector]] = [[] for _ in range(groups)]
        self.values: list[list[Vector]] = [[[] for _ in range(value_size)] for _ in range(groups)]

    def append(self, group: int, key: Vector, value: Vector) -> None:
        """One more token."""
        self.keys[group].append(key)
        for column, each in zip(self.values[group], value, strict=True):
            column.append(each)

    def attend(self, group: int, query: Vector, *, scale: float, cap: float | None, window: int | None) -> Vector:
        """What one query reads: the values, mixed by how well their keys fit; of the last `window` tokens."""
        keys, columns = self.keys[group], self.values[group]
        if window is not None and len(keys) > window:
            keys, columns = keys[-window:], [column[-window:] for column in columns]
        shares = softmax(soft_cap([scale * dot(query, key) for key in keys], cap))
        return times(columns, shares)


class Attention:
    """Queries, keys and values of one projection; MHA, GQA or MQA."""

    def __init__(self, weights: Weights, config: ModelConfig, layer: int) -> None:
        self.config, self.window = config, config.window_of(layer)
        self.qkv, self.proj = weights.linear("qkv"), weights.linear("proj")
        self.norms = [norm(weights, name, config) for name in ("norm_q", "norm_k")] if config.norm_qk else None
        divisor = config.attention_scores_scalar or config.head_size
        self.scale = score_scaling(config.rope_adjustments) / math.sqrt(divisor)

    def empty_cache(self) -> Cache:
        """Of no tokens."""
        return Cache(self.config.n_query_groups, self.config.head_size)

    def __call__(self, x: Vector, turn: Turn, cache: Cache) -> Vector:
        """(C) -> (C); the token joins the cache."""
        c, hs = self.config, self.config.head_size
        ends = (c.n_head * hs, (c.n_head + c.n_query_groups) * hs)
        qkv = self.qkv(x)
        parts = [qkv[: ends[0]], qkv[ends[0] : ends[1]], qkv[ends[1] :]]
        if self.norms is not None and c.norm_qk_type == "olmo2":
            parts[:2] = [normed(part) for normed, part in zip(self.norms, parts[:2], strict=True)]
        queries, keys, values = ([part[at : at + hs] for at in range(0, len(part), hs)] for part in parts)
        if self.norms is not None and c.norm_qk_type != "olmo2":
            queries, keys = list(map(self.norms[0], queries)), list(map(self.norms[1], keys))
        for group, (key, value) in enumerate(zip(keys, values, strict=True)):
            cache.append(group, rotate(key, turn, interleaved=c.rope_interleave), value)
        y: Vector = []
        for head, query in enumerate(queries):
            turned = rotate(query, turn, interleaved=c.rope_interleave)
            group = head * c.n_query_groups // c.n_head
            y += cache.attend(group, turned, scale=self.scale, cap=c.attention_logit_softcapping, window=self.window)
        return self.proj(y)


class LatentAttention:
    """Queries, keys and values through narrow bottlenecks (DeepSeek-V2/V3)."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        assert config.latent_attention is not None
        self.config, dims = config, {key: int(value) for key, value in config.latent_attention.items()}
        self.kv_rank, self.nope, self.rope = dims["kv_lora_rank"], dims["qk_nope_head_dim"], dims["qk_rope_head_dim"]
        self.value_size = dims["v_head_dim"]
        self.q_a, self.q_b = weights.linear("q_a_proj"), weights.linear("q_b_proj")
        self.kv_a, self.kv_b = weights.linear("kv_a_proj_with_mqa"), weights.linear("kv_b_proj")
        self.q_norm = norm(weights, "q_a_norm", config, plain=True)
        self.kv_norm = norm(weights, "kv_a_norm", config, plain=True)
        self.proj = weights.linear("proj")
        divisor = config.attention_scores_scalar or self.nope + self.rope
        self.scale = score_scaling(config.rope_adjustments) / math.sqrt(divisor)

    def empty_cache(self) -> Cache:
        """Of no tokens; it holds expanded keys and values."""
        return Cache(self.config.n_head, self.value_size)

    def __call__(self, x: Vector, turn: Turn, cache: Cache) -> Vector:
        """(C) -> (C); the token joins the cache."""
        c, interleaved = self.config, self.config.rope_interleave
        q = self.q_b(self.q_norm(self.q_a(x)))
        kv_a = self.kv_a(x)
        kv = self.kv_b(self.kv_norm(kv_a[: self.kv_rank]))
        k_rope = rotate(kv_a[self.kv_rank :], turn, interleaved=interleaved)  # one for all heads
        y: Vector = []
        for head in range(c.n_head):
            query = q[head * (self.nope + self.rope) : (head + 1) * (self.nope + self.rope)]
            own = kv[head * (self.nope + self.value_size) : (head + 1) * (self.nope + self.value_size)]
            cache.append(head, own[: self.nope] + k_rope, own[self.nope :])
            turned = query[: self.nope] + rotate(query[self.nope :], turn, interleaved=interleaved)
            y += cache.attend(head, turned, scale=self.scale, cap=c.attention_logit_softcapping, window=None)
        return self.proj(y)
