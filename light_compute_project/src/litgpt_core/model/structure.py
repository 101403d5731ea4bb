"""The parts of a model as data, from its config alone: nothing is built, torch is not imported.

    structure(config) -> ModelStructure
      head, embeddings    lm_head, token and position embedding          LinearPart, EmbeddingPart
      layers              one BlockStructure per block: its parts        NormPart, LinearPart
                          in the order of the state dict
      last_norm           transformer.ln_f                               NormPart

A part holds what other code would otherwise derive from the config again: its name, shape and bias, which activation a
linear layer reads (`reads`), whether its result is added to the residual stream (`adds_to_residual`), which rows belong
to queries, keys and values (`row_groups`), and which expert it is. Readers: parameter counts and FLOPs (`cost`), memory
(`planning`), the CPU kernel's description (`generation`), export rules (`export`), LoRA targets (`lora`) and initial
values (`init`). Tests compare names, shapes and order with real models.

A new field of `GPTConfig` that adds a layer is three edits: the field, the module, and a part here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.config_checks import latent_dims

Activation = Literal["gelu", "gelu_tanh", "silu"]
Role = Literal["attention", "mlp", "router", "head"]


class Parameter(NamedTuple):
    """One parameter."""

    name: str
    """In the state dict; of a block without its prefix `transformer.h.N.`."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Two dimensions: weight decay applies, and inside a block Muon updates it."""
        return len(self.shape) == 2


@dataclass(frozen=True, kw_only=True)
class LinearPart:
    """One linear layer: y = W x + b, W of shape (rows, columns)."""

    name: str
    """Module path below the block (`attn.qkv`), or below the model (`lm_head`)."""
    rows: int
    columns: int
    bias: bool
    role: Role
    reads: str
    """The activation that it multiplies: the norm before it (`norm_1`, `norm_2`, `ln_f`), or what the layer before it
    made (`attention` scores times values, `hidden` units, a `latent` vector). Layers with equal `reads` share it.
    """
    adds_to_residual: bool = False
    """Its result goes into the residual stream (through a post norm, if there is one)."""
    row_groups: tuple[tuple[str, int], ...] = ()
    """Rows from the top, by purpose: query, key, value; empty where all rows serve one purpose."""
    expert: int | None = None
    """Number of the routed expert that it belongs to."""

    def parameters(self) -> Iterator[Parameter]:
        """Weight and bias."""
        yield Parameter(f"{self.name}.weight", (self.rows, self.columns))
        if self.bias:
            yield Parameter(f"{self.name}.bias", (self.rows,))


@dataclass(frozen=True, kw_only=True)
class NormPart:
    """One norm over the last dimension."""

    name: str
    kind: Literal["LayerNorm", "RMSNorm"]
    size: int
    weight: bool
    bias: bool
    unit_offset: bool = False
    """Multiplies by (1 + weight)."""

    def parameters(self) -> Iterator[Parameter]:
        """Weight and bias, as far as present."""
        if self.weight:
            yield Parameter(f"{self.name}.weight", (self.size,))
        if self.bias:
            yield Parameter(f"{self.name}.bias", (self.size,))


@dataclass(frozen=True, kw_only=True)
class EmbeddingPart:
    """One embedding matrix."""

    name: str
    rows: int
    columns: int

    def parameters(self) -> Iterator[Parameter]:
        """The table."""
        yield Parameter(f"{self.name}.weight", (self.rows, self.columns))


@dataclass(frozen=True, kw_only=True)
class BlockStructure:
    """One transformer block."""

    index: int
    parts: tuple[LinearPart | NormPart, ...]
    """In the order of the state dict."""
    attention: Literal["grouped", "latent"]
    window: int | None
    """Tokens of the sliding window; None: full attention."""
    rope: int
    """Which rope table: 0 for `rope_base`, 1 for `rope_local_base_freq`."""
    mlp: str
    """The MLP's class."""
    activation: Activation

    @property
    def linears(self) -> list[LinearPart]:
        """The linear layers, in order."""
        return [part for part in self.parts if isinstance(part, LinearPart)]

    @property
    def norms(self) -> list[NormPart]:
        """The norms, in order."""
        return [part for part in self.parts if isinstance(part, NormPart)]

    def parameters(self) -> list[Parameter]:
        """All of the block's, in the order of the state dict."""
        return [parameter for part in self.parts for parameter in part.parameters()]

    def path(self, name: str) -> str:
        """A part's module path in the model: where weights are found and hooks are registered."""
        return f"transformer.h.{self.index}.{name}"


@dataclass(frozen=True, kw_only=True)
class ModelStructure:
    """A complete model."""

    head: LinearPart
    tied: bool
    """`lm_head.weight` is the token embedding."""
    embeddings: tuple[EmbeddingPart, ...]
    """`transformer.wte`, and `transformer.wpe` with learned positions."""
    layers: tuple[BlockStructure, ...]
    last_norm: NormPart

    def linears(self) -> Iterator[tuple[str, LinearPart]]:
        """Every linear layer with its module path, blocks first, then the head."""
        for layer in self.layers:
            yield from ((layer.path(linear.name), linear) for linear in layer.linears)
        yield self.head.name, self.head

    def outer_parameters(self) -> list[Parameter]:
        """All outside the blocks: head, embeddings, last norm; a tied weight once, as the embedding's."""
        head = [p for p in self.head.parameters() if not (self.tied and p.is_matrix)]
        tables = [parameter for table in self.embeddings for parameter in table.parameters()]
        return [*head, *tables, *self.last_norm.parameters()]


def structure(config: GPTConfig) -> ModelStructure:
    """Describe the model that `GPT(config)` builds."""
    embeddings = [EmbeddingPart(name="transformer.wte", rows=config.padded_vocab_size, columns=config.n_embd)]
    if config.position_embedding == "learned":
        embeddings.append(EmbeddingPart(name="transformer.wpe", rows=config.block_size, columns=config.n_embd))
    return ModelStructure(
        head=LinearPart(
            name="lm_head",
            rows=config.padded_vocab_size,
            columns=config.n_embd,
            bias=config.lm_head_bias,
            role="head",
            reads="ln_f",
        ),
        tied=config.tie_embeddings,
        embeddings=tuple(embeddings),
        layers=tuple(layer_structure(config, index) for index in range(config.n_layer)),
        last_norm=last_norm(config),
    )


def layer_structure(config: GPTConfig, index: int) -> BlockStructure:
    """Describe one block."""
    c, width = config, config.n_embd
    gelu: Activation = "gelu_tanh" if c.gelu_approximate == "tanh" else "gelu"
    kind = c.mlp_class_of(index)
    return BlockStructure(
        index=index,
        parts=(
            *([_norm(c, "norm_1", width)] if c.norm_1 else ()),
            *(_attention(c) if c.latent_attention is None else _latent_attention(c)),
            *([_norm(c, "post_attention_norm", width)] if c.post_attention_norm else ()),
            *([_norm(c, "norm_2", width)] if c.norm_2 and not c.shared_attention_norm else ()),
            *_mlp(c, kind),
            *([_norm(c, "post_mlp_norm", width)] if c.post_mlp_norm else ()),
        ),
        attention="grouped" if c.latent_attention is None else "latent",
        window=c.window_of(index),
        rope=0 if c.rope_indices is None else c.rope_indices[index],
        mlp=kind,
        activation="silu" if kind in ("LLaMAMLP", "LLaMAMoE") else gelu,
    )


def last_norm(config: GPTConfig) -> NormPart:
    """Describe the norm before the head."""
    return _norm(config, "transformer.ln_f", config.n_embd)


def block_parameters(config: GPTConfig, index: int) -> list[Parameter]:
    """The parameters of one block, in the order of the state dict."""
    return layer_structure(config, index).parameters()


def outer_parameters(config: GPTConfig) -> list[Parameter]:
    """The parameters outside the blocks; a tied weight once, as the embedding's."""
    return structure(config).outer_parameters()


def _norm(c: GPTConfig, name: str, size: int) -> NormPart:
    if c.norm_class_name == "RMSNorm":
        return NormPart(name=name, kind="RMSNorm", size=size, weight=True, bias=False, unit_offset="Gemma" in c.name)
    affine = "OLMo" not in c.name
    return NormPart(name=name, kind="LayerNorm", size=size, weight=affine, bias=affine)


def _attention(c: GPTConfig) -> list[LinearPart | NormPart]:
    heads, groups = c.n_head * c.head_size, c.n_query_groups * c.head_size
    parts: list[LinearPart | NormPart] = [
        LinearPart(
            name="attn.qkv",
            rows=heads + 2 * groups,
            columns=c.n_embd,
            bias=c.bias or c.attn_bias,
            role="attention",
            reads="norm_1",
            row_groups=(("query", heads), ("key", groups), ("value", groups)),
        ),
        _attention_projection(c, columns=heads),
    ]
    if c.norm_qk:
        over_all_heads = c.norm_qk_type == "olmo2"
        parts.append(_norm(c, "attn.norm_q", heads if over_all_heads else c.head_size))
        parts.append(_norm(c, "attn.norm_k", groups if over_all_heads else c.head_size))
    return parts


def _attention_projection(c: GPTConfig, *, columns: int) -> LinearPart:
    return LinearPart(
        name="attn.proj",
        rows=c.n_embd,
        columns=columns,
        bias=c.bias,
        role="attention",
        reads="attention",
        adds_to_residual=True,
    )


def _latent_attention(c: GPTConfig) -> list[LinearPart | NormPart]:
    assert c.latent_attention is not None
    d, nh = latent_dims(c.latent_attention), c.n_head
    q_rank, kv_rank, rope = d["q_lora_rank"], d["kv_lora_rank"], d["qk_rope_head_dim"]

    def linear(name: str, rows: int, columns: int, reads: str, *, bias: bool) -> LinearPart:
        return LinearPart(name=f"attn.{name}", rows=rows, columns=columns, bias=bias, role="attention", reads=reads)

    def norm(name: str, size: int) -> NormPart:
        return NormPart(name=f"attn.{name}", kind="RMSNorm", size=size, weight=True, bias=False)

    return [
        linear("q_a_proj", q_rank, c.n_embd, "norm_1", bias=c.attn_bias),
        norm("q_a_norm", q_rank),
        linear("q_b_proj", nh * c.qk_head_dim, q_rank, "latent query", bias=c.bias),
        linear("kv_a_proj_with_mqa", kv_rank + rope, c.n_embd, "norm_1", bias=c.attn_bias),
        norm("kv_a_norm", kv_rank),
        linear("kv_b_proj", nh * (d["qk_nope_head_dim"] + d["v_head_dim"]), kv_rank, "latent key", bias=c.bias),
        _attention_projection(c, columns=nh * d["v_head_dim"]),
    ]


def _mlp(c: GPTConfig, kind: str) -> list[LinearPart]:
    if kind == "GptNeoxMLP":
        return [_up(c, "mlp.fc", c.intermediate_size), _down(c, "mlp.proj", c.intermediate_size)]
    if kind != "LLaMAMoE":
        return _gated(c, "mlp", c.intermediate_size)
    size = c.moe_intermediate_size
    router = LinearPart(
        name="mlp.gate", rows=c.n_expert, columns=c.n_embd, bias=False, role="router", reads=_mlp_input(c)
    )
    parts = [router]
    for number in range(c.n_expert):
        parts += _gated(c, f"mlp.experts.{number}", size or c.intermediate_size, expert=number)
    if c.n_shared_expert and size is not None:
        parts += _gated(c, "mlp.shared_experts", size * c.n_shared_expert)
    return parts


def _gated(c: GPTConfig, name: str, hidden: int, *, expert: int | None = None) -> list[LinearPart]:
    return [
        _up(c, f"{name}.fc_1", hidden, expert=expert),
        _up(c, f"{name}.fc_2", hidden, expert=expert),
        _down(c, f"{name}.proj", hidden, expert=expert),
    ]


def _mlp_input(c: GPTConfig) -> str:
    return "norm_1" if c.shared_attention_norm else "norm_2"


def _up(c: GPTConfig, name: str, hidden: int, *, expert: int | None = None) -> LinearPart:
    return LinearPart(
        name=name, rows=hidden, columns=c.n_embd, bias=c.bias, role="mlp", reads=_mlp_input(c), expert=expert
    )


def _down(c: GPTConfig, name: str, hidden: int, *, expert: int | None = None) -> LinearPart:
    reads = "hidden" if expert is None else f"hidden of expert {expert}"
    return LinearPart(
        name=name,
        rows=c.n_embd,
        columns=hidden,
        bias=c.bias,
        role="mlp",
        reads=reads,
        adds_to_residual=True,
        expert=expert,
    )
