"""The library's front: textbook names, imported on first use; a small training loop written with them learns."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest
import torch

import litgpt_core
from litgpt_core.core.errors import DataError
from litgpt_core.model.init import initialize

NAMES = ("GPT", "GPTConfig", "Block", "Engine", "train", "load_config", "get_batch", "estimate_loss", "__version__")


def test_every_name_is_there_and_listed() -> None:
    assert set(NAMES) == set(litgpt_core.__all__) <= set(dir(litgpt_core))
    assert all(getattr(litgpt_core, name) for name in NAMES)
    assert litgpt_core.__version__ == importlib.metadata.version("light-compute-project")
    with pytest.raises(AttributeError, match="Gpt"):
        litgpt_core.Gpt  # noqa: B018


def test_names_are_imported_on_first_use() -> None:
    code = (
        "import sys, litgpt_core; assert not {'torch', 'lightning', 'hydra', 'numpy'} & set(sys.modules);"
        "litgpt_core.GPTConfig; assert 'torch' not in sys.modules;"
        "litgpt_core.load_config; assert not {'torch', 'lightning'} & set(sys.modules);"
        "litgpt_core.GPT; assert 'torch' in sys.modules and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_textbook_loop_learns_a_repeating_text() -> None:
    tokens = torch.arange(8).repeat(50)
    generator = torch.Generator().manual_seed(1)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        return litgpt_core.get_batch(tokens, batch_size=8, block_size=12, generator=generator)

    model = litgpt_core.GPT(litgpt_core.GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=16, vocab_size=8))
    initialize(model, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = litgpt_core.estimate_loss(model, [batch() for _ in range(4)])
    for _ in range(60):
        inputs, targets = batch()
        loss = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = litgpt_core.estimate_loss(model, [batch() for _ in range(4)])
    assert model.training and after < 0.1 < before
    text = model.generate(torch.tensor([[3], [6]]), 10, temperature=0)
    assert text.tolist() == [[(3 + n) % 8 for n in range(11)], [(6 + n) % 8 for n in range(11)]]


def test_batches_are_windows_and_the_same_one_token_later() -> None:
    tokens = torch.arange(100)
    inputs, targets = litgpt_core.get_batch(
        tokens.numpy(), batch_size=64, block_size=9, generator=torch.Generator().manual_seed(0)
    )
    assert inputs.shape == targets.shape == (64, 9) and inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs + 1, targets) and torch.equal(inputs, inputs[:, :1] + torch.arange(9))
    same, _ = litgpt_core.get_batch(tokens, batch_size=64, block_size=9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(same, inputs)
    whole, _ = litgpt_core.get_batch(tokens, batch_size=2, block_size=99)
    assert whole[0, 0] == whole[1, 0] == 0
    with pytest.raises(DataError, match="100 tokens"):
        litgpt_core.get_batch(tokens, batch_size=1, block_size=100)


def test_an_estimate_counts_tokens_and_needs_a_batch() -> None:
    model = litgpt_core.GPT(litgpt_core.GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=5))
    initialize(model, seed=1)
    model.eval()
    ids = torch.randint(5, (3, 8), generator=torch.Generator().manual_seed(0))
    pairs = [(ids[:1, :-1], ids[:1, 1:]), (ids[1:, :-1], ids[1:, 1:])]
    whole = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert litgpt_core.estimate_loss(model, pairs) == pytest.approx(float(whole), rel=1e-5)
    with pytest.raises(DataError, match="no batch"):
        litgpt_core.estimate_loss(model, [])
