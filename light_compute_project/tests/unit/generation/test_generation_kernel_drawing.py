"""Tokens drawn by the C++ kernel: those that `sampling` draws, one call for many of them."""

import math

import pytest
import torch

from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation import batch
from litgpt_core.generation.decoder import Decoder, Feed
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.kernel import CHUNK, KernelDecoder
from litgpt_core.generation.request import GenerationRequest, join_pieces
from litgpt_core.generation.sampling import GREEDY, Dice, SamplingSettings, draw_slowly

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
    return KernelDecoder(build(), panels=True)


@pytest.mark.parametrize("size", [1, 7, 300, 1024, 3001])
def test_the_kernel_draws_what_the_slow_way_draws(decoder, size):
    """Of 3,001 tokens of nearly equal weight the first look of 512 does not hold 0.9."""
    logits = torch.randn(len(SETTINGS) * 40, size, generator=torch.Generator().manual_seed(size)) * 2
    logits[::7, : size // 2] = -math.inf
    settings, dice = SETTINGS * 40, Dice(3)
    uniforms = [dice.throw() for _ in settings]
    drawn = decoder.draw(logits, settings, uniforms=uniforms)
    assert drawn == [draw_slowly(logits[row], settings[row], uniform=uniforms[row]) for row in range(len(settings))]
    assert len(set(drawn)) > min(size, 40) // 2
    padded = torch.full((len(settings), size + 5), 99.0)
    padded[:, :size] = logits
    assert decoder.draw(padded[:, :size], settings, uniforms=uniforms) == drawn, "what lies behind is not looked at"


@pytest.mark.parametrize("settings", [SamplingSettings(), SamplingSettings(top_p=0.7), SamplingSettings(min_p=0.1)])
def test_the_ends_of_the_scale_are_tokens_with_weight(decoder, settings):
    """A number next to 1 falls behind every sum that was rounded down."""
    logits = torch.full((1, 100), -1e4)
    logits[0, [20, 60]] = torch.tensor([1.0, 0.5])
    ends = [0.0, 1 - 2.0**-53]
    assert [decoder.draw(logits, [settings], uniforms=[number]) for number in ends] == [[20], [60]]


def test_of_equal_tokens_the_first_ones_are_kept(decoder):
    logits = torch.zeros(1, 3000)
    drawn = {decoder.draw(logits, [SamplingSettings(top_k=3)], uniforms=[n / 30])[0] for n in range(30)}
    assert drawn == {0, 1, 2}
    assert decoder.draw(logits, [GREEDY], uniforms=[0.9]) == [0]


def test_draws_follow_the_distribution(decoder):
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
        drawn = torch.tensor(decoder.draw(rows, [settings] * len(uniforms), uniforms=uniforms))
        assert torch.allclose(torch.bincount(drawn, minlength=5) / len(uniforms), expected / expected.sum(), atol=0.015)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [GREEDY, SamplingSettings(), SamplingSettings(top_k=2)])
@pytest.mark.parametrize("place", [0, 17, 19])
def test_broken_logits_are_an_error(decoder, value, settings, place):
    logits = torch.zeros(1, 20)
    logits[0, place] = value
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        decoder.draw(logits, [settings], uniforms=[0.5])
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        decoder.draw(torch.full((1, 20), -math.inf), [settings], uniforms=[0.5])


@pytest.mark.parametrize("panels", [False, True], ids=["rows", "panels"])
def test_many_tokens_at_once_are_those_of_one_call_each(build, panels):
    """More texts than go through the kernel in one call, at different places, each drawn in its own way."""
    n, steps, dice = CHUNK + 5, 6, Dice(1)
    uniforms = [[dice.throw() for _ in range(steps)] for _ in range(n)]
    settings = [SETTINGS[i % len(SETTINGS)] for i in range(n)]
    feeds = [Feed(n - 1 - i, 2 + i % 3, [i]) for i in range(n)]
    found = []
    for write in (KernelDecoder.write, Decoder.write):
        decoder = KernelDecoder(build(), panels=panels)
        decoder.start(n_sequences=n, length=24)
        decoder.feed([Feed(i, 0, [5, 6, 7, 8]) for i in range(n)])
        found.append(write(decoder, feeds, settings, uniforms=uniforms, vocab_size=250))
    assert found[0] == found[1]
    assert {len(tokens) for tokens in found[0]} == {steps}
    assert len({tuple(tokens) for tokens in found[0]}) > n // 2


@pytest.mark.parametrize("panels", [False, True], ids=["rows", "panels"])
def test_the_number_of_threads_changes_no_token(build, panels):
    dice, n, steps = Dice(2), 9, 8
    uniforms = [[dice.throw() for _ in range(steps)] for _ in range(n)]
    found = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        decoder = KernelDecoder(build(), panels=panels)
        decoder.start(n_sequences=n, length=24)
        decoder.feed([Feed(i, 0, [5, 6, i]) for i in range(n)])
        feeds = [Feed(i, 3, [7]) for i in range(n)]
        found.append(decoder.write(feeds, SETTINGS[:n], uniforms=uniforms, vocab_size=256))
    assert all(tokens == found[0] for tokens in found)


def test_sizes_beyond_all_measure_are_taken_as_such(decoder):
    logits = torch.tensor([[1.0, -math.inf, 0.0, -math.inf]]).repeat(1, 50)
    for settings in (SamplingSettings(top_k=2**64 + 1), SamplingSettings(temperature=1e300)):
        drawn = {decoder.draw(logits, [settings], uniforms=[n / 50])[0] for n in range(50)}
        assert len(drawn) > 20 and all(token % 2 == 0 for token in drawn)


def test_a_text_whose_logits_break_in_the_middle_ends_there_and_alone(build, tokenizer, monkeypatch):
    """Token 200 is poison: texts that draw it fail with the next token, and keep what came before."""
    monkeypatch.setattr(batch, "STRETCH_S", 99.0)
    model = build()
    healthy, texts = Engine(model, tokenizer, panels=True), 12
    asked = [
        GenerationRequest(prompt_ids=(1, i), max_new_tokens=15, seed=i, stop_ids=(), sampling=SamplingSettings())
        for i in range(texts)
    ]
    expected = [[t for piece in healthy.stream(one) for t in piece.token_ids] for one in asked]
    poison = next(t for t in expected[0][3:-2] if t not in (1, *range(texts)) and t not in expected[0][:3])
    with torch.no_grad():
        model.transformer.wte.weight[poison] = torch.nan
    found = [Engine(model, tokenizer, panels=True).live_text(one) for one in asked]
    with Engine(model, tokenizer, panels=True).open_batch(n_slots=texts) as together:
        for text in found:
            together.add(text)
        while together.texts:
            together.step()
    broken = Engine(model, tokenizer, panels=True)
    streamed = []
    with pytest.raises(CheckpointError, match="NaN"):
        for piece in broken.stream(asked[0]):
            streamed += piece.token_ids
    assert streamed == expected[0][: expected[0].index(poison) + 1], "what was good is handed out first"
    ends = [one.index(poison) + 1 if poison in one[:-1] else len(one) for one in expected]
    assert [text.new_ids for text in found] == [one[:end] for one, end in zip(expected, ends, strict=True)]
    reasons = ["error" if poison in one[:-1] else "length" for one in expected]
    assert [text.finish_reason for text in found] == reasons
    assert set(reasons) == {"error", "length"}


def test_what_was_drawn_after_a_break_is_not_handed_out(build, tokenizer):
    """The kernel goes on with something in the place of a token; what comes of it may look like tokens."""
    text = Engine(build(), tokenizer).live_text(GenerationRequest(prompt_ids=(1,), max_new_tokens=9, stop_ids=()))
    piece = batch.TextBatch._take(text, [5, None, 7, 8])
    assert piece.token_ids == (5,) and text.new_ids == [5] and piece.finish_reason == "error"


@pytest.mark.parametrize("stretch", [0.0, 99.0], ids=["one by one", "many at once"])
@pytest.mark.parametrize("overflow", ["slide", "stop"])
def test_how_many_come_at_once_shows_nowhere_but_in_the_cut_of_pieces(build, tokenizer, monkeypatch, stretch, overflow):
    """Through the end of the window, with ids and texts that end it, beside texts that want their logits."""
    engine = Engine(build(), tokenizer, compile="auto", panels=True)
    prompt = tuple(engine.encode_prompt("ab"))
    monkeypatch.setattr(batch, "STRETCH_S", 0.0)
    plain = {"prompt_ids": prompt, "max_new_tokens": 61, "overflow": overflow, "seed": 4}
    whole = join_pieces(list(engine.stream(GenerationRequest(**plain, stop_ids=()))))
    middle = len(whole.token_ids) // 2
    requests = [
        GenerationRequest(**plain, stop_ids=()),
        GenerationRequest(**plain, stop_ids=(whole.token_ids[middle],)),
        GenerationRequest(**plain, stop_ids=(), stop=(whole.text[middle : middle + 2],)),
        GenerationRequest(**(plain | {"max_new_tokens": 5}), stop_ids=()),
    ]
    alone = [join_pieces(list(engine.stream(one))) for one in requests]
    monkeypatch.setattr(batch, "STRETCH_S", stretch)
    pieces = [list(engine.stream(one)) for one in requests]
    assert [join_pieces(one) for one in pieces] == alone
    assert (max(len(piece.token_ids) for piece in pieces[0]) > 1) == (stretch > 0)
    watched = GenerationRequest(**(plain | {"max_new_tokens": 9}), stop_ids=(), logprobs=1)
    texts = [engine.live_text(one) for one in (*requests, watched)]
    got = {text: [] for text in texts}
    with engine.open_batch(n_slots=len(texts), prefill=1) as together:
        for text in texts:
            together.add(text)
        while together.texts:
            for text, piece in together.step():
                got[text].append(piece)
    assert [join_pieces(got[text]) for text in texts[:-1]] == alone
    assert len(join_pieces(got[texts[-1]]).logprobs) == 9
