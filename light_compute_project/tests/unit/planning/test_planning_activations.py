"""What the formula says is kept for the backward pass is what real blocks keep, byte by byte."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from benchmarks.live_memory import LiveMemory
from torch._subclasses.fake_tensor import FakeTensorMode

from litgpt_core.model import attend
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.structure import block_parameters
from litgpt_core.planning.activations import QUERY_BLOCK, WRITTEN_OUT_LENGTH, Setup, attention_kind, block_bytes
from litgpt_core.training.activation_checkpointing import checkpoint_blocks

BASE: dict[str, Any] = {
    "n_head": 4, "n_embd": 64, "block_size": 512, "vocab_size": 128,
    "parallel_residual": False, "rotary_percentage": 1.0,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    **BASE, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP", "intermediate_size": 192, "bias": False,
}  # fmt: skip
GQA = {**LLAMA, "n_query_groups": 2}
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 20, "qk_rope_head_dim": 4, "qk_nope_head_dim": 12, "v_head_dim": 8}
SHAPES: dict[str, dict[str, Any]] = {
    "GPT-2": {**BASE, "position_embedding": "learned"},
    "GPT-2 with dropout": {**BASE, "position_embedding": "learned", "dropout": 0.1},
    "NeoX, parallel": {**BASE, "parallel_residual": True, "rotary_percentage": 0.5},
    "one norm for both": {**BASE, "parallel_residual": True, "shared_attention_norm": True},
    "Llama": LLAMA,
    "grouped queries": GQA,
    "normed queries": {**GQA, "norm_qk": True},
    "norms behind": {**LLAMA, "post_attention_norm": True, "post_mlp_norm": True},
    "soft-capped": {**LLAMA, "attention_logit_softcapping": 20.0},
    "windowed": {**LLAMA, "sliding_window_size": 16},
    "latent": {**LLAMA, "latent_attention": LATENT},
    "experts": {**LLAMA, "mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2},
}
PRECISIONS = {
    "32-true": Setup(length=1, product=4, residual=4, device="cpu"),
    "bf16-mixed": Setup(length=1, product=2, residual=4, casts=True, device="cpu"),
    "bf16-true": Setup(length=1, product=2, residual=2, device="cpu"),
}
BATCH = 2


def setup(precision: str, *, length: int, mode: Any, segments: bool = False) -> Setup:
    known = PRECISIONS[precision]
    return Setup(
        length=length, product=known.product, residual=known.residual, casts=known.casts, device="cpu",
        sequences=BATCH, checkpointing=mode, segments=segments,
    )  # fmt: skip


def kept(config: GPTConfig, precision: str, *, mode: Any, length: int, segments: bool = False) -> int:
    """Bytes that are alive after a forward pass of the real model. Experts need numbers, the others only shapes."""
    with contextlib.nullcontext() if config.n_expert else FakeTensorMode():
        torch.set_default_dtype(torch.bfloat16 if precision == "bf16-true" else torch.float32)
        try:
            model = GPT(config).train()
        finally:
            torch.set_default_dtype(torch.float32)
        checkpoint_blocks(model, mode)
        idx = torch.randint(100, (BATCH, length))
        mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed")
        with LiveMemory() as memory:
            with mixed:
                hidden = model.hidden(idx, segments=torch.zeros_like(idx) if segments else None)
            alive = memory.live
        del hidden
    return int(alive)


def of_one_block(fields: dict[str, Any], precision: str, *, mode: Any, length: int, segments: bool = False) -> float:
    """Bytes per token that one block more keeps, without autocast's copies of its weights."""
    two, three = (
        kept(GPTConfig(n_layer=n, **fields), precision, mode=mode, length=length, segments=segments) for n in (2, 3)
    )
    copies = 0
    if precision == "bf16-mixed" and mode == "none":
        copies = 2 * sum(p.size for p in block_parameters(GPTConfig(n_layer=1, **fields), 0) if "norm" not in p.name)
    return (three - two - copies) / (BATCH * length)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", ["GPT-2", "Llama", "grouped queries"])
@pytest.mark.parametrize("length", [128, 512])
def test_rows_of_conversations_keep_no_mask_of_their_own_in_any_layer(shape: str, precision: str, length: int) -> None:
    """Where torch gets a boolean mask, it makes numbers of it in every layer anew and keeps them for the derivative."""
    fields = SHAPES[shape]
    wanted = setup(precision, length=length, mode="none", segments=True)
    said = block_bytes(GPTConfig(n_layer=1, **fields), 0, setup=wanted).kept
    assert said == pytest.approx(of_one_block(fields, precision, mode="none", length=length, segments=True), rel=0.005)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_keeps_what_the_formula_says(shape: str, precision: str) -> None:
    """To 0.5 %: norms' statistics are narrower on a CPU; experts keep indices; torch's own attention casts to drop."""
    fields, length = SHAPES[shape], 512
    said = block_bytes(GPTConfig(n_layer=1, **fields), 0, setup=setup(precision, length=length, mode="none")).kept
    bound = {"experts": 0.01, "GPT-2 with dropout": 0.015}.get(shape, 0.005)
    assert said == pytest.approx(of_one_block(fields, precision, mode="none", length=length), rel=bound)


@pytest.mark.parametrize("length", [100, 256])
@pytest.mark.parametrize("shape", ["GPT-2", "GPT-2 with dropout", "grouped queries", "normed queries", "latent"])
def test_scores_that_a_cpu_holds_are_counted(shape: str, length: int) -> None:
    config = GPTConfig(n_layer=1, **SHAPES[shape])
    wanted = setup("bf16-true", length=length, mode="none")
    assert attention_kind(config, 0, setup=wanted) == "written out"
    found = of_one_block(SHAPES[shape], "bf16-true", mode="none", length=length)
    assert block_bytes(config, 0, setup=wanted).kept == pytest.approx(found, rel=0.003)


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("shape", ["GPT-2", "NeoX, parallel", "grouped queries", "latent", "experts"])
def test_checkpointing_keeps_what_the_formula_says(shape: str, mode: str) -> None:
    for precision in PRECISIONS:
        said = block_bytes(GPTConfig(n_layer=1, **SHAPES[shape]), 0, setup=setup(precision, length=512, mode=mode)).kept
        found = of_one_block(SHAPES[shape], precision, mode=mode, length=512)
        assert said == pytest.approx(found, rel=0.004 if shape == "experts" else 1e-6)


def test_a_gpt2_block_by_hand() -> None:
    """16 C numbers, two norms' statistics, and one log-sum per head."""
    config = GPTConfig(n_layer=1, **SHAPES["GPT-2"])
    said = block_bytes(config, 0, setup=Setup(length=512, product=4, residual=4)).kept
    assert said == 16 * 64 * 4 + 2 * 2 * 4 + 4 * 4


def test_a_gpu_has_kernels_that_a_cpu_lacks() -> None:
    """RMSNorm in one kernel, dropout's choices as bytes; none for groups in float32: keys and values are repeated."""
    config = GPTConfig(n_layer=1, **GQA)
    on = {
        device: block_bytes(config, 0, setup=Setup(length=512, product=2, residual=2, device=device)).kept
        for device in ("cpu", "cuda")
    }
    assert on["cpu"] - on["cuda"] == 2 * 64 * 4
    wide, narrow = Setup(length=512, product=4, residual=4), Setup(length=512, product=2, residual=2)
    assert attention_kind(config, 0, setup=wide) == attention_kind(config, 0, setup=narrow) == "fused"
    masked = Setup(length=512, product=2, residual=2, segments=True)
    repeated = [block_bytes(config, 0, setup=each).kept for each in (masked, narrow)]
    heads, groups = 64, 32  # numbers per token of all queries, and of all keys
    assert repeated[0] - repeated[1] == 2 * ((heads + 2 * heads) - (heads + 2 * groups) - (heads + groups))


def test_the_lengths_are_those_of_the_model() -> None:
    widths = {2: torch.bfloat16, 4: torch.float32}
    assert {widths[width]: length for width, length in WRITTEN_OUT_LENGTH.items()} == attend.WRITTEN_OUT_LENGTH
    assert QUERY_BLOCK == attend.QUERY_BLOCK
