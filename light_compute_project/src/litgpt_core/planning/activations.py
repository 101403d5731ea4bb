"""What a forward pass keeps for the backward pass, tensor by tensor, from the config alone: nothing is built.

Counted in bytes per token of the micro-batch, as eager PyTorch keeps it; a compiled step keeps less, because the
compiler computes cheap things again. How wide numbers are:

    32-true                             products 4, residual stream 4
    bf16-mixed by autocast              products 2, residual stream 4; every layer keeps its own narrow input
    bf16-true, bf16-master, FSDP mixed  products 2, residual stream 2; RMSNorm computes in float32 and keeps 4

So a block of the GPT-2 kind with C = n_embd and 4 C hidden units keeps, in numbers per token:

    x, norm_1(x), qkv, y, x + proj(y), norm_2, fc, gelu(fc)   =   1 + 1 + 3 + 1 + 1 + 1 + 4 + 4   =   16 C

Not here: weights, gradients, the optimizer, and who holds which share of them (`cost`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.config_checks import latent_dims

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
    """Bytes of a number that a matrix product makes."""
    residual: int
    """Bytes of a number of the stream that blocks read and add to."""
    casts: bool = False
    """Autocast: every layer copies its input and its weight into the products' width."""
    sequences: int = 1
    """Of one micro-batch; masks are shared by them."""
    device: Device = "cuda"
    checkpointing: Checkpointing = "none"


@dataclass(frozen=True, kw_only=True)
class BlockBytes:
    """One block, bytes per token."""

    kept: float
    """From its forward pass to its backward pass."""
    again: float
    """Computed once more in its backward pass: with checkpointing only."""
    flowing: float
    """Gradients of activations that are alive at once in its backward pass."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    kept: float
    """Everything that a derivative needs."""
    products: float = 0.0
    """What `selective` keeps: results of large products and of fused attention."""
    shared: float = 0.0
    """Of `products`, what is in `kept`, too."""


def block_bytes(c: GPTConfig, layer: int, *, setup: Setup) -> BlockBytes:
    """What one block holds."""
    parts = [*_norms(c, setup), _attention(c, layer, setup), _mlp(c, layer, setup)]
    whole, entry = sum(part.kept for part in parts), c.n_embd * setup.residual
    copied = c.norm_1 and not _norms_keep_input(c, setup.residual)  # then x itself is not needed
    rest = whole - (0.0 if copied else entry)
    products, shared = sum(part.products for part in parts), sum(part.shared for part in parts)
    kept, again = {
        "none": (whole, 0.0),
        "selective": (entry + products, rest - shared),
        "full": (entry, rest),
    }[setup.checkpointing]
    return BlockBytes(kept=kept, again=again, flowing=_flowing(c, layer, setup))


def outer_bytes(c: GPTConfig, *, setup: Setup) -> float:
    """Bytes per token outside the blocks, without the loss: the last norm, and what the head reads."""
    hidden = c.n_embd * (setup.product if setup.casts else setup.residual)
    return _norm(c, c.n_embd, setup.residual, setup) + hidden + _dropout(c, setup.residual, setup)


@dataclass(frozen=True, kw_only=True)
class LossBytes:
    """The logits and what is made of them, bytes at once."""

    forward: float
    backward: float


def loss_bytes(c: GPTConfig, *, tokens: int, chunk: int, setup: Setup) -> LossBytes:
    """What the loss takes at its most, and at the beginning of the backward pass.

    Logits as float32 and their log-softmax; then two gradients beside that. In chunks only one
    chunk's are there, but the head's gradient is added up, and the stream's is gathered.
    """
    p, columns = setup.product, c.padded_vocab_size
    rows = min(chunk or tokens, tokens)
    capped = p if c.final_logit_softcapping is not None else 0
    table = columns * c.n_embd * p
    forward = rows * columns * (2 * WIDE + capped)
    backward = rows * columns * (3 * WIDE + capped)
    if chunk:
        return LossBytes(forward=forward, backward=backward + table + tokens * c.n_embd * p)
    product = rows * columns * p + table + (table // p * WIDE if setup.casts else 0)
    return LossBytes(forward=forward, backward=max(backward, product))


# ---- norms and residual stream ----


def _norms(c: GPTConfig, s: Setup) -> list[_Part]:
    """The residual stream, as its norms keep it, and what the layers behind them read."""
    width, readers = c.n_embd, _readers(c)
    reads_attention, reads_mlp = (_inputs(c, number, s) for number in readers)
    first = _norm(c, width, s.residual, s) + reads_attention if c.norm_1 else max(width * s.residual, reads_attention)
    if c.shared_attention_norm:
        second = reads_mlp if s.casts else 0.0
    else:
        second = _norm(c, width, s.residual, s) + reads_mlp if c.norm_2 else max(width * s.residual, reads_mlp)
        if c.parallel_residual and _norms_keep_input(c, s.residual):
            second -= width * s.residual  # x again
    behind = sum(
        _norm(c, width, s.product, s) for wanted in (c.post_attention_norm, c.post_mlp_norm) if wanted
    ) + 2 * _dropout(c, s.product, s)
    return [_Part(kept=first), _Part(kept=second), _Part(kept=behind)]


def _norm(c: GPTConfig, size: int, width: int, s: Setup, *, rows: int = 1, kind: str = "") -> float:
    """What a norm over `rows` vectors of together `size` numbers, `width` bytes each, keeps; not its result."""
    if (kind or c.norm_class_name) == "LayerNorm":
        return size * width + 2 * rows * WIDE
    no_kernel = s.device == "cpu"  # then x / rms is kept, for the derivative by the weight
    return size * max(width, WIDE) + rows * WIDE + (size * WIDE if no_kernel else 0)


def _inputs(c: GPTConfig, readers: int, s: Setup) -> float:
    """A norm's result as its linear layers keep it."""
    return c.n_embd * (readers * s.product if s.casts else s.residual)


def _readers(c: GPTConfig) -> tuple[int, int]:
    """Linear layers that read the attention's and the MLP's input."""
    return (1 if c.latent_attention is None else 2), (1 if c.mlp_class_name == "GptNeoxMLP" else 2)


def _dropout(c: GPTConfig, width: int, s: Setup) -> float:
    """Which elements stay: a byte each on a GPU, a factor as wide as the input on a CPU."""
    return c.n_embd * (1 if s.device == "cuda" else width) if c.dropout else 0.0


# ---- attention ----


def _attention(c: GPTConfig, layer: int, s: Setup) -> _Part:
    p, kind = s.product, attention_kind(c, layer, setup=s)
    q, k, v = c.n_head * c.qk_head_dim, c.n_query_groups * c.qk_head_dim, c.n_query_groups * c.v_head_dim
    y, moved = c.n_head * c.v_head_dim, bool(c.rope_n_elem) or c.norm_qk
    if c.latent_attention is None:
        projected, before, rows = q + k + v, _query_key_norms(c, q, k, s), q + k + v
    else:
        rows, projected, before = _latent(c, s)
        k, v, moved = q, y, True
    products = (projected + c.n_embd) * p
    if kind == "fused":
        made = (q + k) * p if moved else 0  # v is a part of the projection's result, which therefore stays
        result = y * p + c.n_head * WIDE
        kept = before + rows * p + made + result + (y * p if moved else 0)
        mask = s.length * p / s.sequences if _windowed(c, layer, s) else 0
        return _Part(kept=kept + mask, products=products + result, shared=rows * p + result)
    repeated = c.n_head // c.n_query_groups if c.latent_attention is None else 1
    copies = _blocks(s.length)[1] if kind == "written out" else 1.0
    keys = k * repeated * (1.0 if moved or repeated > 1 else copies)
    values = v * repeated * (1.0 if repeated > 1 else copies)
    seen = rows * p if c.norm_qk and _norms_keep_input(c, p) else 0
    read = (q + keys + values) * (WIDE if kind == "math" else p)
    return _Part(kept=before + seen + read + y * p + scores_bytes(c, kind, s), products=products)


def attention_kind(c: GPTConfig, layer: int, *, setup: Setup) -> Literal["fused", "written out", "soft-capped", "math"]:
    """How scores are handled: fused: never held; written out: by blocks of queries; the others: all of them.

    `math` is what torch falls back to. On a CPU: dropout, or values of another size than queries. On a GPU, as of torch
    2.11: grouped queries in float32 or behind a sliding window.
    """
    grouped, windowed = c.n_query_groups != c.n_head and c.latent_attention is None, _windowed(c, layer, setup)
    if c.attention_logit_softcapping is not None:
        return "soft-capped"
    if setup.device == "cuda":
        return "math" if grouped and (setup.product == WIDE or windowed) else "fused"
    if not _any_window(c, setup) and setup.length <= WRITTEN_OUT_LENGTH[setup.product]:
        return "written out"
    return "math" if c.dropout or c.qk_head_dim != c.v_head_dim else "fused"


def scores_bytes(c: GPTConfig, kind: str, s: Setup) -> float:
    """What is kept of the scores, per token."""
    keys = _blocks(s.length)[0] if kind == "written out" else float(s.length)
    p = WIDE if kind == "math" else s.product
    narrow = p if p < WIDE else 0  # the softmax's result once more, as the product with the values reads it
    dropped = p + (1 if s.device == "cuda" else p)  # which stay, and what is left of them
    width = WIDE + (dropped if c.dropout else narrow) + (p if kind == "soft-capped" else 0)
    return c.n_head * keys * width + (keys / s.sequences if kind != "math" else 0.0)


def _blocks(length: int) -> tuple[float, float]:
    """Written out: keys per query, and copies of every key, because a block of queries sees none behind its end."""
    ends = [min(begin + QUERY_BLOCK, length) for begin in range(0, length, QUERY_BLOCK)]
    sizes = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    return sum(n * end for n, end in zip(sizes, ends, strict=True)) / length, sum(ends) / length


def _any_window(c: GPTConfig, s: Setup) -> bool:
    return c.sliding_window_size is not None and c.sliding_window_size < s.length


def _windowed(c: GPTConfig, layer: int, s: Setup) -> bool:
    return (c.window_of(layer) or s.length) < s.length


def _query_key_norms(c: GPTConfig, q: int, k: int, s: Setup) -> float:
    if not c.norm_qk:
        return 0.0
    rows = (1, 1) if c.norm_qk_type == "olmo2" else (c.n_head, c.n_query_groups)
    kept = sum(_norm(c, size, s.product, s, rows=n) for size, n in zip((q, k), rows, strict=True))
    return kept - ((q + k) * s.product if _norms_keep_input(c, s.product) else 0)


def _norms_keep_input(c: GPTConfig, width: int) -> bool:
    """The projection's result itself, where it need not be widened first."""
    return c.norm_class_name == "LayerNorm" or width == WIDE


def _latent(c: GPTConfig, s: Setup) -> tuple[int, int, float]:
    """Numbers of the wide result that holds the values, of all products, and bytes of the bottlenecks."""
    assert c.latent_attention is not None
    d = latent_dims(c.latent_attention)
    ranks = d["q_lora_rank"], d["kv_lora_rank"]
    wide = c.n_head * (d["qk_nope_head_dim"] + c.v_head_dim)
    narrow = sum(_norm(c, rank, s.product, s, kind="RMSNorm") + rank * s.product for rank in ranks)
    rope = d["qk_rope_head_dim"] * s.product if s.product == WIDE else 0  # of the same result as the normed latent
    return wide, sum(ranks) + d["qk_rope_head_dim"] + c.n_head * c.qk_head_dim + wide, narrow + rope


# ---- MLP ----


def _mlp(c: GPTConfig, layer: int, s: Setup) -> _Part:
    p, kind = s.product, c.mlp_class_of(layer)
    if kind == "LLaMAMoE":
        return _experts(c, s)
    hidden = c.intermediate_size * p
    if kind == "GptNeoxMLP":
        return _Part(kept=2 * hidden, products=hidden + c.n_embd * p, shared=hidden)
    return _Part(kept=4 * hidden, products=2 * hidden + c.n_embd * p, shared=2 * hidden)


def _experts(c: GPTConfig, s: Setup) -> _Part:
    """Every token is copied for each of its experts; where they are many, so is the memory."""
    p, size, chosen = s.product, c.moe_intermediate_size or c.intermediate_size, c.n_expert_per_token
    gathered = c.n_embd * (2 * p if s.casts else s.residual)
    results = c.n_embd * p
    routed = gathered + 4 * size * p + 2 * results + 4 * 8  # weighted, too; and indices
    shared = size * (c.n_shared_expert or 0) * p
    router = c.n_expert * WIDE + 3 * chosen * WIDE + (c.n_embd * p if s.casts else 0)
    products = chosen * (2 * size * p + results) + 2 * shared + (c.n_embd * p if shared else 0)
    return _Part(
        kept=chosen * routed + 4 * shared + router, products=products, shared=products - (c.n_embd * p if shared else 0)
    )


def _flowing(c: GPTConfig, layer: int, s: Setup) -> float:
    """Gradients of the stream and of the hidden units (of a gate and of what it gates), or of scores that are held."""
    mlp, kind = c.mlp_class_of(layer), attention_kind(c, layer, setup=s)
    hidden = c.intermediate_size * (1 if mlp == "GptNeoxMLP" else 2)
    if mlp == "LLaMAMoE":
        hidden = 2 * (c.moe_intermediate_size or c.intermediate_size)
    scores = 0.0 if kind == "fused" else scores_bytes(c, kind, s)
    return c.n_embd * (s.residual + (s.product if s.casts else 0)) + max(hidden * s.product, scores)
