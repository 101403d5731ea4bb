"""Adapters change nothing at first, train alone, merge to the same function, and are LitGPT's to the last name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.model import GPT
from litgpt_core.model.lora import (
    LoRALinear,
    adapters,
    add_adapters,
    load_adapters,
    merged,
    narrow_frozen,
    without_adapters,
)
from litgpt_core.model.optional_settings import TARGETS, LoRASettings

V = 61
ADAPTABLE = [kind for kind in KINDS if kind != "latent attention"]


def tokens() -> Tensor:
    return torch.randint(V, (2, 12), generator=torch.Generator().manual_seed(3))


def adapted(kind: str, *, trained: bool = True, **changes: Any) -> GPT:
    """A model whose adapters have values other than their first ones."""
    model = build(kind)
    tied = model.config.tie_embeddings
    targets = [name for name in TARGETS if not (tied and name == "head")]
    add_adapters(model, LoRASettings(**{"r": 3, "alpha": 5, "dropout": 0.0, "targets": targets, **changes}), seed=1)
    if trained:
        generator = torch.Generator().manual_seed(2)
        for module in model.modules():
            if isinstance(module, LoRALinear):
                module.lora_B.data.normal_(std=0.2, generator=generator)
    return model.eval()


@pytest.mark.parametrize("kind", ADAPTABLE)
@torch.no_grad()
def test_untrained_adapters_change_nothing_and_trained_ones_merge(kind: str) -> None:
    idx, base = tokens(), build(kind).eval()
    fresh = adapted(kind, trained=False)
    assert torch.equal(fresh(idx), base(idx))
    model = adapted(kind)
    assert (model(idx) - base(idx)).abs().max() > 1e-3
    plain = without_adapters(model)
    assert set(plain.state_dict()) == set(base.state_dict())
    torch.testing.assert_close(plain(idx), model(idx), atol=2e-5, rtol=1e-4)
    assert without_adapters(base) is base


def test_frozen_weights_of_a_bfloat16_file_stay_narrow_and_compute_the_same() -> None:
    """As on a GPU under autocast, which otherwise holds them in float32 and copies them."""
    results = []
    for narrowed in (False, True):
        model = build("GQA + QK-norm").to(torch.bfloat16).float()
        add_adapters(model, LoRASettings(r=3, alpha=5, dropout=0.0, targets=["query", "mlp"]), seed=1)
        layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
        for module in layers:
            module.lora_B.data.fill_(0.01)
        if narrowed:
            assert narrow_frozen(model, torch.bfloat16) == len(layers) == 8
            assert {module.weight.dtype for module in layers} == {torch.bfloat16}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(tokens())
        logits.float().square().mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([logits, *gradients, *merged(model).values()])
        assert model.dtype == torch.float32 and {value.dtype for value in merged(model).values()} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    wide = adapted("GQA + QK-norm")
    assert narrow_frozen(wide, torch.bfloat16) == 0, "values that would be rounded stay as they are"


@pytest.mark.parametrize(
    "targets", [["query"], ["key", "value"], ["query", "value"], ["projection"], ["mlp"], ["head"]]
)
@torch.no_grad()
def test_only_the_chosen_rows_change(targets: Any) -> None:
    base, model = build("GQA + QK-norm").state_dict(), adapted("GQA + QK-norm", targets=targets)
    after, c = merged(model), model.config
    heads, groups = c.n_head * c.head_size, c.n_query_groups * c.head_size
    rows = {"query": (0, heads), "key": (heads, heads + groups), "value": (heads + groups, heads + 2 * groups)}
    place = {"projection": "attn.proj", "mlp": ".mlp.", "head": "lm_head"}
    for name, weight in after.items():
        changed = (weight != base[name]).any(dim=-1) if weight.ndim == 2 else torch.zeros(1, dtype=torch.bool)
        if "qkv" in name and weight.ndim == 2:
            for part, (begin, end) in rows.items():
                assert bool(changed[begin:end].all()) is (part in targets), f"{name} {part}"
        else:
            assert bool(changed.any()) is any(place.get(t, "-") in name for t in targets), name


def test_only_adapters_are_trained_and_every_one_of_them() -> None:
    model = adapted("MHA").train()
    model(tokens()).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is ("lora_" in name), name
        assert (parameter.grad is not None and bool(parameter.grad.any())) is ("lora_" in name), name


def test_dropout_acts_in_training_only_and_the_seed_decides_the_first_values() -> None:
    model = adapted("MHA", dropout=0.5)
    assert torch.equal(model(tokens()), model(tokens()))
    model.train()
    assert not torch.equal(model(tokens()), model(tokens()))
    one, again, other = (build("MHA") for _ in range(3))
    for model, seed in ((one, 1), (again, 1), (other, 2)):
        add_adapters(model, LoRASettings(), seed=seed)
    first, second, third = (adapters(m)["transformer.h.0.attn.qkv.lora_A"] for m in (one, again, other))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert float(first.abs().max()) <= one.config.n_embd**-0.5


def test_adapters_alone_restore_a_model_and_others_are_refused() -> None:
    source, target = adapted("MHA"), adapted("MHA", trained=False)
    load_adapters(target, adapters(source))
    assert torch.equal(target(tokens()), source(tokens()))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_adapters(adapted("MHA", r=4), adapters(source))


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ConfigError, match="latent attention"):
        add_adapters(build("latent attention"), LoRASettings(), seed=0)
    with pytest.raises(ConfigError, match="tied to its embedding"):
        add_adapters(build("learned positions, tied"), LoRASettings(targets=["head"]), seed=0)
    with pytest.raises(ConfigError) as caught:
        LoRASettings(r=0, alpha=0, dropout=1.0, targets=[])
    assert all(f"lora.{name}" in str(caught.value) for name in ("r", "alpha", "dropout", "targets"))


def test_litgpts_keys_are_read_back() -> None:
    settings = LoRASettings(r=4, alpha=9, dropout=0.1, targets=["query", "mlp"])
    assert LoRASettings.from_litgpt({"seed": 1, **settings.to_litgpt()}) == settings
    with pytest.raises(ConfigError, match="no adapter"):
        LoRASettings.from_litgpt({"seed": 1})


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["MHA", "GQA + QK-norm", "MQA, parallel, partial rope", "mixture of experts"])
@pytest.mark.parametrize("targets", [list(TARGETS), ["query", "value"], ["key", "head"]], ids=str)
@torch.no_grad()
def test_litgpt_reads_the_same_adapters_and_merges_to_the_same_weights(kind: str, targets: Any, tmp_path: Path) -> None:
    from litgpt import lora as theirs

    settings = LoRASettings(r=3, alpha=5, dropout=0.0, targets=targets)
    model = adapted(kind, r=3, alpha=5, targets=targets)
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(model.config.to_yaml_dict()))
    other = theirs.GPT(theirs.Config.from_file(tmp_path / "model_config.yaml", **settings.to_litgpt())).eval()
    assert {k: v.shape for k, v in other.state_dict().items() if "lora_" in k} == {
        k: v.shape for k, v in adapters(model).items()
    }
    plain = {k: v for k, v in model.state_dict().items() if "lora_" not in k}
    other.load_state_dict({**plain, **adapters(model)})
    torch.testing.assert_close(other(tokens()), model(tokens()), atol=1e-5, rtol=1e-4)
    theirs.merge_lora_weights(other)
    their_weights = {k.replace("linear.", ""): v for k, v in other.state_dict().items() if "lora_" not in k}
    worst = max(float((their_weights[name] - weight).abs().max()) for name, weight in merged(model).items())
    assert worst <= 1e-7, f"float32 rounding of one product: {worst:.1e}"
