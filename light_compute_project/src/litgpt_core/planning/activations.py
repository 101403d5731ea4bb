"""What a forward pass keeps for the backward pass, part by part of a block's structure: nothing is built.

Counted in bytes per token of the micro-batch, as eager PyTorch keeps it; a compiled step keeps less, because the
compiler recomputes cheap operations. Widths of numbers:

    32-true                             products 4, residual stream 4
    bf16-mixed by autocast              products 2, residual stream 4; every layer keeps its own bfloat16 input
    bf16-true, bf16-master, FSDP mixed  products 2, residual stream 2; RMSNorm computes in float32 and keeps 4

So a block of the GPT-2 kind with C = n_embd and 4 C hidden units keeps, in numbers per token:

    x, norm_1(x), qkv, y, x + proj(y), norm_2, fc, gelu(fc)   =   1 + 1 + 3 + 1 + 1 + 1 + 4 + 4   =   16 C

Which layers there are, their sizes and what each reads: `model/structure.py`. How attention is carried out:
`attention_kind`. Not here: weights, gradients, the optimizer, and who holds which share of them (`memory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.structure import BlockStructure, LinearPart, NormPart, last_norm, layer_structure

Device = Literal["cuda", "cpu"]
Checkpointing = Literal["none", "selective", "full"]

WIDE = 4
"""Bytes of statistics, of softmax and of the loss: float32 whatever the precision."""

WRITTEN_OUT_LENGTH = {2: 256, 4: 128}
QUERY_BLOCK = 128
"""`model/attend.py`'s, by width: contexts up to which a CPU holds the scores. A test compares; no torch here."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What decides how much is kept, besides the model."""

    length: int
    """Tokens of one sequence, T."""
    product: int
    """Bytes of a number in the result of a matrix product."""
    residual: int
    """Bytes of a number of the residual stream."""
    casts: bool = False
    """Autocast: every layer copies its input and its weight into the products' width."""
    sequences: int = 1
    """Of one micro-batch; they share masks."""
    segments: bool = False
    """Rows hold several conversations: a (T, T) mask of each sequence is kept, as numbers, by all layers together."""
    device: Device = "cuda"
    checkpointing: Checkpointing = "none"


@dataclass(frozen=True, kw_only=True)
class BlockBytes:
    """One block, bytes per token."""

    kept: float
    """From its forward pass to its backward pass."""
    again: float
    """Recomputed in its backward pass: with checkpointing only."""
    flowing: float
    """Gradients of activations that are alive at once in its backward pass."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What a part of a block keeps."""

    total: float
    """Everything that a derivative needs."""
    products: float = 0.0
    """What `selective` keeps: results of large products and of fused attention."""
    shared: float = 0.0
    """Of `products`, what is in `total`, too."""


def block_bytes(config: GPTConfig, layer: int, *, setup: Setup) -> BlockBytes:
    """What one block holds."""
    block = layer_structure(config, layer)
    norms = {norm.name: norm for norm in block.norms}
    parts = [_stream(config, block, setup), _attention(config, block, setup), _mlp(config, block, setup)]
    total, entry = sum(part.total for part in parts), config.n_embd * setup.residual
    copied = "norm_1" in norms and not _keeps_input(norms["norm_1"], setup.residual)  # then x itself is not needed
    rest = total - (0.0 if copied else entry)
    products, shared = sum(part.products for part in parts), sum(part.shared for part in parts)
    kept, again = {
        "none": (total, 0.0),
        "selective": (entry + products, rest - shared),
        "full": (entry, rest),
    }[setup.checkpointing]
    return BlockBytes(kept=kept, again=again, flowing=_flowing(config, block, setup))


def outer_bytes(config: GPTConfig, *, setup: Setup) -> float:
    """Bytes per token outside the blocks, without the loss: the last norm, and what the head reads."""
    hidden = config.n_embd * (setup.product if setup.casts else setup.residual)
    return _norm(last_norm(config), setup.residual, setup) + hidden + _dropout(config, setup.residual, setup)


def mask_bytes(c: GPTConfig, *, setup: Setup) -> float:
    """Bytes per token of the masks, of which all layers keep the same: (T, T) for each sequence, or one for all."""
    windows = {c.window_of(layer) for layer in range(c.n_layer)}
    narrow = [window for window in windows if window is not None and window < setup.length]
    if c.attention_logit_softcapping is not None:
        return 0.0
    kinds = len(windows) if setup.segments else len(narrow)
    return kinds * setup.length * setup.product / (1 if setup.segments else setup.sequences)


# ---- residual stream and norms ----


def _stream(c: GPTConfig, block: BlockStructure, s: Setup) -> _Kept:
    """The residual stream, as its norms keep it, and the norms' results, as the linear layers behind them keep them."""
    x, norms, kept = c.n_embd * s.residual, {norm.name: norm for norm in block.norms}, 0.0
    for name in ("norm_1", "norm_2"):
        reading = [linear for linear in block.linears if linear.reads == name and linear.role != "router"]
        readers = {linear.name.rpartition(".")[2] for linear in reading}  # experts share one input
        if not readers:
            continue
        result = c.n_embd * (len(readers) * s.product if s.casts else s.residual)
        kept += _norm(norms[name], s.residual, s) + result if name in norms else max(x, result)
        if name == "norm_2" and c.parallel_residual and _keeps_input(last_norm(c), s.residual):
            kept -= x  # both norms read the same x
    kept += sum(_norm(norms[name], s.product, s) for name in ("post_attention_norm", "post_mlp_norm") if name in norms)
    return _Kept(total=kept + 2 * _dropout(c, s.product, s))


def _norm(norm: NormPart, width: int, s: Setup, *, rows: int = 1) -> float:
    """What a norm over `rows` vectors per token, `width` bytes a number, keeps; its result not included."""
    numbers = norm.size * rows
    if norm.kind == "LayerNorm":
        return numbers * width + 2 * rows * WIDE
    no_kernel = s.device == "cpu"  # then x / rms is kept, for the derivative by the weight
    return numbers * max(width, WIDE) + rows * WIDE + (numbers * WIDE if no_kernel else 0)


def _keeps_input(norm: NormPart, width: int) -> bool:
    """Its input itself, where that need not be widened first."""
    return norm.kind == "LayerNorm" or width == WIDE


def _dropout(c: GPTConfig, width: int, s: Setup) -> float:
    """Which elements stay: a byte each on a GPU, a factor as wide as the input on a CPU."""
    return c.n_embd * (1 if s.device == "cuda" else width) if c.dropout else 0.0


# ---- attention ----


def _attention(c: GPTConfig, block: BlockStructure, s: Setup) -> _Kept:
    p, kind, grouped = s.product, attention_kind(c, block.index, setup=s), block.attention == "grouped"
    inner = [linear for linear in block.linears if linear.role == "attention" and not linear.adds_to_residual]
    source = next(linear for linear in inner if linear.row_groups or linear.reads == "latent key")  # makes the values
    y = sum(linear.columns for linear in block.linears if linear.reads == "attention")
    moved, before = bool(c.rope_n_elem) or c.norm_qk or not grouped, _inner_norms(block, source, s)
    if grouped:
        q, k, v = (rows for _, rows in source.row_groups)
    else:
        q = k = c.n_head * c.qk_head_dim
        v = y
    products = (sum(linear.rows for linear in inner) + c.n_embd) * p
    repeated = c.n_head // c.n_query_groups if grouped else 1
    if kind == "fused":
        made = (q + k) * p if moved else 0  # v is a part of the source's result, which therefore stays
        result = y * p + c.n_head * WIDE
        if grouped and _keys_repeated(c, block, s):  # the source's result is not needed then
            every = (q + (k + v) * repeated) * p
            total = before + every + result + (y * p if moved else 0)
            return _Kept(total=total, products=products + result, shared=result)
        total = before + source.rows * p + made + result + (y * p if moved else 0)
        return _Kept(total=total, products=products + result, shared=source.rows * p + result)
    copies = _query_blocks(s.length)[1] if kind == "written out" else 1.0
    keys = k * repeated * (1.0 if moved or repeated > 1 else copies)
    values = v * repeated * (1.0 if repeated > 1 else copies)
    normed = [norm for norm in block.norms if norm.name == "attn.norm_q"]
    seen = source.rows * p if normed and _keeps_input(normed[0], p) else 0
    read = (q + keys + values) * (WIDE if kind == "math" else p)
    return _Kept(total=before + seen + read + y * p + scores_bytes(c, kind, s), products=products)


def _inner_norms(block: BlockStructure, source: LinearPart, s: Setup) -> float:
    """Norms within attention: of queries and keys, or of latent vectors, which the next product reads."""
    p, kept = s.product, 0.0
    norms = [norm for norm in block.norms if norm.name.startswith("attn.")]
    if block.attention == "latent":
        made = next(linear.rows for linear in block.linears if linear.name == "attn.kv_a_proj_with_mqa")
        of_rope = made - source.columns  # of the same result as the normed latent
        kept = float(of_rope * p if p == WIDE else 0)
        return kept + sum(_norm(norm, p, s) + norm.size * p for norm in norms)
    sizes = dict(source.row_groups)
    for norm, group in zip(norms, ("query", "key"), strict=False):
        kept += _norm(norm, p, s, rows=sizes[group] // norm.size)
        kept -= sizes[group] * p if _keeps_input(norm, p) else 0  # the projection's result, counted with it
    return kept


def attention_kind(c: GPTConfig, layer: int, *, setup: Setup) -> Literal["fused", "written out", "soft-capped", "math"]:
    """How scores are handled: fused: never held; written out: by blocks of queries; the others: all of them.

    `math` is what torch falls back to on a CPU: with dropout, or values of another size than queries.
    """
    if c.attention_logit_softcapping is not None:
        return "soft-capped"
    if setup.device == "cuda":
        return "fused"
    any_window = c.sliding_window_size is not None and c.sliding_window_size < setup.length
    if not any_window and not setup.segments and setup.length <= WRITTEN_OUT_LENGTH[setup.product]:
        return "written out"
    return "math" if c.dropout or c.qk_head_dim != c.v_head_dim else "fused"


def _keys_repeated(c: GPTConfig, block: BlockStructure, s: Setup) -> bool:
    """Whether keys and values are repeated for every head, because a mask or float32 may leave a GPU no kernel for
    groups (`model/attend.py`).
    """
    masked = s.segments or (block.window or s.length) < s.length
    return s.device == "cuda" and c.n_query_groups != c.n_head and (masked or s.product == WIDE)


def scores_bytes(c: GPTConfig, kind: str, s: Setup) -> float:
    """What is kept of the scores, per token."""
    keys = _query_blocks(s.length)[0] if kind == "written out" else float(s.length)
    p = WIDE if kind == "math" else s.product
    narrow = p if p < WIDE else 0  # the softmax's result once more, as the product with the values reads it
    dropped = p + (1 if s.device == "cuda" else p)  # which stay, and what is left of them
    width = WIDE + (dropped if c.dropout else narrow) + (p if kind == "soft-capped" else 0)
    return c.n_head * keys * width + (keys / s.sequences if kind != "math" else 0.0)


def _query_blocks(length: int) -> tuple[float, float]:
    """Written out: keys per query, and copies of every key, because a block of queries sees none behind its end."""
    ends = [min(begin + QUERY_BLOCK, length) for begin in range(0, length, QUERY_BLOCK)]
    sizes = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    return sum(n * end for n, end in zip(sizes, ends, strict=True)) / length, sum(ends) / length


# ---- MLP ----


def _mlp(c: GPTConfig, block: BlockStructure, s: Setup) -> _Kept:
    """A dense MLP, or one routed expert as often as a token has experts, the shared ones, and the router."""
    if block.mlp == "LLaMAMoE":
        return _experts(c, block, s)
    made, result = _hidden(block, "mlp.proj") * s.product, c.n_embd * s.product
    return _Kept(total=2 * made, products=made + result, shared=made)


def _hidden(block: BlockStructure, down: str) -> int:
    """Numbers that the layers before `down` make: hidden units, twice as many where one layer gates the other."""
    group = down.removesuffix("proj")
    return sum(linear.rows for linear in block.linears if linear.name.startswith(group) and linear.name != down)


def _experts(c: GPTConfig, block: BlockStructure, s: Setup) -> _Kept:
    """Every token is copied for each of its experts; where they are many, so is the memory."""
    p, chosen, result = s.product, c.n_expert_per_token, c.n_embd * s.product
    made, of_shared = (_hidden(block, f"mlp.{name}.proj") * p for name in ("experts.0", "shared_experts"))
    together = s.device == "cuda" and p < WIDE  # one product of all experts, which read one copy
    gathered = c.n_embd * (p if together else 2 * p if s.casts else s.residual)
    routed = gathered + 2 * made + 2 * result + 4 * 8  # weighted, too; and indices
    router = c.n_expert * WIDE + 3 * chosen * WIDE + (result if s.casts else 0)
    within = chosen * (made + result) + of_shared
    return _Kept(
        total=chosen * routed + 2 * of_shared + router,
        products=within + (result if of_shared else 0),
        shared=within,
    )


def _flowing(c: GPTConfig, block: BlockStructure, s: Setup) -> float:
    """Gradients of the stream and of the hidden units (of a gate and of what it gates), or of scores that are held."""
    kind = attention_kind(c, block.index, setup=s)
    made = _hidden(block, "mlp.experts.0.proj" if block.mlp == "LLaMAMoE" else "mlp.proj")
    scores = 0.0 if kind == "fused" else scores_bytes(c, kind, s)
    return c.n_embd * (s.residual + (s.product if s.casts else 0)) + max(made * s.product, scores)
