"""The model as an ONNX graph: one step of generation, which is also the prefill.

    input_ids (B, T)  attention_mask (B, P + T)  position_ids (B, T)  past_key_values.N.key, .value (B, G, P, hs)
        --> logits (B, T, V)  present.N.key, .value (B, G, P + T, hs)

P is 0 for a prompt. A token sees the slots up to its own (in its window, if it has one) whose mask is 1, so sequences
of different lengths are padded on the left: mask 0, any position. Names are those of optimum's exports, which
onnxruntime-genai and transformers.js expect. Every operation is that of `litgpt_core.model`, in float32.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from litgpt_core.core.errors import CheckpointError
from litgpt_core.export.onnx.graph import Built, Graph
from litgpt_core.export.onnx.matrices import Matrices
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.rope import RotaryEmbedding, score_scaling
from litgpt_core.model.structure import BlockStructure, NormPart, last_norm, layer_structure

IDS, MASK, POSITIONS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"
PAST, PRESENT = "past_key_values.%d.%s", "present.%d.%s"


def refuse_unsupported(config: GPTConfig) -> None:
    """Raise CheckpointError for a part that the graph has no nodes for."""
    found = ["latent attention"] if config.latent_attention else []
    found += (
        ["a mixture of experts"] if any(config.mlp_class_of(at) == "LLaMAMoE" for at in range(config.n_layer)) else []
    )
    if found:
        raise CheckpointError(
            f"The model {config.name!r} has {' and '.join(found)}, which is not exported to ONNX.",
            needed="attention by groups and one network in each layer: GPT-2, GPT-NeoX, Llama, Qwen, Phi, Gemma",
            fix="--format huggingface, or --format gguf",
        )


def build(config: GPTConfig, matrices: Matrices) -> Built:
    """The model's graph.

    Args:
        config: `padded_vocab_size` is the rows of the embedding.
        matrices: Its weights.
    """
    return _Step(config, matrices).model()


class _Step:
    """Adds the nodes to one graph."""

    def __init__(self, config: GPTConfig, matrices: Matrices) -> None:
        refuse_unsupported(config)
        self.config, self.matrices, self.graph = config, matrices, Graph()
        self.scale = score_scaling(config.rope_adjustments) / math.sqrt(
            config.attention_scores_scalar or config.head_size
        )

    def model(self) -> Built:
        c, g = self.config, self.graph
        g.input(IDS, np.int64, ("batch", "length"))
        g.input(MASK, np.int64, ("batch", "total"))
        g.input(POSITIONS, np.int64, ("batch", "length"))
        for layer in range(c.n_layer):
            for part in ("key", "value"):
                g.input(PAST % (layer, part), np.float32, ("batch", c.n_query_groups, "past", c.head_size))
        x = self._embedded()
        self._make_masks()
        tables = self._rope_tables()
        marks = c.rope_indices or [0] * c.n_layer
        for layer in range(c.n_layer):
            x = self._block(x, layer_structure(c, layer), tables[marks[layer]] if tables else None)
        logits = self.matrices.linear(g, self._norm(x, last_norm(c), "transformer.ln_f"), "lm_head")
        g.add("Identity", self._capped(logits, c.final_logit_softcapping), output=LOGITS)
        g.output(LOGITS, np.float32, ("batch", "length", c.padded_vocab_size))
        for layer in range(c.n_layer):
            for part in ("key", "value"):
                g.output(PRESENT % (layer, part), np.float32, ("batch", c.n_query_groups, "total", c.head_size))
        return g.model()

    def _embedded(self) -> str:
        c, g = self.config, self.graph
        x = self.matrices.embedded(g, IDS)
        if c.scale_embeddings:
            x = g.add("Mul", x, g.number(c.n_embd**0.5))
        if c.position_embedding == "learned":
            name = "transformer.wpe.weight"
            x = g.add("Add", x, g.add("Gather", g.store(name, self.matrices.weights[name].numpy()), POSITIONS, axis=0))
        return x

    # --- masks and positions

    def _make_masks(self) -> None:
        """What is added to scores: 0 where a token may see a slot, else the most negative number; (B, 1, T, S)."""
        c, g = self.config, self.graph
        total = g.add("Squeeze", g.add("Shape", MASK, start=1, end=2))
        length = g.add("Squeeze", g.add("Shape", IDS, start=1, end=2))
        slots = g.add("Range", g.integer(0), total, g.integer(1))  # (S,)
        own = g.add("Range", g.add("Sub", total, length), total, g.integer(1))  # (T,)
        own = g.add("Unsqueeze", own, g.integers(1))
        real = g.add("Unsqueeze", g.add("Cast", MASK, to=9), g.integers(1, 2))  # bool, (B, 1, 1, S)
        seen = g.add("LessOrEqual", slots, own)  # (T, S)
        self.full = self._penalty(g.add("And", real, seen))
        if c.sliding_window_size is not None:
            recent = g.add("Greater", slots, g.add("Sub", own, g.integer(c.sliding_window_size)))
            self.windowed = self._penalty(g.add("And", real, g.add("And", seen, recent)))
        last = g.add("Unsqueeze", total, g.integers(0))
        heads = [g.integers(0), g.integers(c.n_head), g.integers(-1), last]
        groups = [g.integers(0), g.integers(c.n_query_groups), g.integers(-1), last]
        self.by_head, self.by_group = (g.add("Concat", *sizes, axis=0) for sizes in (heads, groups))

    def _penalty(self, seen: str) -> str:
        lowest = float(np.finfo(np.float32).min)
        return self.graph.add("Where", seen, self.graph.number(0), self.graph.number(lowest))

    def _rope_tables(self) -> list[tuple[str, str]]:
        """cos and sin (B, 1, T, n/2) of each base; none with learned positions."""
        c, g = self.config, self.graph
        if not c.rope_n_elem:
            return []
        with torch.device("cpu"):
            rope = RotaryEmbedding(c)
        positions = g.add("Unsqueeze", g.add("Cast", POSITIONS, to=1), g.integers(1, 3))  # (B, 1, T, 1)
        if c.rope_condense_ratio != 1:
            positions = g.add("Div", positions, g.number(c.rope_condense_ratio))
        tables = []
        for number, theta in enumerate(rope.theta):
            angles = g.add("Mul", positions, g.store(f"rope.theta.{number}", theta.numpy()))
            cos, sin = g.add("Cos", angles), g.add("Sin", angles)
            if rope.scaling != 1:
                cos, sin = (g.add("Mul", each, g.number(rope.scaling)) for each in (cos, sin))
            tables.append((cos, sin))
        return tables

    # --- one block

    def _block(self, x: str, block: BlockStructure, table: tuple[str, str] | None) -> str:
        c, g = self.config, self.graph
        norms = {part.name: part for part in block.norms}

        def normed(value: str, name: str) -> str:
            return self._norm(value, norms[name], block.path(name)) if name in norms else value

        first = normed(x, "norm_1")
        attended = g.add("Add", x, normed(self._attention(first, block, table, norms), "post_attention_norm"))
        if not c.shared_attention_norm:
            first = normed(x if c.parallel_residual else attended, "norm_2")
        return g.add("Add", attended, normed(self._mlp(first, block), "post_mlp_norm"))

    def _norm(self, x: str, norm: NormPart, path: str) -> str:
        c, g, weights = self.config, self.graph, self.matrices.weights
        weight = weights[f"{path}.weight"].numpy() if norm.weight else np.ones(norm.size, dtype=np.float32)
        if norm.unit_offset:
            weight = weight + np.float32(1)
        scale = g.store(f"{path}.scale", weight)
        if norm.kind == "LayerNorm":
            bias = weights[f"{path}.bias"].numpy() if norm.bias else np.zeros(norm.size, dtype=np.float32)
            stored = g.store(f"{path}.bias", bias)
            return g.add("LayerNormalization", x, scale, stored, axis=-1, epsilon=float(c.norm_eps))
        mean = g.add("ReduceMean", g.add("Pow", x, g.number(2)), g.integers(-1), keepdims=1)
        root = g.add("Sqrt", g.add("Add", mean, g.number(c.norm_eps)))
        return g.add("Mul", g.add("Div", x, root), scale)

    def _attention(
        self, x: str, block: BlockStructure, table: tuple[str, str] | None, norms: dict[str, NormPart]
    ) -> str:
        """(B, T, C) -> (B, T, C); query head i reads group i // (nh / G), so heads of a group are neighbours."""
        c, g = self.config, self.graph
        nh, ng, hs = c.n_head, c.n_query_groups, c.head_size
        q, k, v = g.split(self.matrices.linear(g, x, block.path("attn.qkv")), [nh * hs, ng * hs, ng * hs])

        def normed(value: str, name: str, *, olmo: bool) -> str:
            wanted = name in norms and (c.norm_qk_type == "olmo2") == olmo
            return self._norm(value, norms[name], block.path(name)) if wanted else value

        def heads(value: str, name: str, count: int) -> str:
            whole = g.reshape(normed(value, name, olmo=True), 0, 0, count, hs)
            return normed(g.add("Transpose", whole, perm=[0, 2, 1, 3]), name, olmo=False)

        q, k = self._rotated(heads(q, "attn.norm_q", nh), table), self._rotated(heads(k, "attn.norm_k", ng), table)
        k = self._cached(k, block.index, "key")
        v = self._cached(heads(v, "", ng), block.index, "value")
        q = q if nh == ng else g.reshape(q, 0, ng, -1, hs)  # (B, G, heads of a group * T, hs)
        scores = g.add("Mul", g.add("MatMul", q, g.add("Transpose", k, perm=[0, 1, 3, 2])), g.number(self.scale))
        scores = self._capped(scores, c.attention_logit_softcapping)
        scores = scores if nh == ng else g.add("Reshape", scores, self.by_head)
        shares = g.add("Softmax", g.add("Add", scores, self.full if block.window is None else self.windowed), axis=-1)
        shares = shares if nh == ng else g.add("Reshape", shares, self.by_group)
        y = g.add("MatMul", shares, v)
        y = y if nh == ng else g.reshape(y, 0, nh, -1, hs)
        y = g.reshape(g.add("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, nh * hs)
        return self.matrices.linear(g, y, block.path("attn.proj"))

    def _cached(self, new: str, layer: int, part: str) -> str:
        return self.graph.add("Concat", PAST % (layer, part), new, axis=2, output=PRESENT % (layer, part))

    def _rotated(self, x: str, table: tuple[str, str] | None) -> str:
        """(B, heads, T, hs): the first rope_n_elem of each head are turned."""
        c, g, n = self.config, self.graph, self.config.rope_n_elem
        if table is None:
            return x
        turned, *kept = g.split(x, [n, c.head_size - n]) if n < c.head_size else [x]
        if c.rope_interleave:
            pairs = g.split(g.add("Reshape", turned, g.integers(0, 0, -1, n // 2, 2)), [1, 1])
            a, b = (g.add("Squeeze", each, g.integers(-1)) for each in pairs)
        else:
            a, b = g.split(turned, [n // 2, n // 2])
        cos, sin = table
        first = g.add("Sub", g.add("Mul", a, cos), g.add("Mul", b, sin))
        second = g.add("Add", g.add("Mul", b, cos), g.add("Mul", a, sin))
        return g.add("Concat", first, second, *kept, axis=-1)

    def _mlp(self, x: str, block: BlockStructure) -> str:
        g = self.graph

        def linear(value: str, name: str) -> str:
            return self.matrices.linear(g, value, block.path(f"mlp.{name}"))

        if block.mlp == "GptNeoxMLP":
            return linear(self._curve(linear(x, "fc"), block.activation), "proj")
        gate = self._curve(linear(x, "fc_1"), block.activation)
        return linear(g.add("Mul", gate, linear(x, "fc_2")), "proj")

    def _curve(self, x: str, kind: str) -> str:
        g = self.graph
        if kind == "silu":
            return g.add("Mul", x, g.add("Sigmoid", x))
        if kind == "gelu":
            inner = g.add("Erf", g.add("Div", x, g.number(math.sqrt(2))))
        else:
            cube = g.add("Mul", g.add("Pow", x, g.number(3)), g.number(0.044715))
            inner = g.add("Tanh", g.add("Mul", g.add("Add", x, cube), g.number(math.sqrt(2 / math.pi))))
        return g.add("Mul", g.add("Mul", x, g.add("Add", inner, g.number(1))), g.number(0.5))

    def _capped(self, x: str, cap: float | None) -> str:
        g = self.graph
        if cap is None:
            return x
        return g.add("Mul", g.add("Tanh", g.add("Div", x, g.number(cap))), g.number(cap))
