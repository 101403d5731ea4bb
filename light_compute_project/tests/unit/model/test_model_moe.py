"""Experts on sorted tokens: the loop over experts gives the same, and nothing waits for the device per expert."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.moe import LLaMAMoE, leave_experts_out


def shape(n_expert: int, chosen: int) -> GPTConfig:
    return GPTConfig(
        n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=16, parallel_residual=False, bias=False,
        mlp_class_name="LLaMAMoE", intermediate_size=24, n_expert=n_expert, n_expert_per_token=chosen,
    )  # fmt: skip


def loop(moe: LLaMAMoE, x: Tensor) -> Tensor:
    """Expert after expert, each on the tokens that chose it."""
    tokens = x.reshape(-1, x.size(-1))
    weights, chosen = moe.route(tokens)
    y = torch.zeros_like(tokens)
    for number, expert in enumerate(moe.experts):
        token, slot = torch.where(chosen == number)
        y.index_add_(0, token, weights[token, slot, None] * expert(tokens[token]))
    return y.view_as(x)


@pytest.mark.parametrize(("n_expert", "chosen", "n"), [(4, 2, 7), (8, 1, 1), (8, 3, 12), (2, 2, 5)])
def test_sorted_tokens_give_what_the_loop_gives(n_expert: int, chosen: int, n: int) -> None:
    torch.manual_seed(n)
    moe = LLaMAMoE(shape(n_expert, chosen)).double()
    x = torch.randn(2, n, 16, dtype=torch.float64, requires_grad=True)
    parameters = [x, *moe.parameters()]
    ours, expected = moe(x), loop(moe, x)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-13)
    target = torch.randn_like(ours)
    gradients = [torch.autograd.grad((y * target).sum(), parameters) for y in (ours, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_no_operation_waits_for_the_device_per_expert() -> None:
    """`nonzero` has a size that only the device knows, so the host waits for it."""
    calls: list[str] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func.__name__)
            return func(*args, **(kwargs or {}))

    moe, x = LLaMAMoE(shape(8, 2)), torch.randn(1, 6, 16)
    with torch.no_grad(), Recorder():
        moe(x)
    assert "index_add_.default" in calls and not [name for name in calls if "nonzero" in name]


def test_compiled_the_experts_are_left_out_whatever_their_number_of_rows() -> None:
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    moe = LLaMAMoE(shape(4, 2))
    leave_experts_out(moe)
    compiled = torch.compile(moe, backend=backend, dynamic=False)
    x = torch.randn(1, 6, 16)
    with torch.no_grad():
        assert torch.equal(compiled(x), moe(x))
        after_one = len(graphs)
        for seed in range(4):  # other tokens, other rows per expert
            other = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(compiled(other), moe(other))
    assert len(graphs) == after_one <= 2
