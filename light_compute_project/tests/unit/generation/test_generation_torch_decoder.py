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
    assert keys == [9, 9, torch_decoder.LIVE_STEP, torch_decoder.LIVE_STEP], "the prompt's two layers read it alone"
    keys.clear()
    logits_of(model, [[Feed(2, 0, prompt(600, seed=0))], [Feed(0, 0, [5]), Feed(2, 600, [6])]], n_sequences=3)
    assert keys == [600, 600, 2 * torch_decoder.LIVE_STEP, 2 * torch_decoder.LIVE_STEP]


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


@pytest.mark.parametrize("kv_cache", ["auto", "int8"])
def test_sequences_keep_their_tokens_whatever_rows_of_the_cache_they_have(model: GPT, kv_cache: str) -> None:
    """Sequences pause, go on, and are fed in any order; each has the logits that it has alone."""
    decoder = TorchDecoder(model, kv_cache=kv_cache)
    decoder.start(n_sequences=4, length=64)
    generator = torch.Generator().manual_seed(5)
    texts = {sequence: prompt(5 + 3 * sequence, seed=sequence) for sequence in range(4)}
    with torch.no_grad():
        for sequence, ids in texts.items():
            decoder.feed([Feed(sequence, 0, ids)])
        for _ in range(12):
            order = torch.randperm(4, generator=generator)[: int(torch.randint(1, 5, (), generator=generator))].tolist()
            feeds = [Feed(sequence, len(texts[sequence]), [sequence + 7]) for sequence in order]
            logits = decoder.feed(feeds)
            for row, feed in enumerate(feeds):
                texts[feed.sequence].append(feed.ids[0])
                alone = TorchDecoder(GPT(SHAPE), kv_cache=kv_cache)
                alone._model.load_state_dict(model.state_dict())
                alone._model.eval()
                alone.start(n_sequences=1, length=64)
                alone.feed([Feed(0, 0, texts[feed.sequence][:-1])])
                expected = alone.feed([Feed(0, feed.position, feed.ids)])
                torch.testing.assert_close(logits[row], expected[0], rtol=1e-4, atol=1e-5)
    assert decoder._row != [0, 1, 2, 3], "some have changed rows"
