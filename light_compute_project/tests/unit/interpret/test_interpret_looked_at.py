"""Attention behind one token of an answer: known on a model built by hand, the same as a plain trace on every kind."""

from __future__ import annotations

import json
import threading

import pytest
import torch

from litgpt_core import tokenizers
from litgpt_core.core.errors import ConfigError
from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.interpret import known_models, looked_at
from litgpt_core.interpret.looked_at import mean_patterns, own_modules, rollout
from litgpt_core.interpret.token_text import token_text
from litgpt_core.interpret.tracing import trace


def test_a_previous_token_head_looked_at_the_token_before() -> None:
    found = looked_at.looked_at(known_models.previous_token(), [3, 1, 4], [1, 5, 9, 2], position=2)
    assert found["ids"] == [3, 1, 4, 1, 5] and found["first"] == 0 and found["position"] == 2
    expected = [0.1, 0.1, 0.1, 0.6, 0.1]  # head 0 all of it, head 1 to all alike
    assert found["average"] == pytest.approx(expected, abs=1e-3) and found["layers"] == [found["average"]]
    assert found["rollout"] == pytest.approx([0.05, 0.05, 0.05, 0.3, 0.55], abs=1e-3)


def test_an_induction_head_looked_at_what_followed_the_last_time() -> None:
    found = looked_at.looked_at(known_models.induction(), [7, 3, 9, 1], [5, 3, 9], position=2)
    assert found["ids"] == [7, 3, 9, 1, 5, 3]
    assert max(range(6), key=lambda place: found["layers"][1][place]) == 2  # 9, which followed 3
    assert found["layers"][1][2] > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_plain_trace_of_every_kind_of_model(kind: str) -> None:
    model = build(kind)
    ids = torch.randint(model.config.vocab_size, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), trace(model, ["*.pattern"]) as seen:
        plain = model.hidden(ids)
    expected = torch.stack([seen[f"{layer}.pattern"][0].mean(dim=0) for layer in range(model.config.n_layer)])
    torch.testing.assert_close(mean_patterns(model, ids), expected.float(), rtol=1e-4, atol=1e-5)
    found = looked_at.looked_at(model, ids[0, :4].tolist(), [*ids[0, 4:].tolist(), 2], position=5)
    for layer, row in enumerate(found["layers"]):
        assert row == pytest.approx(expected[layer, -1].tolist(), abs=2e-4)
    assert sum(found["rollout"]) == pytest.approx(1.0, abs=1e-2)
    with torch.no_grad():
        assert torch.equal(model.hidden(ids), plain)


def test_rollout_is_the_product_of_the_layers_with_their_residual_streams() -> None:
    weights = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)).tril()
    weights /= weights.sum(dim=-1, keepdim=True)
    product = torch.eye(6)
    for layer in weights:
        product = (layer + torch.eye(6)) / 2 @ product
    torch.testing.assert_close(rollout(weights), product[-1])
    assert float(rollout(weights).sum()) == pytest.approx(1.0)


def test_a_model_that_is_generating_is_not_disturbed() -> None:
    """The second set of modules has the same tensors; hooks and caches of the first are its own."""
    model = build("GQA + QK-norm")
    model.set_kv_cache(1, max_seq_length=8)
    copied = own_modules(model)
    assert [p.data_ptr() for p in copied.parameters()] == [p.data_ptr() for p in model.parameters()]
    ids, seen_outside = torch.tensor([[1, 2, 3]]), []
    with torch.no_grad(), trace(copied, ["*.pattern"]) as seen:
        thread = threading.Thread(target=lambda: seen_outside.append(model.hidden(ids, input_pos=torch.arange(3))))
        thread.start()
        thread.join()
        assert not seen and len(seen_outside) == 1
        copied.hidden(ids)
    assert seen and model.transformer.cache_length == 8 and copied.transformer.cache_length is None
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_the_context_is_that_of_generation() -> None:
    model = build("MHA")
    size, ids = model.config.block_size, [1 + n % 50 for n in range(3 * build("MHA").config.block_size)]
    for position in (0, size - 5, size, size + 9):
        found = looked_at.looked_at(model, ids[:5], ids[5:], position=position)
        length = 5 + position
        expected = 0 if length <= size else length - len(found["ids"])
        assert found["first"] == expected and found["ids"] == ids[expected:length]
        assert len(found["ids"]) <= size and len(found["average"]) == len(found["rollout"]) == len(found["ids"])
    assert looked_at.looked_at(model, ids[:size], ids[size:], position=1)["first"] == size + 1 - size // 2


def test_what_is_returned_is_bounded_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looked_at, "MOST_TOKENS", 6)
    found = looked_at.looked_at(build("MHA"), list(range(9)), [3, 4], position=1)
    assert found["first"] == 4 and found["ids"] == [4, 5, 6, 7, 8, 3] and len(found["layers"][0]) == 6
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("prompt", "answer", "position", "message"),
    [
        ([], [1], 0, "an empty prompt"),
        ([1], [2, 3], 2, "position 2 of an answer of 2 tokens"),
        ([1], [2, 3], -1, "position -1"),
        ([1], [], 0, "position 0 of an answer of 0 tokens"),
        ([1], [999_999], 0, "token id 999,999"),
    ],
)
def test_what_is_not_possible_is_one_clear_error(
    prompt: list[int], answer: list[int], position: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        looked_at.looked_at(build("MHA"), prompt, answer, position=position)
    assert caught.value.needed and caught.value.fix


def test_tokens_are_shown_as_text() -> None:
    tokenizer = tokenizers.train(tokenizers.ByteSettings(), [])
    assert [token_text(tokenizer, token) for token in (65, 10, 0xC3, 7)] == ["A", "\n", "<C3>", "<07>"]
    assert token_text(tokenizer, tokenizer.eos_id) == "<eos>" and token_text(tokenizer, 5000) == "<5000>"
