"""Where the parameters, bytes and FLOPs of a model are, from its structure; nothing is run."""

from __future__ import annotations

from typing import Any

from litgpt_core.interpret.subject import Subject
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters, forward_flops_per_token
from litgpt_core.model.structure import structure


def breakdown(config: GPTConfig, *, seq_length: int) -> list[dict[str, Any]]:
    """Rows of group, parameters, and forward FLOPs for one token; the sums are those of `model/cost`.

    A tied head has no parameters of its own, but FLOPs. `attention scores` are the products with keys and values.
    """
    described = structure(config)
    rows: dict[str, list[float]] = {}

    def add(group: str, parameters: float, flops: float = 0.0) -> None:
        row = rows.setdefault(group, [0.0, 0.0])
        row[0] += parameters
        row[1] += flops

    for table in described.embeddings:
        name = "token embedding" if table.name.endswith("wte") else "position embedding"
        add(name, sum(p.size for p in table.parameters()))
    for layer in described.layers:
        for part in layer.norms:
            add("norms", sum(p.size for p in part.parameters()))
        for linear in layer.linears:
            used = linear.expert is None or linear.expert < config.n_expert_per_token
            group = {"attention": "attention", "router": "router"}.get(linear.role, "MLP")
            add(group, sum(p.size for p in linear.parameters()), 2.0 * linear.rows * linear.columns * used)
        keys = min(seq_length, layer.window or seq_length)
        add("attention scores", 0, 2.0 * config.n_head * (config.qk_head_dim + config.v_head_dim) * keys)
    add("norms", sum(p.size for p in described.last_norm.parameters()))
    head = sum(p.size for p in described.head.parameters() if not (described.tied and p.is_matrix))
    add("head", head, 2.0 * described.head.rows * described.head.columns)
    return [{"group": name, "parameters": int(count), "flops": flops} for name, (count, flops) in rows.items()]


def view(subject: Subject) -> dict[str, Any]:
    """The breakdown, bytes in float32 and bfloat16, and one line about the architecture."""
    c = subject.model.config
    length = min(c.block_size, 256)
    total = count_parameters(c)
    return {
        "rows": breakdown(c, seq_length=length),
        "parameters": total,
        "flops": forward_flops_per_token(c, seq_length=length),
        "seq_length": length,
        "bytes": {"float32": 4 * total, "bfloat16": 2 * total},
        "shape": {
            "n_layer": c.n_layer, "n_head": c.n_head, "n_query_groups": c.n_query_groups, "n_embd": c.n_embd,
            "block_size": c.block_size, "vocab_size": c.vocab_size, "mlp": c.mlp_class_name, "norm": c.norm_class_name,
            "tied": c.tie_embeddings, "parallel_residual": c.parallel_residual,
        },
    }  # fmt: skip
