"""Multi-head latent attention (DeepSeek-V2/V3): queries, keys and values pass through narrow bottlenecks.

                 q_a_proj          q_a_norm, q_b_proj
    x (C) ------> q_lora_rank -------------------------> per head: [ q_nope | q_rope ]    rope turns only q_rope
      |      kv_a_proj_with_mqa    kv_a_norm, kv_b_proj
      +---------> kv_lora_rank ------------------------> per head: [ k_nope | v ]
      +---------> k_rope, one for all heads -----------> k = [ k_nope | k_rope ]

The cache holds expanded keys and values, as LitGPT's does; caching the bottleneck instead would be smaller and is not
done here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from litgpt_core.model.attend import Attend, attend
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.config_checks import latent_dims
from litgpt_core.model.kv_cache import Int8KVCache, KVCache
from litgpt_core.model.norm import RMSNorm
from litgpt_core.model.rope import RopeTable, apply_rope, score_scaling


class MultiheadLatentAttention(nn.Module):
    """Same interface as `CausalSelfAttention`. Its norms are plain RMSNorms, whatever the config's norm is."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        assert config.latent_attention is not None
        dims = latent_dims(config.latent_attention)
        self.kv_rank, self.nope, self.rope = dims["kv_lora_rank"], dims["qk_nope_head_dim"], dims["qk_rope_head_dim"]
        width, nh, q_rank, hs_v = config.n_embd, config.n_head, dims["q_lora_rank"], config.v_head_dim

        self.q_a_proj = nn.Linear(width, q_rank, bias=config.attn_bias)
        self.q_a_norm = RMSNorm(q_rank, eps=config.norm_eps)
        self.q_b_proj = nn.Linear(q_rank, nh * config.qk_head_dim, bias=config.bias)
        self.kv_a_proj_with_mqa = nn.Linear(width, self.kv_rank + self.rope, bias=config.attn_bias)
        self.kv_a_norm = RMSNorm(self.kv_rank, eps=config.norm_eps)
        self.kv_b_proj = nn.Linear(self.kv_rank, nh * (self.nope + hs_v), bias=config.bias)
        self.proj = nn.Linear(nh * hs_v, width, bias=config.bias)
        divisor = config.attention_scores_scalar or config.qk_head_dim
        self.scale = score_scaling(config.rope_adjustments) / math.sqrt(divisor)
        self.kv_cache: KVCache | None = None
        self.attend: Attend | None = None  # takes the place of `attend` while activations are traced: see interpret

    def forward(
        self, x: Tensor, rope: RopeTable | None, mask: Tensor | None, input_pos: Tensor | None = None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C); the arguments are those of `CausalSelfAttention.forward`."""
        c = self.config
        batch, length, _ = x.shape
        nh, hs_v = c.n_head, c.v_head_dim

        q = self.q_b_proj(self.q_a_norm(self.q_a_proj(x))).view(batch, length, nh, -1).transpose(1, 2)
        q_nope, q_rope = q.split((self.nope, self.rope), dim=-1)  # (B, nh, T, nope), (B, nh, T, rope)

        latent, k_rope = self.kv_a_proj_with_mqa(x).split((self.kv_rank, self.rope), dim=-1)
        kv = self.kv_b_proj(self.kv_a_norm(latent)).view(batch, length, nh, -1).transpose(1, 2)
        k_nope, v = kv.split((self.nope, hs_v), dim=-1)  # (B, nh, T, nope), (B, nh, T, hs_v)

        q_rope = apply_rope(q_rope, rope, interleaved=c.rope_interleave)
        k_rope = apply_rope(k_rope.unsqueeze(1), rope, interleaved=c.rope_interleave)  # (B, 1, T, rope)
        q = torch.cat((q_nope, q_rope), dim=-1)
        k = torch.cat((k_nope, k_rope.expand(-1, nh, -1, -1)), dim=-1)
        if input_pos is not None:
            assert self.kv_cache is not None, "GPT checks that the cache exists"
            k, v = self.kv_cache(input_pos, k, v)
        dropout = c.dropout if self.training else 0.0
        mix = attend if self.attend is None else self.attend
        y = mix(q, k, v, mask=mask, scale=self.scale, softcap=c.attention_logit_softcapping, dropout=dropout)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(batch, y.size(2), nh * hs_v))
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
        lead = (batch_size, self.config.n_head, max_seq_length)
        k_shape, v_shape = (*lead, self.config.qk_head_dim), (*lead, self.config.v_head_dim)
        if dtype == torch.int8:
            self.kv_cache = Int8KVCache(k_shape, v_shape, device=device)
        else:
            self.kv_cache = KVCache(k_shape, v_shape, device=device, dtype=dtype)
