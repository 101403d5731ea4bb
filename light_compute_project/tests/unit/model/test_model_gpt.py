"""What a GPT promises whatever its kind: causality, a cache that changes nothing, ties that hold, no graph breaks."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.doctor.model_checks import KINDS, MODEL_CHECKS, Check, build
from litgpt_core.model import GPT, GPTConfig
from litgpt_core.model.attend import attend
from litgpt_core.model.cost import count_parameters
from litgpt_core.model.init import initialize
from litgpt_core.model.mask import build_masks

V, T = 61, 16


def tokens(batch: int = 2, length: int = T) -> Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
def test_smoke_check(check: Check) -> None:
    result = check()
    assert result.passed, f"{result.name}: {result.detail}"
    assert result.seconds > 0


def test_a_failing_check_reports_and_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attention that sees the future must fail both the causality check and the cache check."""

    def leaky(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, **options: Any) -> Tensor:
        return attend(q, k, v, mask=torch.ones(q.size(2), k.size(2), dtype=torch.bool), **options)

    monkeypatch.setattr("litgpt_core.model.attention.attend", leaky)
    by_name = {result.name: result for result in (check() for check in MODEL_CHECKS[:2])}
    assert by_name["shapes"].passed
    assert not by_name["causal mask"].passed
    assert "past logit moved" in by_name["causal mask"].detail


# --- KV cache


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_reused_cache_forgets_the_sequence_before(kind: str) -> None:
    model = build(kind).eval()
    model.set_kv_cache(3, max_seq_length=T)
    model(tokens(3).flip(1), input_pos=torch.arange(T))
    again = model(tokens(2), input_pos=torch.arange(T))
    torch.testing.assert_close(again, model(tokens(2)), atol=1e-6, rtol=1e-5)
    model.clear_kv_cache()
    with pytest.raises(RuntimeError, match="set_kv_cache"):
        model(tokens(), input_pos=torch.arange(T))


def test_the_cache_keeps_no_graph_and_leaves_no_key() -> None:
    model = build("MHA")
    names = set(model.state_dict())
    model.set_kv_cache(1, max_seq_length=T, dtype=torch.float64)
    model(tokens(1), input_pos=torch.arange(T))
    caches = dict(model.named_buffers())
    assert not any(buffer.requires_grad for buffer in caches.values())
    assert caches["transformer.h.0.attn.kv_cache.k"].dtype == torch.float64
    assert set(model.state_dict()) == names


@pytest.mark.parametrize(("batch", "length"), [(0, 8), (1, 0), (1, T + 1)])
def test_an_impossible_cache_is_refused(batch: int, length: int) -> None:
    with pytest.raises(ConfigError, match="KV cache"):
        build("MHA").set_kv_cache(batch, max_seq_length=length)


def test_a_sequence_longer_than_the_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="17 tokens were given to a model with block_size=16"):
        build("MHA")(tokens(1, 17))


# --- masks and attention


@pytest.mark.parametrize("window", [None, 1, 3, 40])
@pytest.mark.parametrize("cached", [False, True])
def test_masks_say_what_the_definition_says(window: int | None, cached: bool) -> None:
    config = GPTConfig(
        n_layer=1,
        n_head=1,
        n_embd=4,
        rotary_percentage=1.0,
        sliding_window_size=window,
        attention_logit_softcapping=9.0,
    )
    positions = torch.tensor([2, 3, 4]) if cached else torch.arange(5)
    masks = build_masks(config, positions, n_slots=7 if cached else None)
    for name, width in (("full", None), ("windowed", window)):
        mask = getattr(masks, name)
        expected = [[0 <= i - j < (width or 99) for j in range(7 if cached else 5)] for i in positions.tolist()]
        assert mask.tolist() == expected


def test_no_mask_is_made_where_a_fused_kernel_does_without() -> None:
    plain = GPTConfig(n_layer=1, n_head=1, n_embd=4, rotary_percentage=1.0, sliding_window_size=8)
    assert build_masks(plain, torch.arange(8)) == (None, None)
    full, windowed = build_masks(plain, torch.arange(9))
    assert full is None
    assert windowed is not None


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_attend_equals_a_loop_over_heads_and_queries(softcap: float | None) -> None:
    q, k, v = torch.randn(2, 4, 5, 6), torch.randn(2, 2, 5, 6), torch.randn(2, 2, 5, 3)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    y = attend(q, k, v, mask=mask, scale=0.4, softcap=softcap)
    for head in range(4):
        for i in range(5):
            scores = (q[:, head, i, None] * k[:, head // 2, : i + 1]).sum(-1) * 0.4
            scores = softcap * torch.tanh(scores / softcap) if softcap else scores
            expected = (scores.softmax(-1)[..., None] * v[:, head // 2, : i + 1]).sum(1)
            torch.testing.assert_close(y[:, head, i], expected)


# --- tied embeddings


def tied(**overrides: Any) -> GPT:
    return build("learned positions, tied", **overrides)


def is_tied(model: GPT) -> bool:
    return model.lm_head.weight is model.transformer.wte.weight


def test_a_tied_weight_is_one_parameter_under_two_names() -> None:
    model = tied()
    names = {"lm_head.weight", "transformer.wte.weight"}
    assert names <= set(model.state_dict())
    assert (
        model.num_parameters() == count_parameters(model.config) == tied(tie_embeddings=False).num_parameters() - V * 32
    )
    assert model.num_parameters(embedding=False) == tied(tie_embeddings=False).num_parameters(embedding=False)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_keeps_the_tie(assign: bool) -> None:
    source, model = tied(seed=7), tied()
    model.load_state_dict(source.state_dict(), assign=assign)
    assert is_tied(model)
    assert torch.equal(model(tokens()), source(tokens()))


def test_one_of_the_two_names_is_enough() -> None:
    state = tied(seed=7).state_dict()
    del state["lm_head.weight"]
    model = tied()
    model.load_state_dict(state)
    assert torch.equal(model.lm_head.weight, state["transformer.wte.weight"])


def test_untied_weights_are_not_squeezed_into_tied_ones() -> None:
    with pytest.raises(CheckpointError, match="differ") as caught:
        tied().load_state_dict(tied(tie_embeddings=False).state_dict())
    assert caught.value.fix == "model.tie_embeddings=false"


def test_moving_copying_and_pickling_keep_the_tie() -> None:
    model = tied()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert is_tied(copy.deepcopy(model))
    assert is_tied(torch.load(buffer, weights_only=False))
    assert is_tied(model.to(torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_made_on_meta_can_be_filled(kind: str) -> None:
    with torch.device("meta"):
        model = GPT(build(kind).config)
    model = model.to_empty(device="cpu")
    initialize(model, seed=0)
    assert torch.equal(model.eval()(tokens()), build(kind).eval()(tokens()))
    assert is_tied(model) == model.config.tie_embeddings


# --- dtypes, dropout, compile


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_bf16_keeps_its_dtype_and_stays_near_fp32(kind: str) -> None:
    model = build(kind).eval()
    expected = model(tokens())
    model.to(torch.bfloat16)
    if model.transformer.rope is not None:
        assert model.transformer.rope.theta.dtype == torch.float32
    logits = model(tokens())
    assert logits.dtype == torch.bfloat16
    assert float((logits.float() - expected).abs().max() / expected.abs().max()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_runs_forward_and_backward(kind: str) -> None:
    model = build(kind, dropout=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(tokens()).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())


def test_dropout_follows_the_global_seed_and_is_off_in_eval() -> None:
    model, plain = build("MHA", dropout=0.3), build("MHA").eval()
    torch.manual_seed(1)
    first = model(tokens())
    assert not torch.equal(model(tokens()), first)
    torch.manual_seed(1)
    assert torch.equal(model(tokens()), first)
    assert torch.equal(model.eval()(tokens()), plain(tokens()))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mixture of experts"])
def test_the_training_path_traces_without_a_graph_break(kind: str) -> None:
    model = build(kind, scale_embeddings=True)
    expected = model(tokens())
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens()), expected)


@torch.no_grad()
def test_one_token_steps_do_not_recompile() -> None:
    model = build("MHA").eval()
    model.set_kv_cache(1, max_seq_length=T)
    torch._dynamo.reset()
    graphs: list[Any] = []

    def counting(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    step = torch.compile(model, fullgraph=True, backend=counting, dynamic=False)
    full = model(tokens(1))
    for i in range(6):
        logits = step(tokens(1)[:, i : i + 1], input_pos=torch.tensor([i]))
        torch.testing.assert_close(logits[:, 0], full[:, i], atol=1e-6, rtol=1e-5)
    assert len(graphs) == 1


def test_learned_positions_matter_and_are_under_upstreams_kind_of_name() -> None:
    model = tied().eval()
    assert model.state_dict()["transformer.wpe.weight"].shape == (T, 32)
    same = torch.full((1, 4), 5)
    logits = model(same)
    assert not torch.allclose(logits[0, 0], logits[0, 3], atol=1e-4)
