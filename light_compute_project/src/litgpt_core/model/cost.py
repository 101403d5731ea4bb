"""Parameters and FLOPs of a model, from its config alone: nothing is built, torch is not imported.

Counting rule: one multiplication and one addition are 2 FLOPs; the backward pass costs twice the forward pass. For one
token, with N = weights of the matrices it is multiplied with (lm_head yes, table look-ups no, of a mixture of experts
only the chosen ones):

    forward    2 * N + sum over layers of 2 * n_head * (hs_qk + hs_v) * S     S keys are read: min(T, sliding window)
    training   3 * forward
               = 6 * N + 12 * n_layer * n_head * hs * T                        without windows and latent attention

That is the formula of the PaLM paper (Chowdhery et al. 2022, appendix B), as in nanoGPT: attention is counted as if
every token read all T, although the causal mask lets it read half on average, so that utilisation compares with
published numbers. Norms, activations, rope and softmax are left out, as everywhere. Not here: what a device can do
(`environment`).
"""

from __future__ import annotations

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.config_checks import latent_dims


def flops_per_token(config: GPTConfig, *, seq_length: int) -> float:
    """Forward and backward FLOPs for one token of a sequence of `seq_length` tokens."""
    return 3.0 * forward_flops_per_token(config, seq_length=seq_length)


def forward_flops_per_token(config: GPTConfig, *, seq_length: int) -> float:
    """Forward FLOPs for one token of a sequence of `seq_length` tokens."""
    keys = sum(min(seq_length, config.window_of(layer) or seq_length) for layer in range(config.n_layer))
    attention = 2.0 * config.n_head * (config.qk_head_dim + config.v_head_dim) * keys
    return 2.0 * matmul_parameters(config) + attention


def matmul_parameters(config: GPTConfig) -> int:
    """Matrix weights that one token is multiplied with: no biases, norms, tables or unused experts, but lm_head."""
    attention = config.n_layer * _attention_matrices(config)
    mlps = sum(_mlp_matrices(config, layer, active=True) for layer in range(config.n_layer))
    return attention + mlps + config.n_embd * config.padded_vocab_size


def count_parameters(config: GPTConfig, *, embedding: bool = True) -> int:
    """All trained numbers, as `GPT.num_parameters`; `embedding=False`: only the blocks and the last norm."""
    body = sum(_block(config, layer) for layer in range(config.n_layer)) + _norm(config, config.n_embd)
    if not embedding:
        return body
    table = config.padded_vocab_size * config.n_embd
    tables = table if config.tie_embeddings else 2 * table
    learned = config.block_size * config.n_embd if config.position_embedding == "learned" else 0
    return body + tables + learned + (config.padded_vocab_size if config.lm_head_bias else 0)


def _block(c: GPTConfig, layer: int) -> int:
    n_norms = sum((c.norm_1, c.norm_2 and not c.shared_attention_norm, c.post_attention_norm, c.post_mlp_norm))
    attention = _attention_matrices(c) + _attention_vectors(c)
    mlp = _mlp_matrices(c, layer, active=False) + _mlp_biases(c, layer)
    return attention + mlp + n_norms * _norm(c, c.n_embd)


def _norm(c: GPTConfig, size: int) -> int:
    if c.norm_class_name == "RMSNorm":
        return size
    return 0 if "OLMo" in c.name else 2 * size


def _attention_matrices(c: GPTConfig) -> int:
    width, nh = c.n_embd, c.n_head
    if c.latent_attention is None:
        return width * (nh + 2 * c.n_query_groups) * c.head_size + nh * c.head_size * width
    d = latent_dims(c.latent_attention)
    queries = width * d["q_lora_rank"] + d["q_lora_rank"] * nh * c.qk_head_dim
    keys_values = width * (d["kv_lora_rank"] + d["qk_rope_head_dim"])
    keys_values += d["kv_lora_rank"] * nh * (d["qk_nope_head_dim"] + d["v_head_dim"])
    return queries + keys_values + nh * d["v_head_dim"] * width


def _attention_vectors(c: GPTConfig) -> int:
    """Biases and the norms inside attention."""
    out = c.n_embd if c.bias else 0
    if c.latent_attention is None:
        heads, groups = c.n_head * c.head_size, c.n_query_groups * c.head_size
        qkv = heads + 2 * groups if c.bias or c.attn_bias else 0
        sizes = (heads, groups) if c.norm_qk_type == "olmo2" else (c.head_size, c.head_size)
        return out + qkv + (sum(_norm(c, size) for size in sizes) if c.norm_qk else 0)
    d = latent_dims(c.latent_attention)
    norms = d["q_lora_rank"] + d["kv_lora_rank"]
    narrow = d["q_lora_rank"] + d["kv_lora_rank"] + d["qk_rope_head_dim"] if c.attn_bias else 0
    wide = c.n_head * (c.qk_head_dim + d["qk_nope_head_dim"] + d["v_head_dim"]) if c.bias else 0
    return out + norms + narrow + wide


def _mlps(c: GPTConfig, layer: int, *, active: bool) -> list[int]:
    """Hidden sizes of the layer's feed-forward networks; with `active` only those that one token passes through."""
    if c.mlp_class_of(layer) != "LLaMAMoE":
        return [c.intermediate_size]
    size = c.moe_intermediate_size or c.intermediate_size
    routed = [size] * (c.n_expert_per_token if active else c.n_expert)
    return [*routed, size * c.n_shared_expert] if c.n_shared_expert else routed


def _mlp_matrices(c: GPTConfig, layer: int, *, active: bool) -> int:
    kind = c.mlp_class_of(layer)
    n_matrices = 2 if kind == "GptNeoxMLP" else 3
    router = c.n_embd * c.n_expert if kind == "LLaMAMoE" else 0
    return router + sum(n_matrices * c.n_embd * hidden for hidden in _mlps(c, layer, active=active))


def _mlp_biases(c: GPTConfig, layer: int) -> int:
    if not c.bias:
        return 0
    n_inner = 1 if c.mlp_class_of(layer) == "GptNeoxMLP" else 2
    return sum(n_inner * hidden + c.n_embd for hidden in _mlps(c, layer, active=False))
