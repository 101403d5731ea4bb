"""The C++ kernel samples the same tokens as `sampling`, also several per call."""

import math

import pytest
import torch

from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation import continuous_batch
from litgpt_core.generation.decoder import Decoder, Feed
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.kernel import CHUNK, KernelDecoder
from litgpt_core.generation.request import GenerationRequest, join_deltas
from litgpt_core.generation.sampling import GREEDY, SamplingSettings, UniformRng, sample_reference

pytestmark = pytest.mark.usefixtures("processor")

SETTINGS = [
    SamplingSettings(),
    SamplingSettings(temperature=0.7, top_k=5),
    SamplingSettings(temperature=1.3, top_p=0.9),
    SamplingSettings(top_k=40, top_p=0.5, min_p=0.02),
    SamplingSettings(min_p=0.2),
    SamplingSettings(top_k=10_000, top_p=0.999),
    SamplingSettings(temperature=0.02, top_k=1),
    SamplingSettings(top_k=600),
    GREEDY,
]


@pytest.fixture
def decoder(build) -> KernelDecoder:
    return KernelDecoder(build(), packed_weights=True)


@pytest.mark.parametrize("size", [1, 7, 300, 1024, 3001])
def test_the_kernel_samples_as_the_reference(decoder, size):
    """Of 3,001 tokens of nearly equal weight the first 512 candidates do not reach 0.9."""
    logits = torch.randn(len(SETTINGS) * 40, size, generator=torch.Generator().manual_seed(size)) * 2
    logits[::7, : size // 2] = -math.inf
    settings, rng = SETTINGS * 40, UniformRng(3)
    uniforms = [rng.next() for _ in settings]
    sampled = decoder.sample(logits, settings, uniforms=uniforms)
    assert sampled == [
        sample_reference(logits[row], settings[row], uniform=uniforms[row]) for row in range(len(settings))
    ]
    assert len(set(sampled)) > min(size, 40) // 2
    padded = torch.full((len(settings), size + 5), 99.0)
    padded[:, :size] = logits
    assert decoder.sample(padded[:, :size], settings, uniforms=uniforms) == sampled, "padding is not read"


@pytest.mark.parametrize("settings", [SamplingSettings(), SamplingSettings(top_p=0.7), SamplingSettings(min_p=0.1)])
def test_uniforms_of_0_and_almost_1_select_tokens_with_weight(decoder, settings):
    """A number next to 1 exceeds every sum that was rounded down."""
    logits = torch.full((1, 100), -1e4)
    logits[0, [20, 60]] = torch.tensor([1.0, 0.5])
    ends = [0.0, 1 - 2.0**-53]
    assert [decoder.sample(logits, [settings], uniforms=[number]) for number in ends] == [[20], [60]]


def test_of_equal_tokens_the_first_are_kept(decoder):
    logits = torch.zeros(1, 3000)
    sampled = {decoder.sample(logits, [SamplingSettings(top_k=3)], uniforms=[n / 30])[0] for n in range(30)}
    assert sampled == {0, 1, 2}
    assert decoder.sample(logits, [GREEDY], uniforms=[0.9]) == [0]


def test_samples_follow_the_distribution(decoder):
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    uniforms = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    for settings, expected in [
        (SamplingSettings(), probabilities),
        (SamplingSettings(temperature=0.5), probabilities**2),
        (SamplingSettings(top_k=2), torch.tensor([0, 0.4, 0, 0.3, 0])),
        (SamplingSettings(top_p=0.72), torch.tensor([0, 0.4, 0, 0.3, 0.15])),
        (SamplingSettings(min_p=0.3), torch.tensor([0, 0.4, 0, 0.3, 0.15])),
    ]:
        rows = probabilities.log().expand(len(uniforms), -1)
        sampled = torch.tensor(decoder.sample(rows, [settings] * len(uniforms), uniforms=uniforms))
        assert torch.allclose(
            torch.bincount(sampled, minlength=5) / len(uniforms), expected / expected.sum(), atol=0.015
        )


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [GREEDY, SamplingSettings(), SamplingSettings(top_k=2)])
@pytest.mark.parametrize("place", [0, 17, 19])
def test_non_finite_logits_are_an_error(decoder, value, settings, place):
    logits = torch.zeros(1, 20)
    logits[0, place] = value
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        decoder.sample(logits, [settings], uniforms=[0.5])
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        decoder.sample(torch.full((1, 20), -math.inf), [settings], uniforms=[0.5])


@pytest.mark.parametrize("packed_weights", [False, True], ids=["in place", "packed"])
def test_multi_step_decode_equals_single_steps(build, packed_weights):
    """More sequences than the kernel takes in one call, at different positions, each with its own settings."""
    n, steps, rng = CHUNK + 5, 6, UniformRng(1)
    uniforms = [[rng.next() for _ in range(steps)] for _ in range(n)]
    settings = [SETTINGS[i % len(SETTINGS)] for i in range(n)]
    feeds = [Feed(n - 1 - i, 2 + i % 3, [i]) for i in range(n)]
    found = []
    for decode_steps in (KernelDecoder.decode_steps, Decoder.decode_steps):
        decoder = KernelDecoder(build(), packed_weights=packed_weights)
        decoder.start(n_sequences=n, length=24)
        decoder.feed([Feed(i, 0, [5, 6, 7, 8]) for i in range(n)])
        found.append(decode_steps(decoder, feeds, settings, uniforms=uniforms, vocab_size=250))
    assert found[0] == found[1]
    assert {len(tokens) for tokens in found[0]} == {steps}
    assert len({tuple(tokens) for tokens in found[0]}) > n // 2


@pytest.mark.parametrize("packed_weights", [False, True], ids=["in place", "packed"])
def test_the_number_of_threads_changes_no_token(build, packed_weights):
    rng, n, steps = UniformRng(2), 9, 8
    uniforms = [[rng.next() for _ in range(steps)] for _ in range(n)]
    found = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        decoder = KernelDecoder(build(), packed_weights=packed_weights)
        decoder.start(n_sequences=n, length=24)
        decoder.feed([Feed(i, 0, [5, 6, i]) for i in range(n)])
        feeds = [Feed(i, 3, [7]) for i in range(n)]
        found.append(decoder.decode_steps(feeds, SETTINGS[:n], uniforms=uniforms, vocab_size=256))
    assert all(tokens == found[0] for tokens in found)


def test_huge_settings_are_clamped(decoder):
    logits = torch.tensor([[1.0, -math.inf, 0.0, -math.inf]]).repeat(1, 50)
    for settings in (SamplingSettings(top_k=2**64 + 1), SamplingSettings(temperature=1e300)):
        sampled = {decoder.sample(logits, [settings], uniforms=[n / 50])[0] for n in range(50)}
        assert len(sampled) > 20 and all(token % 2 == 0 for token in sampled)


def test_non_finite_logits_end_only_their_own_sequence(build, tokenizer, monkeypatch):
    """Sequences that sample the poisoned token fail with the next token, and keep the tokens before."""
    monkeypatch.setattr(continuous_batch, "MULTI_STEP_S", 99.0)
    model = build()
    healthy, sequences = Engine(model, tokenizer, packed_weights=True), 12
    asked = [
        GenerationRequest(prompt_ids=(1, i), max_new_tokens=15, seed=i, stop_ids=(), sampling=SamplingSettings())
        for i in range(sequences)
    ]
    expected = [[t for delta in healthy.stream(one) for t in delta.token_ids] for one in asked]
    poison = next(t for t in expected[0][3:-2] if t not in (1, *range(sequences)) and t not in expected[0][:3])
    with torch.no_grad():
        model.transformer.wte.weight[poison] = torch.nan
    found = [Engine(model, tokenizer, packed_weights=True).new_sequence(one) for one in asked]
    with Engine(model, tokenizer, packed_weights=True).open_batch(n_slots=sequences) as together:
        for text in found:
            together.add(text)
        while together.sequences:
            together.step()
    broken = Engine(model, tokenizer, packed_weights=True)
    streamed = []
    with pytest.raises(CheckpointError, match="NaN"):
        for delta in broken.stream(asked[0]):
            streamed += delta.token_ids
    assert streamed == expected[0][: expected[0].index(poison) + 1], "the valid tokens are returned first"
    ends = [one.index(poison) + 1 if poison in one[:-1] else len(one) for one in expected]
    assert [text.new_ids for text in found] == [one[:end] for one, end in zip(expected, ends, strict=True)]
    reasons = ["error" if poison in one[:-1] else "length" for one in expected]
    assert [text.finish_reason for text in found] == reasons
    assert set(reasons) == {"error", "length"}


def test_tokens_after_non_finite_logits_are_discarded(build, tokenizer):
    """The kernel continues with a dummy token; its results may look like tokens."""
    text = Engine(build(), tokenizer).new_sequence(GenerationRequest(prompt_ids=(1,), max_new_tokens=9, stop_ids=()))
    delta = continuous_batch.ContinuousBatch._append(text, [5, None, 7, 8])
    assert delta.token_ids == (5,) and text.new_ids == [5] and delta.finish_reason == "error"


@pytest.mark.parametrize("max_seconds", [0.0, 99.0], ids=["single steps", "multi-step"])
@pytest.mark.parametrize("overflow", ["slide", "stop"])
def test_multi_step_decode_changes_only_the_size_of_deltas(build, tokenizer, monkeypatch, max_seconds, overflow):
    """Through the end of the window, with stop ids and stop strings, alongside sequences that need their logits."""
    engine = Engine(build(), tokenizer, compile="auto", packed_weights=True)
    prompt = tuple(engine.encode_prompt("ab"))
    monkeypatch.setattr(continuous_batch, "MULTI_STEP_S", 0.0)
    plain = {"prompt_ids": prompt, "max_new_tokens": 61, "overflow": overflow, "seed": 4}
    whole = join_deltas(list(engine.stream(GenerationRequest(**plain, stop_ids=()))))
    middle = len(whole.token_ids) // 2
    requests = [
        GenerationRequest(**plain, stop_ids=()),
        GenerationRequest(**plain, stop_ids=(whole.token_ids[middle],)),
        GenerationRequest(**plain, stop_ids=(), stop=(whole.text[middle : middle + 2],)),
        GenerationRequest(**(plain | {"max_new_tokens": 5}), stop_ids=()),
    ]
    alone = [join_deltas(list(engine.stream(one))) for one in requests]
    monkeypatch.setattr(continuous_batch, "MULTI_STEP_S", max_seconds)
    deltas = [list(engine.stream(one)) for one in requests]
    assert [join_deltas(one) for one in deltas] == alone
    assert (max(len(delta.token_ids) for delta in deltas[0]) > 1) == (max_seconds > 0)
    watched = GenerationRequest(**(plain | {"max_new_tokens": 9}), stop_ids=(), logprobs=1)
    sequences = [engine.new_sequence(one) for one in (*requests, watched)]
    got = {text: [] for text in sequences}
    with engine.open_batch(n_slots=len(sequences), prefill=1) as together:
        for text in sequences:
            together.add(text)
        while together.sequences:
            for text, delta in together.step():
                got[text].append(delta)
    assert [join_deltas(got[text]) for text in sequences[:-1]] == alone
    assert len(join_deltas(got[sequences[-1]]).logprobs) == 9
