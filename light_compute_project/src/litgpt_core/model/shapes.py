"""The shape of every parameter of a model, from its config alone: nothing is built, torch is not imported.

Names and order within a block are those of the state dict. What is counted from them (`cost`), how they are shared out
among devices (`planning/cost`) and which of them a step multiplies with follows from here; tests compare the list with
real models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.config_checks import latent_dims


class Parameter(NamedTuple):
    """One parameter."""

    name: str
    """In the state dict, without the block's prefix `transformer.h.N.`."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Two dimensions: it decays, and in a block it is Muon's."""
        return len(self.shape) == 2


def outer_parameters(c: GPTConfig) -> list[Parameter]:
    """Everything outside the blocks: head, tables, the last norm. A tied head is left out: it is the table."""
    rows, width = c.padded_vocab_size, c.n_embd
    found = [] if c.tie_embeddings else [Parameter("lm_head.weight", (rows, width))]
    found += [Parameter("lm_head.bias", (rows,))] if c.lm_head_bias else []
    found += [Parameter("transformer.wte.weight", (rows, width))]
    if c.position_embedding == "learned":
        found.append(Parameter("transformer.wpe.weight", (c.block_size, width)))
    return [*found, *_norm(c, "transformer.ln_f", width)]


def block_parameters(c: GPTConfig, layer: int) -> list[Parameter]:
    """One block's."""
    width = c.n_embd
    return [
        *(_norm(c, "norm_1", width) if c.norm_1 else ()),
        *(_attention(c) if c.latent_attention is None else _latent_attention(c)),
        *(_norm(c, "post_attention_norm", width) if c.post_attention_norm else ()),
        *(_norm(c, "norm_2", width) if c.norm_2 and not c.shared_attention_norm else ()),
        *_mlp(c, layer),
        *(_norm(c, "post_mlp_norm", width) if c.post_mlp_norm else ()),
    ]


def _norm(c: GPTConfig, name: str, size: int) -> Iterator[Parameter]:
    if c.norm_class_name == "RMSNorm" or "OLMo" not in c.name:
        yield Parameter(f"{name}.weight", (size,))
    if c.norm_class_name == "LayerNorm" and "OLMo" not in c.name:
        yield Parameter(f"{name}.bias", (size,))


def _linear(name: str, rows: int, columns: int, *, bias: bool) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (rows, columns))
    if bias:
        yield Parameter(f"{name}.bias", (rows,))


def _attention(c: GPTConfig) -> Iterator[Parameter]:
    heads, groups = c.n_head * c.head_size, c.n_query_groups * c.head_size
    yield from _linear("attn.qkv", heads + 2 * groups, c.n_embd, bias=c.bias or c.attn_bias)
    yield from _linear("attn.proj", c.n_embd, heads, bias=c.bias)
    if c.norm_qk:
        over_all_heads = c.norm_qk_type == "olmo2"
        yield from _norm(c, "attn.norm_q", heads if over_all_heads else c.head_size)
        yield from _norm(c, "attn.norm_k", groups if over_all_heads else c.head_size)


def _latent_attention(c: GPTConfig) -> Iterator[Parameter]:
    assert c.latent_attention is not None
    d, nh = latent_dims(c.latent_attention), c.n_head
    q_rank, kv_rank = d["q_lora_rank"], d["kv_lora_rank"]
    yield from _linear("attn.q_a_proj", q_rank, c.n_embd, bias=c.attn_bias)
    yield Parameter("attn.q_a_norm.weight", (q_rank,))
    yield from _linear("attn.q_b_proj", nh * c.qk_head_dim, q_rank, bias=c.bias)
    yield from _linear("attn.kv_a_proj_with_mqa", kv_rank + d["qk_rope_head_dim"], c.n_embd, bias=c.attn_bias)
    yield Parameter("attn.kv_a_norm.weight", (kv_rank,))
    yield from _linear("attn.kv_b_proj", nh * (d["qk_nope_head_dim"] + d["v_head_dim"]), kv_rank, bias=c.bias)
    yield from _linear("attn.proj", c.n_embd, nh * d["v_head_dim"], bias=c.bias)


def _mlp(c: GPTConfig, layer: int) -> Iterator[Parameter]:
    kind = c.mlp_class_of(layer)
    if kind == "GptNeoxMLP":
        yield from _linear("mlp.fc", c.intermediate_size, c.n_embd, bias=c.bias)
        yield from _linear("mlp.proj", c.n_embd, c.intermediate_size, bias=c.bias)
    elif kind != "LLaMAMoE":
        yield from _gated(c, "mlp", c.intermediate_size)
    else:
        size = c.moe_intermediate_size
        yield Parameter("mlp.gate.weight", (c.n_expert, c.n_embd))
        for number in range(c.n_expert):
            yield from _gated(c, f"mlp.experts.{number}", size or c.intermediate_size)
        if c.n_shared_expert and size is not None:
            yield from _gated(c, "mlp.shared_experts", size * c.n_shared_expert)


def _gated(c: GPTConfig, name: str, hidden: int) -> Iterator[Parameter]:
    yield from _linear(f"{name}.fc_1", hidden, c.n_embd, bias=c.bias)
    yield from _linear(f"{name}.fc_2", hidden, c.n_embd, bias=c.bias)
    yield from _linear(f"{name}.proj", c.n_embd, hidden, bias=c.bias)
