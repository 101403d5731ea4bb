"""Properties that every GPT of this project must have, checked on small models in seconds on a CPU.

`scripts/smoke_test.py` runs them all after an installation; the unit tests run the same functions. Each returns a
`CheckResult` and raises nothing. Not here: equality with LitGPT (tests, because it needs litgpt) and anything about
data or training runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from litgpt_core.config.source import CONFIG_DIR
from litgpt_core.doctor.results import CheckFailed, CheckResult, run_check
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.loss import cross_entropy

VOCABULARY, LENGTH = 61, 16
TINY_PARAMETERS = 116_480
"""What configs/model/tiny.yaml has with a vocabulary of 256: every weight, bias and norm counted by hand once."""

_BASE: dict[str, Any] = {
    "n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": LENGTH, "vocab_size": VOCABULARY, "padding_multiple": 1,
    "parallel_residual": False, "rotary_percentage": 1.0,
}  # fmt: skip
_LLAMA: dict[str, Any] = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 64,
    "bias": False,
}
_LATENT = {"q_lora_rank": 12, "kv_lora_rank": 10, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 8}

KINDS: dict[str, dict[str, Any]] = {
    "MHA": {},
    "GQA + QK-norm": {**_LLAMA, "n_query_groups": 2, "norm_qk": True},
    "MQA, parallel, partial rope": {"n_query_groups": 1, "parallel_residual": True, "rotary_percentage": 0.5},
    "learned positions, tied": {"position_embedding": "learned", "tie_embeddings": True},
    "windows + soft-caps": {
        **_LLAMA, "sliding_window_size": 5, "sliding_window_indices": [1, 0],
        "attention_logit_softcapping": 20.0, "final_logit_softcapping": 10.0,
    },
    "latent attention": {**_LLAMA, "latent_attention": _LATENT},
    "mixture of experts": {**_LLAMA, "mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2},
}  # fmt: skip
"""One small model of each kind; the values replace `_BASE`'s."""


Check = Callable[[], CheckResult]


def _check(name: str) -> Callable[[Callable[[], str]], Check]:
    """Turn a function that returns a detail or raises into one that returns a CheckResult."""

    def decorate(body: Callable[[], str]) -> Check:
        @wraps(body)
        def timed() -> CheckResult:
            return run_check(name, body)

        return timed

    return decorate


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def build(kind: str, *, seed: int = 0, **overrides: Any) -> GPT:
    """A small initialised model of one of `KINDS`."""
    model = GPT(GPTConfig(**{**_BASE, **KINDS[kind], **overrides}))
    initialize(model, seed=seed)
    return model


def _tokens(batch: int, length: int = LENGTH) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


@_check("shapes")
@torch.no_grad()
def check_shapes() -> str:
    """Logits are (B, T, padded_vocab_size) and finite for every kind, for one token and for a full block."""
    for kind in KINDS:
        model = build(kind, padding_multiple=64).eval()
        for length in (1, LENGTH):
            logits = model(_tokens(2, length))
            _require(logits.shape == (2, length, 64), f"{kind}: {tuple(logits.shape)} for {length} tokens")
            _require(bool(logits.isfinite().all()), f"{kind}: logits are not finite")
    return f"{len(KINDS)} kinds of model, 1 and {LENGTH} tokens"


@_check("causal mask")
@torch.no_grad()
def check_causality() -> str:
    """For every position p: another token at p changes the logits at p and none before p."""
    original = _tokens(1)
    changed = original.repeat(LENGTH, 1)
    changed.diagonal().add_(1).remainder_(VOCABULARY)  # row p differs at position p only
    worst = 0.0
    for kind in KINDS:
        model = build(kind).eval()
        moved = (model(changed) - model(original)).abs().amax(dim=-1)  # (p, position)
        past = torch.ones_like(moved).tril(-1)
        worst = max(worst, float((moved * past).max()))
        _require(worst < 1e-5, f"{kind}: a past logit moved by {worst:.1e}")
        _require(float(moved.diagonal().min()) > 1e-5, f"{kind}: a token does not reach its own logits")
    return f"{LENGTH} positions x {len(KINDS)} kinds, past logits moved by at most {worst:.0e}"


@_check("determinism")
@torch.no_grad()
def check_determinism() -> str:
    """In eval mode two passes are equal although dropout is on; one seed gives one model, another seed another."""
    model, idx = build("MHA", dropout=0.5), _tokens(2)
    _require(not torch.equal(model(idx), model(idx)), "dropout does nothing in training mode")
    model.eval()
    _require(torch.equal(model(idx), model(idx)), "two passes in eval mode differ")
    _require(torch.equal(model(idx), build("MHA").eval()(idx)), "the same seed built another model")
    _require(not torch.equal(model(idx), build("MHA", seed=1).eval()(idx)), "another seed built the same model")
    return "eval passes equal, seeds reproducible"


def shipped_configs(*, vocab_size: int) -> dict[str, GPTConfig]:
    """The models of configs/model/*.yaml for a vocabulary, by file name; `pretrained` has no shape of its own."""
    import yaml

    return {
        path.stem: _shipped(yaml.safe_load(path.read_text(encoding="utf-8")), vocab_size)
        for path in sorted((CONFIG_DIR / "model").glob("*.yaml"))
        if path.stem != "pretrained"
    }


def _shipped(values: dict[str, Any], vocab_size: int) -> GPTConfig:
    fields = {key: value for key, value in values.items() if key != "source"} | {"vocab_size": vocab_size}
    return GPTConfig.from_name(**fields) if values["source"] == "registry" else GPTConfig.from_dict(fields)


@_check("parameter count")
def check_parameter_count() -> str:
    """Shipped models of up to 20 million parameters have as many as predicted, `tiny` the number known by hand."""
    configs = shipped_configs(vocab_size=256)
    small = {name: config for name, config in configs.items() if count_parameters(config) <= 20_000_000}
    for name, config in small.items():
        model = GPT(config)
        for embedding in (True, False):
            real, predicted = model.num_parameters(embedding=embedding), count_parameters(config, embedding=embedding)
            _require(real == predicted, f"{name}: {real:,} parameters, predicted {predicted:,}")
    tiny = count_parameters(configs["tiny"])
    _require(tiny == TINY_PARAMETERS, f"tiny has {tiny:,} parameters, not {TINY_PARAMETERS:,}")
    return f"{len(small)} shipped models as predicted, tiny = {tiny:,}"


@_check("gradient flow")
def check_gradient_flow() -> str:
    """One backward pass gives every parameter of every kind a finite gradient that is not zero."""
    total = 0
    for kind in KINDS:
        model, idx = build(kind), _tokens(8)
        cross_entropy(model.hidden(idx[:, :-1]), model.head, idx[:, 1:]).backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            grad = parameter.grad
            _require(grad is not None, f"{kind}: {name} has no gradient")
            assert grad is not None
            _require(
                bool(grad.isfinite().all()) and float(grad.abs().max()) > 0.0, f"{kind}: {name} has a bad gradient"
            )
            total += 1
    return f"{total} tensors of {len(KINDS)} kinds, none zero, none missing"


@_check("KV cache")
@torch.no_grad()
def check_kv_cache() -> str:
    """Prefill, then one token at a time, gives the logits of one full pass."""
    idx, prompt, worst = _tokens(2), 5, 0.0
    for kind in KINDS:
        model = build(kind).eval()
        full = model(idx)
        model.set_kv_cache(2, max_seq_length=LENGTH)
        chunks = [(0, prompt), *((i, i + 1) for i in range(prompt, LENGTH))]
        steps = torch.cat([model(idx[:, a:b], input_pos=torch.arange(a, b)) for a, b in chunks], dim=1)
        worst = max(worst, float((steps - full).abs().max() / full.abs().max()))
        _require(worst < 1e-5, f"{kind}: cached logits differ by {worst:.1e} of the largest")
    return f"{len(KINDS)} kinds, relative difference at most {worst:.0e}"


@_check("gradcheck")
def check_gradients_numerically() -> str:
    """Autograd's gradients equal finite differences in float64, for every parameter of a whole tiny model."""
    sizes = {"n_layer": 1, "n_head": 2, "n_query_groups": 1, "n_embd": 4, "intermediate_size": 6, "vocab_size": 5}
    model = build("GQA + QK-norm", **sizes).double()
    weights = {
        name: p.detach() * 10 for name, p in model.named_parameters()
    }  # larger, so that nothing is nearly linear
    idx, targets = torch.tensor([[0, 3, 1, 4]]), torch.tensor([[3, 1, 4, 2]])

    def loss(*values: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, dict(zip(weights, values, strict=True)), (idx,))
        return cross_entropy(logits, lambda rows: rows, targets)

    inputs = [value.requires_grad_() for value in weights.values()]
    torch.autograd.gradcheck(loss, inputs)
    return f"{sum(value.numel() for value in inputs)} parameters in float64"


@_check("overfit one batch")
def check_overfit() -> str:
    """Four random sequences are memorised: loss below 0.05 within 300 steps of AdamW."""
    model, idx, loss = build("GQA + QK-norm", n_embd=64), _tokens(4), float("inf")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    first = None
    for step in range(1, 301):
        value = cross_entropy(model.hidden(idx[:, :-1]), model.head, idx[:, 1:])
        loss = value.item()
        first = first or loss
        if loss < 0.05:
            return f"loss {first:.2f} -> {loss:.3f} in {step} steps"
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    raise CheckFailed(f"loss is still {loss:.3f} after 300 steps")


MODEL_CHECKS: tuple[Check, ...] = (
    check_shapes,
    check_causality,
    check_determinism,
    check_parameter_count,
    check_gradient_flow,
    check_kv_cache,
    check_gradients_numerically,
    check_overfit,
)


def run_model_checks() -> Iterator[CheckResult]:
    """Run all checks, one result after the other."""
    return (check() for check in MODEL_CHECKS)
