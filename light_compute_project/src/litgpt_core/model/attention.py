"""Causal self-attention with one projection for queries, keys and values.

n_query_groups (G) says how many key/value heads there are, so how much a KV cache must hold:

    v   o  o  o  o       o     o           o          G groups of values
    k   o  o  o  o       o     o           o          G groups of keys
        |  |  |  |      / \\   / \\       / / \\ \\
    q   o  o  o  o     o   o o   o     o  o  o  o     nh query heads; head i reads group i // (nh / G)
          MHA              GQA             MQA
         G = nh         1 < G < nh        G = 1

Rows of `qkv.weight`: [all queries | all keys | all values]. Attention through a low-rank bottleneck is
`latent_attention`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from litgpt_core.model.attend import Attend, attend
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.kv_cache import Int8KVCache, KVCache
from litgpt_core.model.norm import build_norm
from litgpt_core.model.rope import RopeTable, apply_rope, score_scaling


class CausalSelfAttention(nn.Module):
    """MHA, GQA or MQA; queries and keys may be normalised, and are turned by their positions.

        x --qkv--> q, k, v --[norm_q, norm_k]--> rope --[KV cache]--> attend --proj--> y

    Shapes: B batch, T tokens, S keys (T, or the cache's slots), C = n_embd, nh query heads, G groups (ng in code),
    hs = head_size.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        nh, ng, hs = config.n_head, config.n_query_groups, config.head_size
        self.qkv = nn.Linear(config.n_embd, (nh + 2 * ng) * hs, bias=config.bias or config.attn_bias)
        self.proj = nn.Linear(nh * hs, config.n_embd, bias=config.bias)
        self.norm_q: nn.Module | None = None
        self.norm_k: nn.Module | None = None
        if config.norm_qk:
            over_all_heads = config.norm_qk_type == "olmo2"
            self.norm_q = build_norm(config, nh * hs if over_all_heads else hs)
            self.norm_k = build_norm(config, ng * hs if over_all_heads else hs)
        self.scale = score_scaling(config.rope_adjustments) / math.sqrt(config.attention_scores_scalar or hs)
        self.kv_cache: KVCache | None = None
        self.attend: Attend | None = None  # takes the place of `attend` while activations are traced: see interpret

    def forward(
        self, x: Tensor, rope: RopeTable | None, mask: Tensor | None, input_pos: Tensor | None = None
    ) -> Tensor:
        """Let every token read the tokens it may see.

        Args:
            x: (B, T, C).
            rope: cos and sin at the tokens' positions, or None for no rotation.
            mask: (T, S), True where a query may see a key; None for the causal triangle.
            input_pos: (T,) positions to write into the KV cache, or None for no cache.

        Returns:
            (B, T, C)
        """
        c = self.config
        batch, length, _ = x.shape
        nh, ng, hs = c.n_head, c.n_query_groups, c.head_size
        q, k, v = self.qkv(x).split((nh * hs, ng * hs, ng * hs), dim=-1)  # (B, T, heads * hs) each
        if self.norm_q is not None and self.norm_k is not None and c.norm_qk_type == "olmo2":
            q, k = self.norm_q(q), self.norm_k(k)
        q = q.view(batch, length, nh, hs).transpose(1, 2)  # (B, nh, T, hs)
        k = k.view(batch, length, ng, hs).transpose(1, 2)  # (B, G, T, hs)
        v = v.view(batch, length, ng, hs).transpose(1, 2)  # (B, G, T, hs)
        if self.norm_q is not None and self.norm_k is not None and c.norm_qk_type == "default":
            q, k = self.norm_q(q), self.norm_k(k)
        q = apply_rope(q, rope, interleaved=c.rope_interleave)
        k = apply_rope(k, rope, interleaved=c.rope_interleave)
        if input_pos is not None:
            assert self.kv_cache is not None, "GPT checks that the cache exists"
            k, v = self.kv_cache(input_pos, k, v)  # (B, G, S, hs) each
        dropout = c.dropout if self.training else 0.0
        mix = attend if self.attend is None else self.attend
        y = mix(q, k, v, mask=mask, scale=self.scale, softcap=c.attention_logit_softcapping, dropout=dropout)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(batch, y.size(2), nh * hs))
        return out

    def build_kv_cache(
        self,
        batch_size: int,
        max_seq_length: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make an empty cache of `max_seq_length` slots for up to `batch_size` sequences; torch.int8 rounds them."""
        shape = (batch_size, self.config.n_query_groups, max_seq_length, self.config.head_size)
        if dtype == torch.int8:
            self.kv_cache = Int8KVCache(shape, shape, device=device)
        else:
            self.kv_cache = KVCache(shape, shape, device=device, dtype=dtype)
