"""The recipe of docs/analyze.md: nnsight traces our GPT by LitGPT's names, without an adapter.

Skipped where nnsight is not installed; in an environment of its own:

    uv run --isolated --with nnsight==0.8.1 --with pytest --with hypothesis \
        pytest light_compute_project/tests/contract/test_contract_nnsight.py
"""

from __future__ import annotations

import pytest
import torch

from litgpt_core.interpret.tracing import trace
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

nnsight = pytest.importorskip("nnsight", reason="nnsight is not a dependency")

IDS = torch.tensor([[3, 1, 4, 1, 5, 9]])


@pytest.fixture
def model() -> GPT:
    config = GPTConfig(
        n_layer=3, n_head=2, n_embd=16, block_size=16, vocab_size=29, padding_multiple=8, parallel_residual=False
    )
    made = GPT(config).eval().requires_grad_(False)
    initialize(made, seed=0)
    return made


def test_it_reads_what_our_trace_reads(model: GPT) -> None:
    wrapped = nnsight.NNsight(model)
    with wrapped.trace(IDS):
        hidden = wrapped.transformer.h[1].output.save()
        z = wrapped.transformer.h[2].attn.proj.input.save()
        logits = wrapped.output.save()
    with trace(model, ["1.resid_post", "2.z"]) as seen:
        plain = model(IDS)
    assert torch.equal(hidden, seen["1.resid_post"])
    assert torch.equal(z, seen["2.z"].flatten(-2))
    assert torch.equal(logits, plain)


def test_its_edits_are_our_edits(model: GPT) -> None:
    wrapped = nnsight.NNsight(model)
    with wrapped.trace(IDS):
        wrapped.transformer.h[1].mlp.output[:] = 0
        changed = wrapped.output.save()
    with trace(model, edit={"1.mlp_raw": torch.zeros_like}):
        expected = model(IDS)
    assert torch.equal(changed, expected) and not torch.equal(changed, model(IDS))
