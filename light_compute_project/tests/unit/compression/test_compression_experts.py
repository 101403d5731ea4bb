"""Merging experts: who is merged with whom, what merging equal experts leaves, and a plain model as the result."""

import pytest
import torch

from litgpt_core.compression.experts import ExpertUse, expert_use, grouped_experts, matched_units, merge_experts
from litgpt_core.compression.state import WorkingModel
from litgpt_core.core.errors import ConfigError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 40, "padding_multiple": 40}
MIXTURE = {"mlp_class_name": "LLaMAMoE", "n_expert": 4, "n_expert_per_token": 2, "intermediate_size": 48, "bias": False}


def mixture(**more: object) -> GPT:
    model = GPT(GPTConfig(**{**SIZES, **MIXTURE, **more})).eval()
    initialize(model, seed=2)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "experts" in name or "gate" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(40, (6, 16), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_use_counts_what_the_router_chooses(ids: torch.Tensor):
    model = mixture()
    use = expert_use(model, ids)
    assert sorted(use) == [0, 1] and all(int(found.counts.sum()) == 2 * 6 * 16 for found in use.values())
    chosen: list[torch.Tensor] = []
    mlp = model.transformer.h[1].mlp
    hook = mlp.register_forward_pre_hook(lambda _, x: chosen.append(mlp.route(x[0].flatten(0, 1))[1]))
    model(ids)
    hook.remove()
    assert torch.equal(torch.bincount(chosen[0].flatten(), minlength=4), use[1].counts)


def test_the_least_used_join_the_most_similar():
    scores = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    scores[:, 4], scores[:, 2] = scores[:, 1] * 2, scores[:, 3] + 0.01
    groups = grouped_experts(ExpertUse(torch.tensor([20, 40, 1, 30, 2]), scores), keep=3)
    assert groups == [[0], [1, 4], [3, 2]]


@torch.no_grad()
def test_units_are_matched_whatever_their_order():
    generator = torch.Generator().manual_seed(3)
    base = {"fc_1": torch.randn(6, 8, generator=generator), "fc_2": torch.randn(6, 8, generator=generator)}
    base["proj"] = torch.randn(8, 6, generator=generator)
    order = torch.randperm(6, generator=generator)
    other = {name: value[:, order] if name == "proj" else value[order] for name, value in base.items()}
    assert torch.equal(order[matched_units(base, other)], torch.arange(6))


@torch.no_grad()
def test_copies_of_an_expert_are_merged_without_loss(ids: torch.Tensor):
    """Experts 2 and 3 are 0 and 1 with other orders of units and the same router rows: two of four compute the same."""
    model = mixture()
    for block in model.transformer.h:
        for twin, base in ((2, 0), (3, 1)):
            order = torch.randperm(48, generator=torch.Generator().manual_seed(twin))
            mine, theirs = block.mlp.experts[twin], block.mlp.experts[base]
            mine.fc_1.weight.copy_(theirs.fc_1.weight[order])
            mine.fc_2.weight.copy_(theirs.fc_2.weight[order])
            mine.proj.weight.copy_(theirs.proj.weight[:, order])
            block.mlp.gate.weight[twin] = block.mlp.gate.weight[base]
    work = WorkingModel(model)
    expected = model(ids)  # a token's two experts are an expert and its copy
    merge_experts(work, ids, keep=2)
    config = work.model.config
    assert (config.n_expert, config.n_expert_per_token) == (2, 2) and len(work.notes) == 2
    config.n_expert_per_token = 1  # both choices of the four were one expert
    assert torch.allclose(work.model(ids), expected, atol=1e-5)


def test_other_models_are_refused(ids: torch.Tensor, llama: WorkingModel):
    with pytest.raises(ConfigError, match="keep=4 of 4"):
        merge_experts(WorkingModel(mixture()), ids, keep=4)
    with pytest.raises(ConfigError, match="a mixture of more experts"):
        merge_experts(llama, ids, keep=1)
