"""Every analysis on models built by hand, whose answers are known exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from litgpt_core.core.errors import CheckpointError, ConfigError
from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.interpret import known_models, lens, losses
from litgpt_core.interpret.ablation import Ablation
from litgpt_core.interpret.adam import Adam
from litgpt_core.interpret.attribution import attribute
from litgpt_core.interpret.autoencoder import TopKAutoencoder, continued_loss, residuals, train
from litgpt_core.interpret.budget import breakdown
from litgpt_core.interpret.decompose import traced_parts
from litgpt_core.interpret.embeddings import neighbours, principal_components
from litgpt_core.interpret.fourier import concentration, fourier_shares
from litgpt_core.interpret.head_scores import head_scores, repeated_tokens
from litgpt_core.interpret.names import Component, components
from litgpt_core.interpret.neurons import activations, selectivity, strongest, written_logits
from litgpt_core.interpret.patching import Pair, answers_of
from litgpt_core.interpret.probes import accuracy, control_labels
from litgpt_core.interpret.resume import activation, hidden_from
from litgpt_core.interpret.tracing import trace
from litgpt_core.interpret.tuned_lens import mean_divergence, ridge, train_translator
from litgpt_core.interpret.weights import singular_values, spectrum_facts
from litgpt_core.model.cost import count_parameters, forward_flops_per_token

SEED = torch.Generator().manual_seed


def some_ids(vocabulary: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocabulary, shape, generator=SEED(seed))


# ---- a bigram table: everything is on the direct path


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    return torch.randn(9, 9, generator=SEED(0)).log_softmax(dim=-1)


def test_a_bigram_model_predicts_its_table_at_every_layer(table: torch.Tensor) -> None:
    model, ids = known_models.bigram(table), some_ids(9, 2, 10)
    for log_probs in lens.lens_log_probs(model, ids):
        torch.testing.assert_close(log_probs, table[ids], rtol=0, atol=2e-5)
    expected = -table[ids[:, :-1]].gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(losses.token_losses(model, ids), expected, rtol=0, atol=2e-5)


def test_all_attribution_of_a_bigram_model_is_the_tokens_own(table: torch.Tensor) -> None:
    model, ids = known_models.bigram(table), some_ids(9, 1, 10)
    parts, seen = traced_parts(model, ids)
    added = attribute(model, parts, seen["1.resid_post"], token=4, position=7)
    assert added.pop("token") == pytest.approx(float(table[ids[0, 7], 4]), abs=1e-5)
    assert added and all(abs(value) < 1e-6 for value in added.values())


def test_ablation_of_a_bigram_model_costs_nothing(table: torch.Tensor) -> None:
    run = Ablation(known_models.bigram(table), some_ids(9, 3, 11))
    assert [run.delta(part) for part in components(run.model.config)] == [(0.0, 0.0)] * 6


# ---- heads


def test_a_previous_token_head_scores_one() -> None:
    model = known_models.previous_token()
    ids, periods = repeated_tokens(torch.arange(16), sequences=6, length=24, seed=1)
    scores = head_scores(model, ids, periods)
    assert scores["previous"]["scores"][0][0] == pytest.approx(1.0, abs=1e-6)
    assert scores["previous"]["scores"][0][1] == pytest.approx(scores["previous"]["chance"], abs=1e-6)
    assert scores["induction"]["scores"][0][0] == pytest.approx(0.0, abs=1e-6)
    assert scores["sink"]["scores"][0][0] == pytest.approx(1 / 23, abs=1e-6)  # position 1 attends to 0


def test_an_induction_head_is_found_and_no_other_is() -> None:
    model = known_models.induction()
    ids, periods = repeated_tokens(torch.arange(16), sequences=8, length=24, seed=2, periods=(12, 16))
    scores = head_scores(model, ids, periods)
    found = torch.tensor(scores["induction"]["scores"])
    assert found[1, 0] > 0.99
    found[1, 0] = 0
    assert float(found.max()) <= scores["induction"]["chance"] + 1e-6
    assert scores["previous"]["scores"][0][0] == pytest.approx(1.0, abs=1e-6)
    for row, period in zip(losses.token_losses(model, ids), periods.tolist(), strict=True):
        assert float(row[period:].max()) < 0.02 and float(row[: period - 1].min()) > 1.0


@pytest.mark.parametrize("part", ["L0H0", "L1H0"])
def test_ablating_either_half_of_the_circuit_destroys_copying(part: str) -> None:
    model = known_models.induction()
    ids, _ = repeated_tokens(torch.arange(16), sequences=8, length=24, seed=3, periods=(6, 8))
    run = Ablation(model, ids, method="zero")
    circuit = {Component(0, 0), Component(1, 0)}
    for each in components(model.config):
        delta, error = run.delta(each)
        if str(each) == part:
            assert delta > 0.4 and delta > 3 * error
        elif each not in circuit:
            assert delta == pytest.approx(0.0, abs=1e-6)


def test_patching_finds_exactly_the_circuit() -> None:
    """A B C A against A D C A: B's place decides. The difference sits at position 1 before layer 0, has moved to
    position 2 before layer 1 as nothing else (both L0H0 values and tokens matter), and L1H0 reads it."""
    model = known_models.induction()
    pair = Pair(model, torch.tensor([[1, 2, 3, 1]]), torch.tensor([[1, 4, 3, 1]]))
    assert pair.answers == (2, 4)
    before = pair.by_position("0.resid_pre")
    assert before[1] == pytest.approx(1.0, abs=1e-4) and before[[0, 2, 3]].abs().max() < 1e-4
    heads = torch.stack([pair.by_head(layer) for layer in range(2)])
    assert heads[1, 0] == pytest.approx(1.0, abs=1e-4)
    heads[1, 0] = 0
    assert heads.abs().max() < 1e-4
    at_end = pair.by_position("1.attn_out")
    assert at_end[3] == pytest.approx(1.0, abs=1e-4) and at_end[:3].abs().max() < 1e-4


def test_patching_the_key_of_the_circuit_needs_the_first_layers_head() -> None:
    """A B C A against C B A A: which earlier token equals the last one is known only through L0H0."""
    model = known_models.induction()
    pair = Pair(model, torch.tensor([[1, 2, 3, 4, 1]]), torch.tensor([[3, 2, 1, 4, 1]]))
    assert pair.answers == (2, 4)
    assert pair.by_head(0)[0] == pytest.approx(1.0, abs=1e-4)


# ---- neurons, probes, weights, embeddings


def test_a_neuron_of_one_token_is_found_with_what_it_writes() -> None:
    model, ids = known_models.one_neuron(fires_on=5, raises=11), some_ids(16, 8, 20)
    values = activations(model, ids, [0])[0]
    assert int(selectivity(values).argmax()) == 2
    examples = strongest(values, 2, count=4)
    assert all(int(ids[row, position]) == 5 for row, position, _ in examples)
    other, written = written_logits(model, 0, [1, 2])
    assert not torch.equal(other, written)
    assert int(written.argmax()) == 11 and float(written.sort(descending=True).values[1]) < 0.1 * float(written.max())
    parts, seen = traced_parts(model, torch.tensor([[3, 5]]))
    assert attribute(model, parts, seen["0.resid_post"], token=11, position=1)["L0M"] > 1.0


def test_a_probe_reads_a_linear_label_and_its_control_is_no_better_than_the_majority() -> None:
    y = (torch.rand(600, generator=SEED(0)) < 0.3).float()
    direction = torch.nn.functional.normalize(torch.randn(24, generator=SEED(1)), dim=0)
    x = torch.randn(600, 24, generator=SEED(2)) + 8 * torch.outer(y - 0.5, direction)
    assert accuracy((x[:400], y[:400]), (x[400:], y[400:])) == 1.0
    control = control_labels(some_ids(5000, 600), vocab_size=5000, share=float(y.mean()), seed=3)
    majority = 1 - float(control[400:].mean())
    assert accuracy((x[:400], control[:400]), (x[400:], control[400:])) <= majority + 0.05


def test_effective_rank_of_a_matrix_of_rank_k_is_k() -> None:
    for k in (1, 3, 8):
        left, _ = torch.linalg.qr(torch.randn(20, k, generator=SEED(k)))
        right, _ = torch.linalg.qr(torch.randn(12, k, generator=SEED(k + 1)))
        facts = spectrum_facts(3.0 * left @ right.mT)
        assert facts["effective_rank"] == pytest.approx(k, rel=1e-3)
        assert facts["rank"] == k and facts["stable_rank"] == pytest.approx(k, rel=1e-4)
    weight = torch.randn(30, 17, generator=SEED(0))
    torch.testing.assert_close(singular_values(weight).float(), torch.linalg.svdvals(weight), rtol=1e-4, atol=1e-4)
    assert spectrum_facts(torch.zeros(4, 3))["effective_rank"] == 0.0


def test_a_random_matrix_has_nothing_above_random_and_a_planted_direction_has() -> None:
    noise = torch.randn(300, 200, generator=SEED(0))
    assert spectrum_facts(noise)["above_random"] <= 1
    planted = noise + 6 * torch.outer(torch.ones(300), torch.ones(200))
    assert spectrum_facts(planted)["above_random"] == 1


def test_principal_components_and_neighbours_of_known_points() -> None:
    line = torch.outer(torch.tensor([-2.0, -1.0, 0.0, 3.0]), torch.tensor([3.0, 4.0, 0.0]))
    places, variance = principal_components(line)
    assert variance[0] == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(places[:, 0].diff().abs(), torch.tensor([5.0, 5.0, 15.0]), rtol=1e-5, atol=1e-5)
    index, cosines = neighbours(torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]]), count=1)
    assert index[0, 0] == 1 and index[1, 0] == 0 and cosines[0, 0] > 0.99


# ---- identities of the faster paths and of the estimates, every kind of model


@pytest.mark.parametrize("size", [11, 12])
def test_frequencies_of_known_waves_are_found(size: int) -> None:
    angles = 2 * torch.pi * torch.arange(size)[:, None] / size
    waves = torch.cat([3 * torch.cos(2 * angles), 3 * torch.sin(2 * angles), torch.cos(5 * angles) + 7], dim=1)
    shares = fourier_shares(waves)
    assert shares.shape == (size // 2,) and float(shares.sum()) == pytest.approx(1.0)
    assert float(shares[1]) == pytest.approx(18 / 19, abs=1e-6) and float(shares[4]) == pytest.approx(1 / 19, abs=1e-6)
    assert concentration(waves, frequencies=2) == pytest.approx(1.0, abs=1e-6)
    highest = torch.cos(angles * (size // 2))  # of an even size: 1, -1, 1, ...
    assert float(fourier_shares(highest)[-1]) == pytest.approx(1.0, abs=1e-6)


def test_random_rows_have_all_frequencies_alike() -> None:
    shares = fourier_shares(torch.randn(53, 400, generator=SEED(0)))
    assert float(shares.min()) > 0.8 / 26 and float(shares.max()) < 1.25 / 26


@pytest.mark.parametrize("kind", KINDS)
def test_running_from_a_layer_on_is_running_from_the_start(kind: str) -> None:
    model = build(kind).double().eval()
    ids = some_ids(61, 2, 12)
    with torch.no_grad(), trace(model, ["*.resid_pre", "*.resid_post"]) as seen:
        expected = model.hidden(ids)
    for layer in range(model.config.n_layer):
        torch.testing.assert_close(hidden_from(model, seen[f"{layer}.resid_pre"], layer), expected, rtol=0, atol=0)
        after = seen[f"{layer}.resid_post"]
        torch.testing.assert_close(hidden_from(model, after, layer + 1), expected, rtol=0, atol=0)
        torch.testing.assert_close(activation(model, ids, f"{layer}.resid_post"), after, rtol=0, atol=0)


def test_a_loss_from_a_layer_on_is_that_of_a_whole_pass_with_an_edit() -> None:
    model, ids = build("GQA + QK-norm").double().eval(), some_ids(61, 11, 13)
    residual = residuals(model, ids[:, :-1], 0)
    with torch.no_grad(), trace(model, edit={"0.resid_post": lambda x: x.roll(1, -1)}):
        logits = model(ids[:, :-1])
    slow = float(losses.logits_loss(logits, ids[:, 1:], vocab_size=model.config.vocab_size).mean())
    assert continued_loss(model, residual.roll(1, -1), ids[:, 1:], 0) == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_ablation_is_a_whole_forward_pass_with_the_part_replaced(kind: str) -> None:
    model = build(kind).double().eval().requires_grad_(False)
    windows = some_ids(61, 3, 13)
    run = Ablation(model, windows, method="zero")
    for part in (Component(0, 1), Component(1, 3), Component(0), Component(1)):
        name = f"{part.layer}.{'mlp_raw' if part.head is None else 'z'}"

        def zero(value: torch.Tensor, part: Component = part) -> torch.Tensor:
            if part.head is None:
                return torch.zeros_like(value)
            keep = torch.arange(value.size(-2))[:, None] != part.head
            return value * keep

        with trace(model, edit={name: zero}):
            expected = losses.token_losses(model, windows).mean(dim=1)
        torch.testing.assert_close(run.without(part), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_attribution_patching_is_the_derivative_of_patching(kind: str) -> None:
    """With a patch of half the size, the error of the first-order estimate falls by four."""
    model = build(kind).double().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=SEED(1)).double())
    first, second = some_ids(61, 1, 8), some_ids(61, 1, 8, seed=1)
    pair = Pair(model, first, second)
    gradient = pair.gradients(["0.z"])["0.z"]
    towards = pair.clean["0.z"] - pair.corrupted["0.z"]
    slope = float((gradient * towards).sum())

    def error(size: float) -> float:
        effect = pair.patched({"0.z": lambda z: z + size * towards}, rows=1)
        return abs(float(effect[0]) - size * slope)

    assert error(0.01) / error(0.005) == pytest.approx(4.0, rel=0.15)
    positions, heads = pair.estimates()
    assert float(heads[0].sum()) == pytest.approx(slope, rel=1e-9)
    assert positions.shape == (2, 8)


def test_patching_everything_gives_the_first_text_and_equal_texts_are_refused() -> None:
    model = build("MHA").double().eval().requires_grad_(False)
    pair = Pair(model, some_ids(61, 1, 8), some_ids(61, 1, 8, seed=1))
    whole = pair.patched({"embed": lambda _: pair.clean["0.resid_pre"]}, rows=1)
    assert float(whole[0]) == pytest.approx(1.0, abs=1e-9)
    with pytest.raises(ConfigError, match="alike"):
        Pair(model, pair.first, pair.first)
    with pytest.raises(ConfigError, match="8 tokens, --against has 5"):
        Pair(model, pair.first, pair.second[:, :5])
    with pytest.raises(ConfigError, match="300 tokens, too many"):
        Pair(model, some_ids(61, 1, 300), some_ids(61, 1, 300, seed=1))
    same = torch.tensor([2.0, 1.0, 0.0])
    assert answers_of(same, torch.tensor([2.0, 0.5, 0.9])) == (1, 2)


def test_patches_some_at_a_time_are_patches_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("GQA + QK-norm").double().eval().requires_grad_(False)
    pair = Pair(model, some_ids(61, 1, 8), some_ids(61, 1, 8, seed=1))
    together = [pair.by_position("1.attn_out"), pair.by_head(1)]
    monkeypatch.setattr("litgpt_core.interpret.patching.MOST_TOKENS", 24)
    for whole, parts in zip(together, [pair.by_position("1.attn_out"), pair.by_head(1)], strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-9, atol=1e-9)
    alone = pair.patched(
        {"1.attn_out": lambda x: torch.cat([x[:, :5], pair.clean["1.attn_out"][:, 5:6], x[:, 6:]], 1)}, rows=1
    )
    assert float(alone[0]) == pytest.approx(float(together[0][5]), rel=1e-9)


def test_before_the_first_token_that_differs_a_patch_does_nothing() -> None:
    model = build("GQA + QK-norm").double().eval().requires_grad_(False)
    first = some_ids(61, 1, 8)
    pair = Pair(model, first, torch.cat([first[:, :3], some_ids(61, 1, 5, seed=1)], 1))
    for name in ("0.mlp_out", "1.resid_pre"):
        clean = pair.clean[name]
        slow = [
            pair.patched(
                {name: lambda x, at=at, clean=clean: x.index_copy(1, torch.tensor([at]), clean[:, [at]])}, rows=1
            )
            for at in range(8)
        ]
        found = pair.by_position(name)
        torch.testing.assert_close(found, torch.cat(slow), rtol=1e-9, atol=1e-9)
        assert found[:3].abs().max() == 0 and found[3:].abs().min() > 0


def test_first_order_estimates_of_ablation_point_the_right_way() -> None:
    model = build("MHA").double().eval().requires_grad_(False)
    for block in model.transformer.h:
        block.attn.proj.weight.mul_(3)
    run = Ablation(model, some_ids(61, 6, 15))
    estimates = run.estimates()
    exact = torch.tensor([run.delta(part)[0] for part in estimates])
    both = torch.stack([exact, torch.tensor(list(estimates.values()))])
    assert float(torch.corrcoef(both)[0, 1]) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_the_breakdown_adds_up_to_the_counts_of_the_model(kind: str) -> None:
    config = build(kind).config
    rows = breakdown(config, seq_length=16)
    assert sum(row["parameters"] for row in rows) == count_parameters(config)
    assert sum(row["flops"] for row in rows) == pytest.approx(forward_flops_per_token(config, seq_length=16))


# ---- what is fitted


def test_adam_is_torchs() -> None:
    target, start = torch.randn(5, 3, generator=SEED(0)), torch.randn(5, 3, generator=SEED(1))
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    mine, reference = Adam([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    for _ in range(12):
        mine.step((ours - target).square().sum())
        reference.zero_grad()
        (theirs - target).square().sum().backward()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_ridge_recovers_an_affine_map_and_the_tuned_lens_beats_the_logit_lens() -> None:
    x = torch.randn(300, 10, generator=SEED(0)).double()
    weight, bias = torch.randn(10, 10, generator=SEED(1)).double(), torch.randn(10, generator=SEED(2)).double()
    found, offset = ridge(x, x @ weight + bias, penalty=0.0)
    torch.testing.assert_close(found, weight, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(offset, bias, rtol=1e-8, atol=1e-8)
    model = build("MHA").eval().requires_grad_(False)
    final = torch.randn(256, 32, generator=SEED(3))
    turn, _ = torch.linalg.qr(torch.randn(32, 32, generator=SEED(4)))
    early = final @ turn  # the same information in another basis
    translator = train_translator(model, early[:200], final[:200], steps=3)
    with torch.no_grad():
        logits, others = (lens.read_out(model, residual) for residual in (final, early))
        slow = lens.divergence(logits.log_softmax(-1), others.log_softmax(-1))
        found, total = lens.Prediction(logits).divergence(others)
        torch.testing.assert_close(found, slow, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(total, others.logsumexp(-1))
    prediction = lens.Prediction(logits[200:])
    plain = mean_divergence(model, early[200:], prediction, None)
    assert mean_divergence(model, early[200:], prediction, translator) < 0.01 * plain
    assert mean_divergence(model, final[200:], prediction, None) == pytest.approx(0.0, abs=1e-6)


def test_a_sparse_autoencoder_recovers_sparse_directions() -> None:
    directions = torch.nn.functional.normalize(torch.randn(24, 16, generator=SEED(0)), dim=-1)
    chosen = torch.rand(3000, 24, generator=SEED(1)).topk(2, dim=-1).indices
    codes = torch.zeros(3000, 24).scatter(1, chosen, 1 + torch.rand(3000, 2, generator=SEED(2)))
    x = codes @ directions
    coder = train(x[:2500], features=48, k=4, steps=400)
    held_out = x[2500:]
    unexplained = (coder(held_out) - held_out).square().sum() / (held_out - held_out.mean(dim=0)).square().sum()
    assert float(unexplained) < 0.1
    assert int((coder.encode(held_out) > 0).sum(dim=-1).max()) <= 4
    untrained = TopKAutoencoder(16, features=48, k=4).requires_grad_(False)
    assert float((untrained(held_out) - held_out).square().mean()) > 5 * float(
        (coder(held_out) - held_out).square().mean()
    )


def test_decoding_only_active_features_gives_the_products_with_all_of_them() -> None:
    """Values and gradients of `forward` are those of `encode` times the decoder, for any shape of the input."""
    coder = TopKAutoencoder(6, features=10, k=3, seed=1)
    coder.scale.fill_(1.7)
    x = torch.randn(2, 5, 6, generator=SEED(3))
    parameters, found = list(coder.parameters()), []
    for reconstruct in (coder, lambda x: (coder.encode(x) @ coder.decoder + coder.centre) * coder.scale):
        out = reconstruct(x)
        found.append((out, torch.autograd.grad((out - x).square().mean(), parameters)))
    torch.testing.assert_close(found[0], found[1])
    assert coder.encode(x).shape == (2, 5, 10) and int((coder.encode(x) > 0).sum(-1).max()) <= 3


def test_a_period_is_random_and_no_token_repeats_within_one() -> None:
    ids, periods = repeated_tokens(torch.arange(40), sequences=32, length=48, seed=0)
    assert len(set(periods.tolist())) > 5 and int(periods.min()) >= 8 and int(periods.max()) <= 24
    for row, period in zip(ids, periods.tolist(), strict=True):
        assert torch.equal(row[period:], row[:-period])
        assert len(set(row[:period].tolist())) == period


# ---- a subject that does not fit together


def test_a_tokenizer_of_another_model_a_wrong_layer_and_a_long_prompt_are_refused() -> None:
    from litgpt_core.interpret.subject import Subject
    from litgpt_core.tokenizers import ByteSettings
    from litgpt_core.tokenizers import train as train_tokenizer

    tokenizer = train_tokenizer(ByteSettings(), [])
    fields: dict[str, Any] = {"tokenizer": tokenizer, "name": "tiny"}
    with pytest.raises(CheckpointError, match=r"the tokenizer has 2\d\d ids, the model's embedding 61 rows"):
        Subject(model=build("MHA"), **fields)
    wide = {"vocab_size": 300, "padding_multiple": 4}
    with pytest.raises(ConfigError, match="--layer 5: there is no such layer"):
        Subject(model=build("MHA", **wide), layer=5, **fields)
    with pytest.raises(ConfigError, match=r"--prompt has 40 tokens\n  needed: 1 to 16 tokens"):
        Subject(model=build("MHA", **wide), prompt="x" * 40, **fields)
    assert Subject(model=build("MHA", **wide), prompt="abc", **fields).prompt_ids().shape == (1, 3)
