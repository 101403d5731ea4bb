"""What training is known to produce is found: induction heads in two layers and not in one; the frequencies by which a
model that has grokked modular addition adds. Nightly: up to a minute a model.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from litgpt_core.interpret.ablation import Ablation
from litgpt_core.interpret.fourier import concentration
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


# ---- addition modulo a prime


def test_grokked_addition_shows_its_frequencies() -> None:
    """Trained on 60 % of all sums modulo 37 with strong weight decay, a layer first memorises and then generalises; the
    embedding of the numbers, whose frequencies were all alike, then consists of a few."""
    prime, steps = 37, 1400
    ids, sums, train, test = additions(prime, share=0.6)
    model = adder(prime)
    numbers = model.transformer.wte.weight.detach()[:prime]
    before = concentration(numbers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1.0, betas=(0.9, 0.98))
    found = {}
    for step in range(steps + 1):
        if step in (300, steps):
            found[step] = (accuracy(model, ids[test], sums[test]), concentration(numbers))
        loss = torch.nn.functional.cross_entropy(last_logits(model, ids[train]), sums[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.45  # 5 of 18 frequencies
    assert found[300][0] < 0.3 and found[300][1] < 0.5
    assert found[steps][0] > 0.97 and found[steps][1] > 0.75


def additions(prime: int, *, share: float) -> tuple[torch.Tensor, ...]:
    """Rows `a b =` (prime^2, 3), their sums modulo the prime, and which rows are trained on and tested on."""
    a, b = torch.meshgrid(torch.arange(prime), torch.arange(prime), indexing="ij")
    ids = torch.stack([a.flatten(), b.flatten(), torch.full((prime**2,), prime)], dim=1)
    order = torch.randperm(prime**2, generator=torch.Generator().manual_seed(0))
    count = int(share * prime**2)
    return ids, (ids[:, 0] + ids[:, 1]) % prime, order[:count], order[count:]


def adder(prime: int) -> GPT:
    """One layer without norms inside, as in the literature."""
    config = GPTConfig(
        n_layer=1, n_head=4, n_embd=64, block_size=4, vocab_size=prime + 1, padding_multiple=1, bias=False,
        norm_class_name="RMSNorm", norm_1=False, norm_2=False, parallel_residual=False, position_embedding="learned",
        rotary_percentage=0.0, mlp_class_name="GptNeoxMLP", intermediate_size=256,
    )  # fmt: skip
    model = GPT(config)
    initialize(model, seed=0)
    return model


def last_logits(model: GPT, ids: torch.Tensor) -> torch.Tensor:
    """(B, 3) -> (B, V) behind the last token."""
    return model.head(model.hidden(ids)[:, -1])


@torch.no_grad()
def accuracy(model: GPT, ids: torch.Tensor, sums: torch.Tensor) -> float:
    """Share of right sums."""
    return float((last_logits(model, ids).argmax(dim=-1) == sums).float().mean())
