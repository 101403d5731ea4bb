"""Several sequences in one row: each gets the logits and gradients of a row of its own, for every kind of model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.model.mask import segment_masks

V, LENGTHS = 61, ((5, 7, 4), (9, 2, 5))


def packed() -> tuple[Tensor, Tensor]:
    """Two rows of three texts each, and the numbers of their texts."""
    ids = torch.randint(V, (2, 16), generator=torch.Generator().manual_seed(3))
    numbers = [[n for n, length in enumerate(row) for _ in range(length)] for row in LENGTHS]
    return ids, torch.tensor(numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_each_text_of_a_row_has_the_logits_it_has_alone(kind: str) -> None:
    model = build(kind).eval()
    ids, segments = packed()
    together = model(ids, segments=segments)
    for row, lengths in enumerate(LENGTHS):
        begin = 0
        for length in lengths:
            alone = model(ids[row : row + 1, begin : begin + length])
            difference = (together[row, begin : begin + length] - alone[0]).abs().max()
            assert difference <= 1e-5, f"{kind}: row {row}, tokens {begin} to {begin + length}: {difference:.1e}"
            begin += length


@pytest.mark.parametrize("kind", KINDS)
def test_continuations_of_a_shared_beginning_have_the_logits_they_have_behind_it(kind: str) -> None:
    model = build(kind).eval()
    ids = torch.randint(V, (1, 15), generator=torch.Generator().manual_seed(4))
    segments = torch.tensor([[-1] * 6 + [1] * 4 + [2] * 3 + [9] * 2])
    together = model(ids, segments=segments)
    torch.testing.assert_close(together[:, :6], model(ids[:, :6]), rtol=0, atol=1e-5)
    for begin, end in ((6, 10), (10, 13), (13, 15)):
        alone = model(torch.cat([ids[:, :6], ids[:, begin:end]], dim=1))[:, 6:]
        torch.testing.assert_close(together[:, begin:end], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_in_training_too_a_text_sends_no_gradient_into_another(kind: str) -> None:
    model = build(kind).train()
    ids, segments = packed()
    seen: list[Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    model.transformer.wte.register_forward_hook(keep)
    model(ids, segments=segments)[0, 5:12].square().sum().backward()  # the second text of the first row
    reached = seen[0].grad
    assert reached is not None
    touched = reached.abs().sum(-1) > 0
    expected = torch.zeros(2, 16, dtype=torch.bool)
    expected[0, 5:12] = True
    if "experts" not in kind:  # experts without tokens of a text still get zeros, never a leak
        assert torch.equal(touched, expected)
    assert not bool((touched & ~expected).any())


def test_one_text_in_a_row_is_todays_pass() -> None:
    for kind in KINDS:
        model = build(kind).eval()
        ids, _ = packed()
        whole = model(ids, segments=torch.zeros_like(ids))
        torch.testing.assert_close(whole, model(ids), atol=1e-5, rtol=1e-5)


def test_masks_and_positions_by_hand() -> None:
    config = build("windows + soft-caps").config
    masks, positions = segment_masks(config, torch.tensor([[4, 4, 4, 9, 9, 0]]))
    assert positions.tolist() == [[0, 1, 2, 0, 1, 0]]
    assert masks.full is not None and masks.full.shape == (1, 1, 6, 6)
    assert masks.full[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    narrow, _ = segment_masks(config, torch.zeros(1, 8, dtype=torch.long))
    assert narrow.windowed is not None
    assert narrow.windowed[0, 0, 7].int().tolist() == [0, 0, 0, 1, 1, 1, 1, 1], "a window of 5 ends at the query"
