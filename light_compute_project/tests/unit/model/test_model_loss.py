"""The loss equals torch's and hand-computed numbers, whole or in chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from litgpt_core.model.loss import cross_entropy, token_losses

B, T, C, V = 3, 7, 8, 11


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def inputs(*, ignored: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(B, T, C, generator=generator, requires_grad=True)
    weight = torch.randn(V, C, generator=generator, requires_grad=True)
    targets = torch.randint(V, (B, T), generator=generator)
    if ignored:
        targets[0, :3] = -100
        targets[2, -1] = -100
    return hidden, weight, targets


def reference(hidden: Tensor, weight: Tensor, targets: Tensor, **options: float) -> Tensor:
    return functional.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten(), **options)


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of))


@pytest.mark.parametrize("chunk_size", [0, 1, 4, 21, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradients_equal_torchs(chunk_size: int, smoothing: float) -> None:
    hidden, weight, targets = inputs()
    expected = reference(hidden, weight, targets, label_smoothing=smoothing)
    loss = cross_entropy(hidden, weight, targets, chunk_size=chunk_size, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, hidden, weight), gradients(expected, hidden, weight))


@pytest.mark.parametrize("chunk_size", [0, 4])
def test_a_head_function_is_used_as_it_is(chunk_size: int) -> None:
    hidden, weight, targets = inputs()
    bias = torch.randn(V, requires_grad=True)

    def head(rows: Tensor) -> Tensor:
        return torch.tanh(functional.linear(rows, weight, bias) / 3) * 3

    expected = functional.cross_entropy(head(hidden).flatten(0, 1), targets.flatten())
    loss = cross_entropy(hidden, head, targets, chunk_size=chunk_size)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, hidden, weight, bias), gradients(expected, hidden, weight, bias))


def test_gradients_are_right_in_float64() -> None:
    hidden, weight, targets = (tensor.detach() for tensor in inputs())
    hidden, weight = hidden[:1].double().requires_grad_(), weight.double().requires_grad_()

    def loss(h: Tensor, w: Tensor) -> Tensor:
        return cross_entropy(h, w, targets[:1], chunk_size=2, z_loss=0.1, label_smoothing=0.2)

    assert torch.autograd.gradcheck(loss, (hidden, weight))


def test_another_ignore_index() -> None:
    hidden, weight, targets = inputs(ignored=False)
    torch.testing.assert_close(
        cross_entropy(hidden, weight, targets, ignore_index=5, chunk_size=4),
        reference(hidden, weight, targets, ignore_index=5),
    )


def test_z_loss_by_hand() -> None:
    """Logits (ln 1, ln 3) have logsumexp ln 4; the target's probability is 3/4. The second token does not count."""
    hidden = torch.tensor([[[1.0], [5.0]]])
    weight = torch.tensor([[0.0], [math.log(3)]])
    targets = torch.tensor([[1, -100]])
    loss = cross_entropy(hidden, weight, targets, z_loss=0.5)
    assert loss.item() == pytest.approx(math.log(4 / 3) + 0.5 * math.log(4) ** 2)


def test_label_smoothing_by_hand() -> None:
    """Half of the smoothing goes to each of two columns: 0.9 of the target's nll and 0.1 of the other's."""
    loss = cross_entropy(
        torch.tensor([[[1.0]]]), torch.tensor([[0.0], [math.log(3)]]), torch.tensor([[1]]), label_smoothing=0.2
    )
    assert loss.item() == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    _, _, targets = inputs()
    assert cross_entropy(torch.ones(B, T, C), torch.zeros(V, C), targets).item() == pytest.approx(math.log(V))


@pytest.mark.parametrize("chunk_size", [0, 4])
def test_no_counted_token_gives_zero_and_zero_gradients(chunk_size: int) -> None:
    hidden, weight, targets = inputs()
    loss = cross_entropy(hidden, weight, torch.full_like(targets, -100), chunk_size=chunk_size, z_loss=0.1)
    assert loss.item() == 0.0
    assert all(grad.abs().max() == 0.0 for grad in gradients(loss, hidden, weight))


@pytest.mark.parametrize("chunk_size", [0, 5])
def test_sum_and_count_give_the_mean(chunk_size: int) -> None:
    hidden, weight, targets = inputs()
    total, count = token_losses(hidden, weight, targets, chunk_size=chunk_size)
    assert (total.dtype, count.dtype, count.item()) == (torch.float32, torch.float32, B * T - 4)
    assert not total.requires_grad
    torch.testing.assert_close(total / count, reference(hidden, weight, targets).detach())


@pytest.mark.parametrize("chunk_size", [0, 4])
def test_bf16_autocast_keeps_the_loss_in_fp32(chunk_size: int) -> None:
    hidden, weight, targets = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = functional.linear(hidden, weight)
        loss = cross_entropy(hidden, weight, targets, chunk_size=chunk_size)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten()))
    assert all(grad.isfinite().all() for grad in gradients(loss, hidden, weight))


def test_chunks_never_hold_all_logits() -> None:
    """The largest tensor that autograd saves is no larger than the inputs, where the plain path keeps N * V numbers."""
    hidden, weight = torch.randn(1, 64, 4, requires_grad=True), torch.randn(200, 4, requires_grad=True)
    targets = torch.randint(200, (1, 64))

    def largest_saved(chunk_size: int) -> int:
        sizes = [0]
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t)
        with hooks:
            cross_entropy(hidden, weight, targets, chunk_size=chunk_size)
        return max(sizes)

    assert largest_saved(0) >= 64 * 200
    assert largest_saved(8) <= 200 * 4


def test_the_plain_path_traces_without_a_graph_break() -> None:
    hidden, weight, targets = inputs()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(hidden, weight, targets, z_loss=0.1), cross_entropy(hidden, weight, targets, z_loss=0.1)
    )


@pytest.mark.parametrize("options", [{"chunk_size": -1}, {"z_loss": -0.1}, {"label_smoothing": 1.0}])
def test_bad_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="bad loss settings"):
        cross_entropy(*inputs(), **options)
