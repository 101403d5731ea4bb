"""Experts on sorted tokens: the loop over experts gives the same, nothing waits for the device per expert, and one
product of all experts, as on a GPU, gives the same again.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.registry import lookup_backend
from torch.utils._python_dispatch import TorchDispatchMode

from litgpt_core.model import moe as moe_room
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.grouped import grouped_product, has_grouped_kernel
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


# ---- one product for all experts; torch carries it out on a CPU, too


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the CPU were a GPU that has the kernel."""
    monkeypatch.setattr(moe_room, "has_grouped_kernel", lambda *_: True)
    monkeypatch.setattr(moe_room, "ROWS_WORTH_COPYING", 0)


@pytest.mark.parametrize(("n_expert", "chosen", "n"), [(4, 2, 7), (8, 1, 1), (8, 3, 12)])
def test_one_product_of_all_experts_gives_what_the_loop_gives(n_expert: int, chosen: int, n: int, kernel: None) -> None:
    """With experts that no token chose: 6 rows or fewer for 8 of them."""
    torch.manual_seed(n)
    moe = LLaMAMoE(shape(n_expert, chosen))
    x = torch.randn(2, n, 16, requires_grad=True)
    parameters = [x, *moe.parameters()]
    ours, expected = moe(x), loop(moe, x)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    target = torch.randn_like(ours)
    gradients = [torch.autograd.grad((y * target).sum(), parameters) for y in (ours, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_only_weights_are_kept_from_the_forward_to_the_backward_pass() -> None:
    """A stacked copy that is kept would hold all layers' experts unsharded under FSDP2."""
    weights = [torch.randn(8, 16, requires_grad=True) for _ in range(3)]
    x, ends = torch.randn(5, 16, requires_grad=True), torch.tensor([2, 2, 5], dtype=torch.int32)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):  # type: ignore[func-returns-value]
        y = grouped_product(x, ends, weights)
    assert set(kept) == {t.data_ptr() for t in (x, ends, *weights)}
    expected = torch.cat([x[:2] @ weights[0].mT, x[2:] @ weights[2].mT])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)


def test_stacked_experts_are_not_copied_and_end_with_other_weights(kernel: None) -> None:
    moe, x = LLaMAMoE(shape(4, 2)), torch.randn(1, 6, 16)
    with torch.no_grad():
        expected = moe(x)
        moe.stack()
        assert moe.stacked is not None
        first = moe.experts[0].get_parameter("fc_1.weight")
        assert first.untyped_storage().data_ptr() == moe.stacked[0].untyped_storage().data_ptr()
        torch.testing.assert_close(moe(x), expected, rtol=1e-6, atol=1e-7)
        other = {name: tensor + 1 for name, tensor in moe.state_dict().items()}
        moe.load_state_dict(other, assign=True)
        assert moe.stacked is None
        torch.testing.assert_close(moe(x), loop(moe, x), rtol=1e-5, atol=1e-5)
        moe.stack()
        moe.bfloat16()
        assert moe.stacked is None and moe(x.bfloat16()).dtype == torch.bfloat16


def test_layers_that_the_kernel_cannot_multiply_stay_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litgpt_core.model.grouped._new_enough", lambda device: True)
    plain = [torch.nn.Linear(16, 8, bias=False)]
    narrow = torch.empty(4, 16, dtype=torch.bfloat16, device="meta")

    class OnCuda:
        device, dtype = torch.device("cuda"), torch.bfloat16

    cuda: Any = OnCuda()
    assert has_grouped_kernel(cuda, plain) and not has_grouped_kernel(narrow, plain)
    hooked = torch.nn.Linear(16, 8, bias=False)
    hooked.register_forward_hook(lambda *_: None)
    for layer in (torch.nn.Linear(16, 8), torch.nn.Linear(16, 6, bias=False), torch.nn.Identity(), hooked):
        assert not has_grouped_kernel(cuda, [*plain, layer])
    OnCuda.dtype = torch.float32
    assert not has_grouped_kernel(cuda, plain)


def test_compiled_one_product_is_one_graph_whatever_the_rows(kernel: None) -> None:
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return aot_eager(graph, inputs)

    aot_eager = lookup_backend("aot_eager")
    moe = LLaMAMoE(shape(4, 2))
    leave_experts_out(moe)
    compiled = torch.compile(moe, backend=backend, dynamic=False, fullgraph=True)
    for seed in range(4):
        x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(seed))
        found, expected = compiled(x), moe(x)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
        gradients = [torch.autograd.grad(y.sum(), list(moe.parameters())) for y in (found, expected)]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert len(graphs) == 1
