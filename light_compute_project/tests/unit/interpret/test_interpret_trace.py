"""Tracing: the exact identities for every family of models, no cost when off, nothing left behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litgpt_core import interpret
from litgpt_core.core.errors import ConfigError
from litgpt_core.interpret.attribution import attribute
from litgpt_core.interpret.decompose import traced_parts
from litgpt_core.interpret.lens import lens_log_probs
from litgpt_core.interpret.names import OUTER, available, components, expand, parse_component, table
from litgpt_core.interpret.tracing import trace
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

VOCABULARY, LENGTH = 29, 12
LATENT = {"q_lora_rank": 10, "kv_lora_rank": 6, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 5}
examples = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
PLAIN: dict[str, Any] = {
    "n_layer": 2, "n_head": 4, "n_embd": 16, "block_size": 16, "vocab_size": 29, "padding_multiple": 8,
    "parallel_residual": False, "rotary_percentage": 1.0,
}  # fmt: skip


@st.composite
def settings_of_a_model(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of a GPTConfig: every switch that changes what flows where."""
    flag = st.booleans()
    fields: dict[str, Any] = {
        "name": draw(st.sampled_from(["", "Gemma-x", "OLMo-x"])),
        "n_layer": draw(st.integers(1, 3)), "n_head": 4, "n_embd": 16, "block_size": 16,
        "vocab_size": VOCABULARY, "padding_multiple": 8,
        "norm_class_name": draw(st.sampled_from(["RMSNorm", "LayerNorm"])),
        "bias": draw(flag), "lm_head_bias": draw(flag), "tie_embeddings": draw(flag),
        "post_attention_norm": draw(flag), "post_mlp_norm": draw(flag), "norm_1": draw(flag), "norm_2": draw(flag),
        "parallel_residual": draw(flag), "scale_embeddings": draw(flag),
        "attention_logit_softcapping": draw(st.sampled_from([None, 5.0])),
        "final_logit_softcapping": draw(st.sampled_from([None, 3.0])),
        "sliding_window_size": draw(st.sampled_from([None, 3])),
    }  # fmt: skip
    if fields["parallel_residual"]:
        fields["shared_attention_norm"] = draw(flag)
    attention = draw(st.sampled_from(["mha", "gqa", "mqa", "latent", "wide heads"]))
    if attention == "latent":
        fields |= {"latent_attention": LATENT, "sliding_window_size": None}
    else:
        fields |= {"n_query_groups": {"gqa": 2, "mqa": 1}.get(attention, 4), "norm_qk": draw(flag)}
        fields |= {"head_size": 8} if attention == "wide heads" else {}
        learned = draw(flag)
        fields |= (
            {"position_embedding": "learned"} if learned else {"rotary_percentage": draw(st.sampled_from([0.5, 1.0]))}
        )
    mlp = draw(st.sampled_from(["GptNeoxMLP", "LLaMAMLP", "GemmaMLP", "LLaMAMoE", "grouped"]))
    fields |= {"mlp_class_name": "LLaMAMoE" if mlp == "grouped" else mlp, "intermediate_size": 20}
    if mlp in ("LLaMAMoE", "grouped"):
        fields |= {"n_expert": 4, "n_expert_per_token": 2, "moe_intermediate_size": 12}
    if mlp == "grouped":
        fields |= {"n_expert_groups": 2, "n_topk_groups": 1, "n_topk_scores_per_group": 2, "n_shared_expert": 1}
    return fields


def build(fields: dict[str, Any], *, seed: int = 0) -> GPT:
    """A model with weights far enough from their initial values for every part to matter, in float64."""
    model = GPT(GPTConfig(**fields))
    initialize(model, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.double().eval()


def some_ids(batch: int = 2, length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


@examples
@given(settings_of_a_model())
def test_every_activation_has_its_shape_and_recording_changes_no_bit(fields: dict[str, Any]) -> None:
    model, ids = build(fields), some_ids()
    c = model.config
    plain = model(ids)
    names = list(available(c))
    with trace(model, names) as seen:
        traced = model(ids)
    assert torch.equal(plain, traced)
    assert set(seen) == set(names)
    sizes = {
        "B": 2, "T": LENGTH, "C": c.n_embd, "V": c.padded_vocab_size, "nh": c.n_head, "hs": c.qk_head_dim,
        "hs_v": c.v_head_dim, "G": c.n_head if c.latent_attention else c.n_query_groups, "I": c.intermediate_size,
        "N": 2 * LENGTH, "n_expert": c.n_expert,
    }  # fmt: skip
    for name, kind in available(c).items():
        assert seen[name].shape == tuple(sizes[letter] for letter in kind.shape.split()), name
    assert torch.equal(seen["embed"], seen["0.resid_pre"])


@examples
@given(settings_of_a_model())
def test_the_parts_sum_to_the_residual_stream_and_to_the_logits(fields: dict[str, Any]) -> None:
    model, ids = build(fields), some_ids(1)
    parts, seen = traced_parts(model, ids)
    last = seen[f"{model.config.n_layer - 1}.resid_post"]
    torch.testing.assert_close(sum(parts.values()), last, rtol=1e-9, atol=1e-9)
    for token, position in ((3, 0), (17, LENGTH - 1)):
        added = attribute(model, parts, last, token=token, position=position)
        assert sum(added.values()) == pytest.approx(float(seen["logits"][0, position, token]), abs=1e-8)
        against = attribute(model, parts, last, token=token, position=position, against=5)
        difference = seen["logits"][0, position, token] - seen["logits"][0, position, 5]
        assert sum(against.values()) == pytest.approx(float(difference), abs=1e-8)
    centred = attribute(model, parts, last, token=4, position=2, centred=True)
    column = seen["logits"][0, 2, : model.config.vocab_size]
    assert sum(centred.values()) == pytest.approx(float(column[4] - column.mean()), abs=1e-8)


@examples
@given(settings_of_a_model())
def test_patterns_mix_values_and_the_lens_ends_in_the_prediction(fields: dict[str, Any]) -> None:
    model, ids = build(fields), some_ids()
    with trace(model, ["*.pattern", "*.v", "*.z"]) as seen:
        logits = model(ids)
    for layer in range(model.config.n_layer):
        pattern, v = seen[f"{layer}.pattern"], seen[f"{layer}.v"]
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)), rtol=0, atol=1e-12)
        mixed = pattern @ v.repeat_interleave(model.config.n_head // v.size(1), dim=1)
        torch.testing.assert_close(mixed.transpose(1, 2), seen[f"{layer}.z"], rtol=1e-9, atol=1e-9)
    expected = logits[..., : model.config.vocab_size].log_softmax(-1)
    lens = lens_log_probs(model, ids)
    assert len(lens) == model.config.n_layer + 1
    torch.testing.assert_close(lens[-1], expected, rtol=1e-9, atol=1e-9)


@examples
@given(settings_of_a_model())
def test_an_edit_replaces_what_flows_on(fields: dict[str, Any]) -> None:
    """The last residual stream of text A put into text B gives A's logits; an edit that changes nothing changes
    nothing; the identity as a pattern makes z the values."""
    model, a, b = build(fields), some_ids(seed=1), some_ids(seed=2)
    last = f"{model.config.n_layer - 1}.resid_post"
    with trace(model, [last]) as seen:
        expected = model(a)
    with trace(model, edit={last: lambda _: seen[last]}):
        assert torch.equal(model(b), expected)
    same = {name: (lambda value: value.clone()) for name in available(model.config)}
    with trace(model, edit=same):
        torch.testing.assert_close(model(a), expected, rtol=1e-9, atol=1e-9)
    with trace(model, ["0.z", "0.v"], edit={"0.pattern": lambda p: torch.eye(p.size(-1)).to(p).expand_as(p)}) as own:
        model(a)
    values = own["0.v"].repeat_interleave(model.config.n_head // own["0.v"].size(1), dim=1)
    torch.testing.assert_close(own["0.z"], values.transpose(1, 2), rtol=0, atol=0)


def snapshot(model: GPT) -> list[Any]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), sorted(m.__dict__)) for m in model.modules()]
    attend = [m.attend for m in model.modules() if "attend" in m.__dict__]
    return [hooks, attend, list(model.state_dict())]


@pytest.mark.parametrize("moe", [False, True])
def test_nothing_is_left_behind_after_an_exception(moe: bool) -> None:
    more = (
        {"mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2, "intermediate_size": 12} if moe else {}
    )
    model, ids = build(PLAIN | more), some_ids()
    before, plain = snapshot(model), model(ids)

    def fail(value: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), trace(model, list(available(model.config)), edit={"1.pattern": fail}):
        model(ids)
    with pytest.raises(ConfigError, match="no layer 7"), trace(model, ["0.z", "7.z"]):
        pass
    assert snapshot(model) == before
    assert torch.equal(model(ids), plain)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(ids), plain)


def test_the_packages_names_are_functions_whatever_was_imported_before() -> None:
    assert interpret.trace is trace
    assert callable(interpret.analyze) and callable(interpret.load_subject)


def test_traces_nest_and_the_outer_one_survives_the_inner() -> None:
    model, ids = build(PLAIN), some_ids()
    with trace(model, ["0.pattern"]) as outer:
        with trace(model, ["0.pattern", "1.z"], edit={"0.v": torch.zeros_like}) as inner:
            model(ids)
        assert "0.pattern" in inner and "0.pattern" in outer
        outer.clear()
        plain = model(ids)
        assert set(outer) == {"0.pattern"}
    assert torch.equal(model(ids), plain)


def test_an_edit_of_another_shape_and_a_compiled_model_are_refused() -> None:
    model, ids = build(PLAIN), some_ids()
    with pytest.raises(ConfigError, match=r"0\.z returned shape"), trace(model, edit={"0.z": lambda z: z[:1]}):
        model(ids)
    with pytest.raises(ConfigError, match="cannot be traced"), trace(torch.nn.Linear(2, 2)):  # type: ignore[arg-type]
        pass


def test_gradients_reach_what_is_recorded_without_detaching() -> None:
    model, ids = build(PLAIN), some_ids()
    with trace(model, ["0.z", "1.pattern"], detach=False) as seen:
        loss = model(ids).square().sum()
    grads = torch.autograd.grad(loss, [seen["0.z"]])
    assert grads[0].abs().sum() > 0


# ---- names


def test_names_patterns_and_aliases() -> None:
    config = build(PLAIN | {"position_embedding": "learned", "rotary_percentage": 1.0}).config
    assert expand(["z"], config) == ["0.z", "1.z"]
    assert expand(["*.z", "blocks.1.attn.hook_pattern", "hook_embed"], config) == ["wte", "0.z", "1.pattern", "1.z"]
    assert expand(["blocks.*.hook_resid_post"], config) == ["0.resid_post", "1.resid_post"]
    for kind in OUTER:
        assert expand([kind.name], config) == [kind.name]
    with pytest.raises(ConfigError, match=r"no activation '0\.patern'; did you mean pattern"):
        expand(["0.patern"], config)
    with pytest.raises(ConfigError, match="resid_mid"):
        expand(["resid_mid"], build(PLAIN | {"parallel_residual": True}).config)


def test_the_table_of_names_says_what_this_model_has() -> None:
    page = table(build(PLAIN | {"parallel_residual": False}).config)
    assert "N.pattern" in page and "blocks.N.attn.hook_pattern" in page and "N.resid_mid" in page
    assert "router" not in page and "wpe" not in page
    assert "router" in table()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L2H0", "there is no layer 2"),
        ("L1H4", "there is no head 4"),
        ("head3", "names no part"),
        ("L9M", "no layer 9"),
    ],
)
def test_a_wrong_layer_or_head_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_component(text, build(PLAIN).config)
    assert "0 to" in caught.value.needed or "L2H3" in caught.value.needed


def test_components_are_written_and_read_alike() -> None:
    config = build(PLAIN).config
    assert [str(c) for c in components(config)] == [
        "L0H0",
        "L0H1",
        "L0H2",
        "L0H3",
        "L0M",
        "L1H0",
        "L1H1",
        "L1H2",
        "L1H3",
        "L1M",
    ]
    assert [parse_component(str(c), config) for c in components(config)] == components(config)
    assert parse_component("l1mlp", config) == components(config)[-1]
