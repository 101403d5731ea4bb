"""What each method must satisfy, whatever the model: equivalence, exactness, and never worse than the naive one."""

import copy
import dataclasses

import pytest
import torch

from litgpt_core.checkpoint.compressed_matrices import LowRankMatrix, SparseMatrix
from litgpt_core.compression import healing
from litgpt_core.compression.gptq import gptq_matrix, refit_scales
from litgpt_core.compression.healing import within_cells
from litgpt_core.compression.methods import BLOCK_STEPS, run_steps
from litgpt_core.compression.mixed import rounding_costs
from litgpt_core.compression.pruning import kept, kept_of_m, sparsegpt
from litgpt_core.compression.recipe import check_recipe
from litgpt_core.compression.rounding import round_matrix
from litgpt_core.compression.settings import Prune
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.svd import low_rank
from litgpt_core.compression.walk import Action, Inputs, walk
from litgpt_core.core.errors import ConfigError
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.distillation import check_teacher, forward_kl, jensen_shannon, reverse_kl
from litgpt_core.model.fake_quant import rounded
from litgpt_core.model.gpt import GPT


def steps(*given: dict):
    return check_recipe("test", list(given)).steps


def inputs_of(x: torch.Tensor) -> Inputs:
    inputs = Inputs.empty(x.size(-1))
    inputs.add(x)
    return inputs


def correlated(tokens: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    sizes = torch.rand(width, generator=generator) * 3 + 0.1
    return torch.randn(tokens, width, generator=generator) @ mixing * sizes


def output_error(weight: torch.Tensor, other: torch.Tensor, x: torch.Tensor) -> float:
    return float(((other - weight) @ x.T).square().mean())


@pytest.mark.parametrize(
    "step",
    [{"method": "awq"}, {"method": "smooth", "alpha": 0.7}, {"method": "rotate"}, {"method": "permute"}],
    ids=lambda step: step["method"],
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@torch.no_grad()
def test_equivalent_weights_compute_the_same(step, family, request, windows):
    work = request.getfixturevalue(family)
    before = work.model(windows)
    weights = {name: value.clone() for name, value in work.model.state_dict().items()}
    if (step["method"], family) == ("rotate", "gpt2"):
        with pytest.raises(ConfigError, match="RMSNorm"):
            run_steps(work, steps(step), windows=windows)
        return
    run_steps(work, steps(step), windows=windows)
    assert float((work.model(windows) - before).abs().max() / before.abs().max()) < 1e-4
    changed = [name for name, value in work.model.state_dict().items() if not torch.equal(value, weights[name])]
    assert len(changed) > len(weights) / 3


@pytest.mark.parametrize("method", ["awq", "smooth"])
def test_statistics_that_follow_the_scaling_are_those_of_another_pass(method, make, windows):
    """The step after it need not read the windows again."""
    found = []
    for follow in (True, False):
        scaling, seen = BLOCK_STEPS[type(steps({"method": method})[0])](steps({"method": method})[0]), {}
        record = Action(lambda context, seen=seen: seen.update({context.structure.index: context.inputs}), True)
        walk(make(), [dataclasses.replace(scaling, keeps_inputs=follow), record], windows=windows)
        found.append(seen)
    for block, inputs in found[0].items():
        for name, ours in inputs.items():
            fresh = found[1][block][name]
            assert torch.allclose(ours.moment, fresh.moment, rtol=1e-3, atol=1e-4 * float(fresh.moment.abs().max()))
            assert torch.allclose(ours.mean, fresh.mean, rtol=1e-3, atol=1e-6)
            assert torch.allclose(ours.largest, fresh.largest, rtol=1e-3, atol=1e-6)


def test_gptq_without_correlations_is_rounding():
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    ours = gptq_matrix(weight, torch.eye(64), bits=4, clip="mse")
    plain = round_matrix(weight, bits=4, clip="mse")
    assert torch.equal(ours.codes, plain.codes) and torch.equal(ours.scales, plain.scales)


@pytest.mark.parametrize("seed", range(6))
def test_gptq_and_sparsegpt_have_smaller_output_errors_than_the_naive_methods(seed):
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(seed))
    x = correlated(400, 64, seed)
    inputs = inputs_of(x)
    gptq = gptq_matrix(weight, inputs.moment, bits=4).dense()
    assert output_error(weight, gptq, x) < output_error(weight, round_matrix(weight, bits=4).dense(), x)
    sparse = sparsegpt(weight, inputs.moment, Prune(score="sparsegpt"))
    norms = inputs.moment.diagonal().sqrt()
    wanda = weight * kept(weight.abs() * norms, sparsity=0.5)
    magnitude = weight * kept(weight.abs(), sparsity=0.5)
    errors = [output_error(weight, other, x) for other in (sparse, wanda, magnitude)]
    assert errors == sorted(errors) and abs(float((sparse == 0).float().mean()) - 0.5) < 0.01


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_scales_that_are_chosen_again_have_smaller_output_errors_for_the_same_codes(bits, seed):
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(seed))
    x = correlated(400, 64, seed)
    once, again = (gptq_matrix(weight, inputs_of(x).moment, bits=bits, refit=refit) for refit in (False, True))
    assert torch.equal(once.codes, again.codes) and not torch.equal(once.scales, again.scales)
    assert output_error(weight, again.dense(), x) < 0.99 * output_error(weight, once.dense(), x)


def test_scales_that_are_chosen_again_are_those_of_least_squares_over_the_tokens():
    weight, x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)), correlated(400, 64, 0).double()
    codes, scales = round_matrix(weight, bits=3).unpacked()
    found = refit_scales(weight, codes.float(), scales.float(), (x.T @ x).float(), damp=0.0)
    for row in range(5):
        outputs_per_scale = (x * codes[row].double()).view(400, 2, 32).sum(-1)
        expected = torch.linalg.lstsq(outputs_per_scale, (x @ weight[row].double()).unsqueeze(1)).solution[:, 0]
        assert torch.allclose(found[row].double(), expected, rtol=2e-3)


def test_inputs_of_low_rank_and_dead_inputs_do_no_harm():
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    x = correlated(10, 64, 1)
    x[:, 5] = 0
    quantized = gptq_matrix(weight, inputs_of(x).moment, bits=4).dense()
    assert quantized.isfinite().all() and output_error(weight, quantized, x) < 0.1 * float(
        (weight @ x.T).square().mean()
    )


@pytest.mark.parametrize("clip", ["mse", "activations"])
def test_searched_scales_are_never_worse_than_the_largest_weights(clip):
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0)) ** 3
    h = torch.rand(64, generator=torch.Generator().manual_seed(1)) + 0.1
    importance = h if clip == "activations" else None

    def error(matrix: torch.Tensor) -> torch.Tensor:
        return (((matrix - weight).square() * (1 if importance is None else h)).view(24, 2, 32)).sum(-1)

    searched = round_matrix(weight, bits=4, clip=clip, importance=importance).dense()
    assert bool((error(searched) <= error(round_matrix(weight, bits=4, clip="absmax").dense()) * 1.001).all())


def test_one_scale_per_channel_or_tensor_is_repeated_in_every_group():
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    for per, different in (("tensor", 1), ("channel", 24), ("group", 48)):
        scales = round_matrix(weight, bits=8, clip="absmax", per=per).scales
        assert len(scales.flatten().unique()) == different + 1  # and zeros beyond the last output


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8)])
def test_patterns_keep_exactly_n_of_m(n, m):
    scores = torch.rand(6, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kept_of_m(scores, n=n, m=m).view(6, -1, m).sum(-1), torch.full((6, 32 // m), float(n)))
    step = Prune(score="sparsegpt", pattern=f"{n}:{m}")
    pruned = sparsegpt(torch.randn(6, 64), inputs_of(correlated(200, 64, 0)).moment, step)
    assert torch.equal((pruned != 0).view(6, -1, m).sum(-1), torch.full((6, 64 // m), n))


def test_whitened_svd_is_exact_at_full_rank_and_best_in_outputs_at_every_other():
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    x = correlated(400, 64, 3)
    inputs = inputs_of(x)
    for kind in ("plain", "scaled", "whitened"):
        down, up = low_rank(weight, inputs, kind=kind, rank=32)
        assert torch.allclose(up @ down, weight, atol=2e-3)
    for rank in (4, 12, 24):
        found = {}
        for kind in ("plain", "scaled", "whitened"):
            down, up = low_rank(weight, inputs, kind=kind, rank=rank)
            found[kind] = output_error(weight, up @ down, x)
        assert found["whitened"] <= min(found.values()) * 1.001 and found["whitened"] < 0.8 * found["plain"]


def test_the_walk_collects_what_the_layers_read(llama, windows):
    seen = {}
    expected = {}
    linear = llama.linear("transformer.h.1.mlp.proj")
    hook = linear.register_forward_pre_hook(lambda _, x: expected.update(x=x[0].detach().reshape(-1, 128)))
    with torch.no_grad():
        llama.model(windows)
    hook.remove()
    walk(llama, [Action(lambda c: seen.update({c.structure.index: c.inputs}), True)], windows=windows, batch=4)
    x, found = expected["x"], seen[1]["hidden"]
    assert set(seen[1]) == {"norm_1", "attention", "norm_2", "hidden"} and found.tokens == 6 * 32
    assert torch.allclose(found.moment, x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    assert torch.allclose(found.mean, x.abs().mean(0), rtol=1e-4) and torch.equal(found.largest, x.abs().amax(0))


def test_patterns_are_packed_and_ranks_stored(llama, windows):
    run_steps(llama, steps({"method": "prune", "score": "wanda", "pattern": "2:4"}), windows=windows)
    assert len(llama.matrices) == 15 and all(isinstance(m, SparseMatrix) for m in llama.matrices.values())
    assert float((llama.linear("transformer.h.0.attn.qkv").weight == 0).float().mean()) == 0.5


def test_svd_keeps_the_share_of_parameters(llama, windows):
    run_steps(llama, steps({"method": "svd", "share": 0.6}), windows=windows)
    stored = sum(m.down.numel() + m.up.numel() for m in llama.matrices.values() if isinstance(m, LowRankMatrix))
    dense = sum(llama.linear(path).weight.numel() for path in llama.matrices)
    assert 0.56 < stored / dense <= 0.6


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        ({"method": "depth", "remove": 1}, {"n_layer": 2}),
        ({"method": "width", "keep": 0.5}, {"intermediate_size": 64}),
        ({"method": "heads", "keep": 1}, {"n_head": 2, "n_query_groups": 1, "head_size": 16}),
    ],
    ids=["depth", "width", "heads"],
)
@torch.no_grad()
def test_structured_pruning_gives_a_plain_smaller_model(step, changes, llama, windows):
    before = llama.model.num_parameters()
    run_steps(llama, steps(step), windows=windows)
    config = llama.model.config
    assert {key: getattr(config, key) for key in changes} == changes and not llama.matrices
    assert llama.model.num_parameters() < before and llama.model(windows).isfinite().all()


@torch.no_grad()
def test_units_and_heads_that_contribute_nothing_are_the_ones_removed(llama, windows):
    for layer in range(3):
        llama.linear(f"transformer.h.{layer}.mlp.proj").weight[:, 32:64] = 0
        llama.linear(f"transformer.h.{layer}.attn.proj").weight[:, :32] = 0
    before = llama.model(windows)
    run_steps(llama, steps({"method": "width", "keep": 0.75}, {"method": "heads", "keep": 1}), windows=windows)
    assert torch.allclose(llama.model(windows), before, atol=1e-4 * float(before.abs().max()))


def test_a_block_that_changes_nothing_is_the_one_removed(llama, windows):
    with torch.no_grad():
        llama.linear("transformer.h.1.attn.proj").weight.zero_()
        llama.linear("transformer.h.1.mlp.proj").weight.zero_()
        before = llama.model(windows)
        run_steps(llama, steps({"method": "depth", "remove": 1}), windows=windows)
        assert torch.allclose(llama.model(windows), before, atol=1e-5 * float(before.abs().max()))
    assert "removed blocks [1]" in llama.notes[0]
    with pytest.raises(ConfigError, match="the ends stay"):
        run_steps(llama, steps({"method": "depth", "remove": 1}), windows=windows)


def test_mixed_precision_spends_its_budget_where_it_helps_most(llama, windows):
    costs = rounding_costs(llama, windows[:3], ["transformer.h.0.attn.qkv"], clip="mse")["transformer.h.0.attn.qkv"]
    assert 0 < costs[8] < costs[4] / 20
    run_steps(llama, steps({"method": "mixed", "budget": 5.5}), windows=windows)
    blocks = {path: matrix for path, matrix in llama.matrices.items() if "h." in path}
    size = sum(m.codes.nbytes + m.scales.nbytes for m in blocks.values()) * 8
    bits = size / sum(llama.linear(path).weight.numel() for path in blocks)
    assert 4.6 < bits <= 5.5 and {m.facts["bits"] for m in blocks.values()} == {4, 8}


def test_quantized_quality_orders_as_the_bits_do(llama, make, windows):
    with torch.no_grad():
        expected = llama.model(windows)
    found = []
    for bits in (8, 4, 3, 2):
        work = make()
        run_steps(work, steps({"method": "round", "bits": bits, "head": 8}), windows=None)
        with torch.no_grad():
            found.append(float((work.model(windows) - expected).square().mean()))
    assert found == sorted(found) and found[0] < found[1] / 20


@pytest.mark.parametrize("loss", ["forward", "reverse", "jsd"])
def test_distillation_heals_what_a_removed_block_cost(loss, make, windows, domains):
    found = {}
    for name, more in (("bare", []), ("healed", [{"method": "distill", "steps": 40, "lr": 2e-3, "loss": loss}])):
        work = make()
        teacher = make().model
        run_steps(work, steps({"method": "depth", "remove": 1}, *more), windows=windows, domains=domains)
        with torch.no_grad():
            rows = domains[0].measurement[:320].view(-1, 32)
            found[name] = float(forward_kl(work.model(rows).log_softmax(-1), teacher(rows).log_softmax(-1)).mean())
    assert found["healed"] < 0.7 * found["bare"]


def test_quantization_aware_training_improves_the_codes_on_the_same_grid(make, windows, domains):
    found, scales = {}, {}
    for name, more in (("ptq", []), ("qat", [{"method": "qat", "steps": 40, "lr": 3e-4}])):
        work, teacher = make(), make().model
        given = [{"method": "gptq", "bits": 4}, *more]
        run_steps(work, steps(*given), windows=windows, domains=domains)
        scales[name] = work.matrices["transformer.h.0.attn.qkv"].scales
        with torch.no_grad():
            rows = domains[0].measurement[:640].view(-1, 32)
            found[name] = float(forward_kl(work.model(rows).log_softmax(-1), teacher(rows).log_softmax(-1)).mean())
        stored = work.matrices["transformer.h.0.attn.qkv"].dense()
        assert torch.equal(work.linear("transformer.h.0.attn.qkv").weight, stored)
        assert torch.equal(work.model.lm_head.weight, work.matrices["lm_head"].dense()), "the head is not trained"
    assert torch.equal(scales["ptq"], scales["qat"]) and found["qat"] < 0.7 * found["ptq"]


@pytest.mark.parametrize("loss", ["forward", "reverse", "jsd", "ce"])
def test_the_loss_in_parts_has_the_gradients_of_the_loss_at_once(loss, monkeypatch):
    torch.manual_seed(0)
    weight, x = torch.randn(11, 6, requires_grad=True), torch.randn(2, 5, 6)
    source, targets = torch.randn(2, 5, 11), torch.randint(11, (2, 5))
    monkeypatch.setattr(healing, "AT_ONCE", 3 * 11)  # three positions: the last part is shorter
    found = healing._backward(loss, x @ weight.T, None if loss == "ce" else source, targets)
    ours, weight.grad = weight.grad, None
    log_p = (x @ weight.T).log_softmax(-1)
    kinds = {"forward": forward_kl, "reverse": reverse_kl, "jsd": jensen_shannon}
    text = -log_p.gather(-1, targets.unsqueeze(-1))
    whole = text.mean() if loss == "ce" else kinds[loss](log_p, source.log_softmax(-1)).mean()
    whole.backward()
    assert found == pytest.approx(float(whole.detach()), rel=1e-5)
    assert torch.allclose(ours, weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_block_reconstruction_brings_integers_nearer_to_the_source_and_stores_what_it_computes(
    family, request, domains
):
    """On other text than it was trained on; the head stays, and a step of zero length would change nothing."""
    found, given = {}, [{"method": "awq"}, {"method": "gptq", "bits": 4}]
    source = copy.deepcopy(request.getfixturevalue(family).model)
    windows = domains[0].calibration[: 60 * 32].view(-1, 32)
    for name, more in (("ptq", []), ("trained", [{"method": "reconstruct", "steps": 60, "batch": 8}])):
        work = WorkingModel(copy.deepcopy(source))
        run_steps(work, steps(*given, *more), windows=windows, domains=domains)
        with torch.no_grad():
            rows = domains[0].measurement[:640].view(-1, 32)
            found[name] = float(forward_kl(work.model(rows).log_softmax(-1), source(rows).log_softmax(-1)).mean())
        for path, matrix in work.matrices.items():
            assert torch.equal(work.model.get_submodule(path).weight, matrix.dense())
        trained = [parameter.requires_grad for parameter in work.model.parameters()]
        assert not any(trained) or name == "ptq"
        if name == "ptq":
            head = work.matrices["lm_head"].codes
    assert torch.equal(head, work.matrices["lm_head"].codes)
    assert found["trained"] < 0.85 * found["ptq"]


def test_training_of_codes_begins_with_them_and_as_near_to_the_unrounded_weights_as_they_allow():
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    matrix = gptq_matrix(weight, inputs_of(correlated(400, 64, 0)).moment, bits=4)
    codes, scales = (each.float() for each in matrix.unpacked())
    near = within_cells(weight, codes, scales)
    assert torch.equal(rounded(near, scales, bits=4), matrix.dense())
    steps_away = (weight - matrix.dense()).abs() / scales.abs().repeat_interleave(32, dim=1)
    assert torch.equal(near == weight, steps_away <= 0.4) and 0.5 < float((near == weight).float().mean()) < 0.99


def test_the_divergences_are_zero_for_equal_models_and_a_teacher_needs_the_same_tokens(llama):
    p = torch.randn(2, 3, 8).log_softmax(-1)
    q = torch.randn(2, 3, 8).log_softmax(-1)
    for loss in (forward_kl, reverse_kl, jensen_shannon):
        assert float(loss(p, p).abs().max()) < 1e-6 < float(loss(p, q).min())
    assert torch.allclose(forward_kl(p, q), reverse_kl(q, p))
    assert torch.allclose(jensen_shannon(p, q), jensen_shannon(q, p), rtol=1e-4)
    other = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=16, vocab_size=40, padding_multiple=40))
    with pytest.raises(ConfigError, match="256 tokens, its teacher 40"):
        check_teacher(llama.model.config, other.config)
    with pytest.raises(ConfigError, match="reads 32 tokens, its teacher 16"):
        check_teacher(llama.model.config, dataclasses.replace(other.config, vocab_size=256, padded_vocab_size=256))
