"""What the PyTorch decoder reads: the cache up to the last token, and the same logits to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from litgpt_core.generation import torch_decoder
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.torch_decoder import TorchDecoder
from litgpt_core.model import attention
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize

SHAPE = GPTConfig(
    n_layer=2, n_head=4, n_query_groups=2, n_embd=32, block_size=2048, vocab_size=64, parallel_residual=False
)


@pytest.fixture(scope="module")
def model() -> GPT:
    model = GPT(SHAPE).eval()
    initialize(model, seed=3)
    return model


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys each call of attention saw."""
    seen: list[int] = []
    attend = attention.attend

    def recorded(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        seen.append(k.size(-2))
        return attend(q, k, v, **options)

    monkeypatch.setattr(attention, "attend", recorded)
    return seen


def logits_of(model: GPT, feeds: list[list[Feed]], *, n_sequences: int) -> list[Tensor]:
    decoder = TorchDecoder(model)
    decoder.start(n_sequences=n_sequences, length=SHAPE.block_size)
    with torch.no_grad():
        found = [decoder.feed(feed).clone() for feed in feeds]
    decoder.finish()
    return found


def prompt(length: int, *, seed: int) -> list[int]:
    return torch.randint(64, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_ten_tokens_of_a_long_window_read_one_step_of_the_cache(model: GPT, keys: list[int]) -> None:
    logits_of(model, [[Feed(0, 0, prompt(9, seed=0))], [Feed(0, 9, [5])]], n_sequences=3)
    assert set(keys) == {torch_decoder.LIVE_STEP}
    keys.clear()
    logits_of(model, [[Feed(2, 0, prompt(600, seed=0))], [Feed(0, 0, [5]), Feed(2, 600, [6])]], n_sequences=3)
    assert set(keys) == {2 * torch_decoder.LIVE_STEP}


@pytest.mark.parametrize("length", [9, 511, 512, 700])
def test_the_logits_are_those_of_the_whole_window(model: GPT, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, beside a longer sequence, and with rows out of order: bit by bit."""
    long = prompt(1500, seed=1)
    feeds = [
        [Feed(0, 0, prompt(length, seed=2))],
        [Feed(0, length, [7])],
        [Feed(2, 0, long)],
        [Feed(2, 1500, [1]), Feed(0, length + 1, [8])],
    ]
    found = logits_of(model, feeds, n_sequences=3)
    monkeypatch.setattr(torch_decoder, "LIVE_STEP", SHAPE.block_size)
    whole = logits_of(model, feeds, n_sequences=3)
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))
