"""The training kernels compute what `Block.forward` and autograd compute, at any number of threads."""

import copy
import shutil
from collections import defaultdict
from functools import partial

import pytest
import torch

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.loss import cross_entropy
from litgpt_core.optim.build import build_flat_optimizer
from litgpt_core.optim.settings import AdamWSettings
from litgpt_core.training import cpu_kernels
from litgpt_core.training.cpu_kernels import leave_kernels, load_training_kernels, obstacle, use_kernels

GPT2 = {
    "norm_class_name": "LayerNorm",
    "mlp_class_name": "GptNeoxMLP",
    "position_embedding": "learned",
    "n_embd": 64,
    "n_head": 4,
}
LLAMA = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 96,
    "rotary_percentage": 1.0,
    "n_embd": 64,
    "n_head": 4,
    "bias": False,
}
SHAPES = {
    "gpt2": GPT2,
    "gpt2 without biases, tanh": GPT2 | {"bias": False, "gelu_approximate": "tanh"},
    "llama": LLAMA,
    "grouped, head size apart from the width": LLAMA | {"n_query_groups": 2, "head_size": 32},
    "one group, partly rotated": LLAMA | {"n_query_groups": 1, "n_head": 2, "head_size": 32, "rotary_percentage": 0.5},
    "normalised queries": LLAMA | {"norm_qk": True, "n_query_groups": 2},
    "normalised queries with LayerNorm": GPT2 | {"norm_qk": True},
    "gemma": LLAMA | {"name": "Gemma-test", "mlp_class_name": "GemmaMLP", "gelu_approximate": "tanh"},
    "layer norm without weights": GPT2 | {"name": "OLMo-test", "bias": False},
    "odd hidden size": LLAMA | {"intermediate_size": 172},
    "odd hidden size without a gate": GPT2 | {"intermediate_size": 101, "bias": False},
    "sums in several chunks": GPT2 | {"n_embd": 416, "n_head": 13, "intermediate_size": 800},
}
LENGTH = 100


@pytest.fixture(scope="module", autouse=True)
def kernels():
    try:
        return load_training_kernels()
    except EnvironmentProblem as problem:
        if any(map(shutil.which, cpu_kernels.kernel_build.COMPILERS)):
            raise  # a build that fails, or takes too long, is not a reason to test nothing
        pytest.skip(problem.given)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def build(**fields) -> GPT:
    config = GPTConfig(
        **{"n_layer": 1, "block_size": 128, "vocab_size": 64, "parallel_residual": False, "padding_multiple": 64}
        | fields
    )
    model = GPT(config)
    initialize(model, seed=3)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():  # no weight is zero or one, no norm is the identity
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def block_results(model: GPT, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and all gradients of the first block."""
    block = model.transformer.h[0]
    block.zero_grad()
    x = x.clone().requires_grad_()
    rope = None if model.transformer.rope is None else model.transformer.rope(torch.arange(x.size(1)))[0]
    out = block(x, rope, None)
    out.backward(gradient)
    gradients = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
    return {"out": out.detach(), "x": x.grad} | gradients


class SequentialProduct(torch.autograd.Function):
    """A linear layer whose three products are float32 sums, added up one number after another as the kernels do. The
    order of PyTorch's own products, and with it their error, depends on the processor."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return one_by_one(x.flatten(0, -2), weight.T).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        return one_by_one(flat, weight).view_as(x), one_by_one(flat.T, x.flatten(0, -2))


def one_by_one(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    total = a.new_zeros(a.size(0), b.size(1))
    for k in range(a.size(1)):
        total += a[:, k, None] * b[None, k]
    return total


def with_sequential_products(model: GPT) -> GPT:
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = partial(_linear, SequentialProduct, module)
    return model


def _linear(product, layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    out = product.apply(x, layer.weight)
    return out if layer.bias is None else out + layer.bias


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("length", [LENGTH, 6, 1])
@pytest.mark.parametrize("name", SHAPES)
def test_output_and_gradients_follow_the_block_in_float64(name, length):
    model = build(**SHAPES[name])
    generator = torch.Generator().manual_seed(5)
    x, gradient = (torch.randn(3, length, model.config.n_embd, generator=generator) for _ in range(2))
    exact = block_results(copy.deepcopy(model).double(), x.double(), gradient.double())
    sequential = block_results(with_sequential_products(model), x, gradient)
    use_kernels(model)
    results = block_results(model, x, gradient)
    assert results.keys() == exact.keys()
    for key, value in results.items():
        if exact[key].norm() < 1e-12:  # the same number for all keys changes no attention: rounding alone
            assert value.norm() < 1e-4, key
            continue
        error, least = distance(value, exact[key]), distance(sequential[key], exact[key])
        assert error < 1e-5, f"{key}: {error}"
        assert error < max(2 * least, 3e-7), f"{key}: {error} against {least} of sequential sums"


def loss_results(model: GPT, loss, idx, targets) -> dict[str, torch.Tensor]:
    """Loss and gradients of the whole model."""
    model.zero_grad()
    value = loss(model.hidden(idx), model.head, targets)
    (value * 0.5).backward()
    return {"loss": value.detach()} | {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("tied", "chunk_size"), [(True, 0), (False, 0), (True, 64), (False, 128), (False, 400)])
def test_loss_of_a_whole_model_follows_float64(tied, chunk_size):
    model = build(**LLAMA | {"n_layer": 2, "tie_embeddings": tied})
    generator = torch.Generator().manual_seed(5)
    idx, targets = (torch.randint(64, (4, LENGTH), generator=generator) for _ in range(2))
    targets[1, 20:50] = -100
    exact = loss_results(copy.deepcopy(model).double(), cross_entropy, idx, targets)
    torch_results = loss_results(model, cross_entropy, idx, targets)
    results = loss_results(model, partial(use_kernels(model), chunk_size=chunk_size), idx, targets)
    assert results.keys() == exact.keys()
    for key, value in results.items():
        error, least = distance(value, exact[key]), distance(torch_results[key], exact[key])
        assert error < 1e-5, f"{key}: {error}"
        assert error < max(2 * least, 3e-7), f"{key}: {error} against {least} of torch"


ROUNDED = 0.35
"""Of what rounding to bfloat16 changes: the kernels and the emulation round a few numbers to different sides, because
float32 and float64 differ before they are rounded. Products of unrounded operands would be at 1."""


class RoundedProduct(torch.autograd.Function):
    """A linear layer whose three products are of operands rounded to bfloat16, added up in float64."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return bfloat16(x) @ bfloat16(weight).T

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        flat = bfloat16(gradient).flatten(0, -2)
        return bfloat16(gradient) @ bfloat16(weight), flat.T @ bfloat16(x).flatten(0, -2)


class RoundedAttention(torch.autograd.Function):
    """Causal attention whose products are of rounded operands; softmax and its gradient are exact."""

    @staticmethod
    def forward(ctx, q, k, v, scale):
        scores = bfloat16(q) @ bfloat16(k).mT * scale
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        shares = (scores - scores.amax(-1, keepdim=True)).exp()
        out = bfloat16(shares) @ bfloat16(v) / shares.sum(-1, keepdim=True)
        ctx.save_for_backward(q, k, v, shares / shares.sum(-1, keepdim=True), out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, weights, out = ctx.saved_tensors
        inner = (gradient * out).sum(-1, keepdim=True)
        slopes = bfloat16(weights * (bfloat16(gradient) @ bfloat16(v).mT - inner) * ctx.scale)
        return (
            slopes @ bfloat16(k),
            slopes.mT @ bfloat16(q),
            bfloat16(weights).mT @ bfloat16(gradient),
            None,
        )


def rounded_attention(q, k, v, *, mask, scale, **_) -> torch.Tensor:
    k, v = (each.repeat_interleave(q.size(1) // k.size(1), dim=1) for each in (k, v))
    return RoundedAttention.apply(q, k, v, scale)


def bfloat16(x: torch.Tensor) -> torch.Tensor:
    return x.float().bfloat16().to(x.dtype)


def with_rounded_products(model: GPT) -> GPT:
    """The model in float64, but for the operands of its products (with AMX attention is not among them)."""
    model = copy.deepcopy(model).double()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = partial(_linear, RoundedProduct, module)
        if isinstance(module, CausalSelfAttention) and load_training_kernels().lc_train_has_bfloat16() == 1:
            module.attend = rounded_attention
    return model


@pytest.fixture
def autocast(kernels):
    if not kernels.lc_train_has_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("length", [LENGTH, 7, 1])
@pytest.mark.parametrize("name", SHAPES)
def test_products_under_autocast_are_of_operands_in_bfloat16(name, length, autocast):
    wrong, rounding = (
        defaultdict(float),
        defaultdict(float),
    )  # sums of squares: of few numbers it varies how many fall apart
    for seed in (5, 6, 7):
        model = build(**SHAPES[name])
        generator = torch.Generator().manual_seed(seed)
        x, gradient = (torch.randn(3, length, model.config.n_embd, generator=generator) for _ in range(2))
        emulated = block_results(with_rounded_products(model), x.double(), gradient.double())
        exact = block_results(copy.deepcopy(model).double(), x.double(), gradient.double())
        use_kernels(model)
        with autocast:
            results = block_results(model, x, gradient)
        assert all(value.dtype == torch.float32 for value in results.values())
        for key, value in results.items():
            if exact[key].norm() >= 1e-12:
                wrong[key] += distance(value, emulated[key]) ** 2
                rounding[key] += distance(exact[key], emulated[key]) ** 2
    for key in wrong:
        assert wrong[key] < max(3 * 1e-6**2, ROUNDED**2 * rounding[key]), key


def test_the_loss_under_autocast_has_products_in_bfloat16(autocast):
    model = build(**LLAMA | {"n_layer": 2})
    generator = torch.Generator().manual_seed(5)
    idx, targets = (torch.randint(64, (4, 64), generator=generator) for _ in range(2))
    emulated = loss_results(with_rounded_products(model), cross_entropy, idx, targets)
    exact = loss_results(copy.deepcopy(model).double(), cross_entropy, idx, targets)
    loss = use_kernels(model)
    with autocast:
        results = loss_results(model, loss, idx, targets)
    for key, value in results.items():
        assert distance(value, emulated[key]) < max(1e-6, ROUNDED * distance(exact[key], emulated[key])), key


def test_denormal_numbers_count_as_zero_in_the_kernels_alone():
    model = build(**GPT2 | {"tie_embeddings": False})
    use_kernels(model)
    tiny = torch.full((1, 8, 64), 1e-40)
    block = model.transformer.h[0]
    assert torch.equal(block(tiny, None, None), block(torch.zeros(1, 8, 64), None, None))
    assert (tiny * 0.5).all()  # PyTorch's threads still have them


def test_loss_without_any_target_is_zero_and_so_are_its_gradients():
    model = build(**GPT2)
    idx, targets = torch.zeros(2, 8, dtype=torch.long), torch.full((2, 8), -100)
    results = loss_results(model, use_kernels(model), idx, targets)
    assert all(not value.any() for value in results.values())


def test_chunks_hold_the_logits_of_one_chunk_and_give_them_back():
    model = build(**GPT2)
    loss = use_kernels(model)
    taken = []
    take = loss.memory.take
    loss.memory.take = lambda size: taken.append(size) or take(size)
    hidden, idx = model.hidden(torch.arange(64).view(2, 32)), torch.arange(64).view(2, 32)
    taken.clear()
    backward, calls = loss.backward, []
    loss.backward = lambda *given, **settings: calls.append(1) or backward(*given, **settings)
    with torch.no_grad():
        without = loss(hidden, model.head, idx, chunk_size=16)
    assert not calls
    value = loss(hidden, model.head, idx, chunk_size=16)
    assert torch.equal(value, without)
    assert taken == 8 * [16 * 64] and len(loss.memory._free[16 * 64]) == 1
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward"):
        value.backward()


def test_a_target_outside_the_vocabulary_is_refused():
    model = build(**GPT2)
    loss = use_kernels(model)
    with pytest.raises(IndexError, match="a target is 64"):
        loss(model.hidden(torch.zeros(1, 8, dtype=torch.long)), model.head, torch.full((1, 8), 64))


def test_settings_that_the_loss_kernel_lacks_are_computed_by_pytorch():
    model = build(**GPT2)
    idx = torch.arange(16).view(2, 8)
    loss = use_kernels(model)
    for settings in ({"z_loss": 0.1}, {"label_smoothing": 0.1}, {"count": torch.tensor(5.0)}):
        expected = cross_entropy(model.hidden(idx), model.head, idx, **settings)
        assert torch.allclose(loss(model.hidden(idx), model.head, idx, **settings), expected, rtol=1e-5)


@pytest.mark.parametrize("bfloat16_products", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "normalised queries"])
def test_bits_do_not_depend_on_threads_or_on_what_memory_held_before(name, bfloat16_products, threads, kernels):
    if bfloat16_products and not kernels.lc_train_has_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    model = build(**SHAPES[name] | {"n_layer": 2})
    generator = torch.Generator().manual_seed(5)
    idx, targets = (torch.randint(64, (5, LENGTH), generator=generator) for _ in range(2))

    def results(loss, number: int) -> dict[str, torch.Tensor]:
        threads(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_products):
            return loss_results(model, loss, idx, targets)

    first = results(use_kernels(model), 1)
    loss = use_kernels(model)
    for number in (2, 3, 8, 1):  # more than there are cores: tasks are taken over
        again = results(loss, number)
        other = [key for key in first if not torch.equal(again[key], first[key]) and "ln_f" not in key]
        assert other == [], number  # PyTorch's own last norm adds up by threads


def test_a_token_does_not_see_later_ones():
    model = build(**LLAMA)
    use_kernels(model)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, LENGTH, 64, generator=generator, requires_grad=True)
    rope = model.transformer.rope(torch.arange(LENGTH))[0]
    block = model.transformer.h[0]
    whole = block(x, rope, None)
    changed = x.detach().clone()
    changed[:, 37:] = 9.0
    assert torch.equal(block(changed, rope, None)[:, :37], whole[:, :37])
    whole[:, :37].sum().backward()
    assert not x.grad[:, 37:].any()


def test_without_gradients_the_output_is_the_same_and_nothing_is_kept():
    model = build(**GPT2)
    use_kernels(model)
    idx = torch.arange(32).view(2, 16)
    with_gradients = model(idx)
    with torch.no_grad():
        assert torch.equal(model(idx), with_gradients)
        assert model(idx).grad_fn is None


def test_masks_and_caches_are_computed_by_pytorch():
    model = build(**LLAMA)
    idx = torch.arange(12)[None]
    segments = torch.tensor([[0] * 5 + [1] * 7])
    expected = model(idx, segments=segments)
    use_kernels(model)
    assert torch.equal(model(idx, segments=segments), expected)
    model.set_kv_cache(1, max_seq_length=16)
    assert torch.allclose(model(idx, input_pos=torch.arange(12))[:, -1], model(idx)[:, -1], atol=1e-5)


def test_a_second_backward_pass_is_refused():
    model = build(**GPT2)
    loss = use_kernels(model)
    idx = torch.arange(32).view(2, 16)
    value = loss(model.hidden(idx), model.head, idx)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward"):
        value.backward()


def test_gradients_are_written_where_the_optimizer_reads_them_and_micro_batches_are_added_up():
    model = build(**GPT2 | {"n_layer": 2})
    first, second = torch.arange(32).view(2, 16), torch.arange(32).flip(0).view(2, 16)
    loss = use_kernels(model)
    expected = {key: value.double() for key, value in loss_results(model, loss, first, first).items()}
    for key, value in loss_results(model, loss, second, second).items():
        expected[key] += value
    flat = build_flat_optimizer(model, AdamWSettings(), dtype=torch.float32).flat
    loss = use_kernels(model, place=flat.place_of_gradient)
    weight = model.transformer.h[1].mlp.fc.weight
    for _ in range(2):  # steps
        flat.forget_gradients()
        for idx in (first, second):
            (loss(model.hidden(idx), model.head, idx) * 0.5).backward()
            in_place = weight.grad.data_ptr() == flat.place(weight).data_ptr()
            assert in_place is (idx is first)
            flat.collect_gradients()
        for name, parameter in model.named_parameters():
            assert distance(flat.place(parameter), expected[name]) < 1e-6, name


def test_a_second_backward_pass_before_gradients_are_collected_is_added():
    model = build(**GPT2)
    idx = torch.arange(32).view(2, 16)
    once = loss_results(model, use_kernels(model), idx, idx)
    flat = build_flat_optimizer(model, AdamWSettings(), dtype=torch.float32).flat
    loss = use_kernels(model, place=flat.place_of_gradient)
    flat.forget_gradients()
    for _ in range(2):
        (loss(model.hidden(idx), model.head, idx) * 0.5).backward()
    flat.collect_gradients()
    for name, parameter in model.named_parameters():
        assert torch.equal(flat.place(parameter), 2 * once[name]), name


def test_two_forward_passes_before_the_backward_passes_do_not_share_memory():
    model = build(**GPT2)
    idx, other = torch.arange(32).view(2, 16), torch.arange(32).flip(0).view(2, 16)
    loss = use_kernels(model)
    alone = loss_results(model, loss, idx, idx)
    model.zero_grad()
    value = loss(model.hidden(idx), model.head, idx)
    loss(model.hidden(other), model.head, other)
    (value * 0.5).backward()
    assert all(torch.equal(parameter.grad, alone[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"parallel_residual": True}, "parallel_residual=true"),
        ({"dropout": 0.1}, "dropout=0.1"),
        ({"n_head": 8}, "head_size=8"),
        ({"n_embd": 80, "n_head": 5}, "n_embd=80"),
        ({"intermediate_size": 100}, "intermediate_size with biases=100"),
        ({"norm_qk": True, "norm_qk_type": "olmo2"}, "olmo2"),
        ({"post_mlp_norm": True}, "post_mlp_norm"),
        ({"sliding_window_size": 16}, "sliding_window_size"),
        ({"norm_1": False}, "norm_1"),
        ({"attention_logit_softcapping": 20.0}, "attention_logit_softcapping"),
        ({"rope_interleave": True, "position_embedding": "rope"}, "rope_interleave"),
    ],
)
def test_what_is_not_supported_is_named(fields, reason):
    assert reason in obstacle(build(**GPT2 | fields))


def test_frozen_and_other_weights_are_not_supported():
    model = build(**GPT2)
    model.transformer.h[0].mlp.fc.weight.requires_grad_(False)
    assert "h.0.mlp.fc.weight" in obstacle(model)
    assert "float32" in obstacle(build(**GPT2).double())
    other = build(**GPT2)
    other.transformer.h[0].mlp.proj = torch.nn.Sequential(other.transformer.h[0].mlp.proj)
    assert "Sequential" in obstacle(other)


def test_left_kernels_are_not_called_again():
    model = build(**GPT2)
    idx = torch.arange(32).view(2, 16)
    expected = model(idx)
    use_kernels(model)
    leave_kernels(model)
    assert torch.equal(model(idx), expected)
    assert all(block.run is None for block in model.transformer.h)


def test_the_library_follows_its_sources(monkeypatch, tmp_path):
    before = cpu_kernels.kernel_build.cached_library(cpu_kernels.training_source())
    assert before.name.startswith("train-")
    monkeypatch.setattr(cpu_kernels, "SOURCES", tmp_path)
    assert cpu_kernels.kernel_build.cached_library(cpu_kernels.training_source()) != before
