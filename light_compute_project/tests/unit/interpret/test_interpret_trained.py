"""What training is known to produce is found: induction heads in two layers, not in one (nightly: a minute a model)."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from litgpt_core.interpret.ablation import Ablation
from litgpt_core.interpret.head_scores import head_scores, repeated_tokens
from litgpt_core.interpret.losses import token_losses
from litgpt_core.interpret.names import Component
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.loss import cross_entropy

VOCABULARY, LENGTH, STEPS = 64, 64, 500
PERIODS = (8, 32)

pytestmark = pytest.mark.nightly


@cache
def trained(n_layer: int) -> GPT:
    """An attention-only model after 500 steps on random tokens that repeat, each sequence with its own period."""
    config = GPTConfig(
        n_layer=n_layer, n_head=4, n_embd=64, block_size=LENGTH, vocab_size=VOCABULARY, padding_multiple=1,
        norm_class_name="RMSNorm", bias=False, parallel_residual=False, rotary_percentage=1.0, intermediate_size=4,
    )  # fmt: skip
    model = GPT(config)
    initialize(model, seed=0)
    for block in model.transformer.h:
        for parameter in block.mlp.parameters():
            parameter.detach().zero_()
            parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    for step in range(STEPS):
        ids, _ = repeated_tokens(
            torch.arange(VOCABULARY), sequences=32, length=LENGTH + 1, seed=1000 + step, periods=PERIODS
        )
        loss = cross_entropy(model.hidden(ids[:, :-1]), model.lm_head.weight, ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def measured(model: GPT) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Loss where the next token is known, induction scores and previous-token scores in units of chance."""
    ids, periods = repeated_tokens(torch.arange(VOCABULARY), sequences=32, length=LENGTH, seed=1, periods=PERIODS)
    scores = head_scores(model, ids, periods)
    known = [row[period:].mean() for row, period in zip(token_losses(model, ids), periods.tolist(), strict=True)]
    induction, previous = (torch.tensor(scores[kind]["scores"]) for kind in ("induction", "previous"))
    return float(torch.stack(known).mean()), induction, previous / scores["previous"]["chance"]


def test_two_layers_form_induction_heads_and_need_the_previous_token_heads() -> None:
    model = trained(2)
    loss, induction, previous = measured(model)
    assert loss < 0.3
    assert float(induction[1].max()) > 0.4 and float(induction[0].max()) < 0.1
    assert float(previous[0].max()) > 5
    ids, _ = repeated_tokens(torch.arange(VOCABULARY), sequences=16, length=LENGTH, seed=2, periods=PERIODS)
    run = Ablation(model, ids)
    delta, error = run.delta(Component(0, int(previous[0].argmax())))
    assert delta > 3 * error and delta > 0.1


def test_one_layer_forms_none() -> None:
    loss, induction, _ = measured(trained(1))
    assert loss > 2.5 and float(induction.max()) < 0.1
