"""Scores: batches equal one sequence at a time, a cached context equals the whole, windows cover every token once."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from litgpt_core.core.errors import CheckpointError, ConfigError, DataError
from litgpt_core.data.document import Document
from litgpt_core.data.ngram import BigramModel, reference_losses
from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.evaluate.kept_positions import can_keep, hidden_at, kept_positions
from litgpt_core.evaluate.ngram_scorer import NgramScorer, UniformScorer
from litgpt_core.evaluate.scorer import Continuations, Scorer, Span
from litgpt_core.evaluate.text_score import score_text, score_texts, total_bits_per_byte
from litgpt_core.evaluate.trees import trees_of
from litgpt_core.evaluate.windows import sliding_spans

FAMILIES = {
    "llama": {},
    "grouped queries": {"n_head": 4, "n_query_groups": 2},
    "learned positions": {"position_embedding": "learned", "rotary_percentage": 0.0},
    "windowed": {"sliding_window_size": 6},
    "parallel": {"parallel_residual": True},
    "soft-capped": {"attention_logit_softcapping": 5.0, "final_logit_softcapping": 4.0},
}


def reference(scorer, span: Span) -> list[float]:
    """One position at a time, each with a pass of its own."""
    scores = []
    for place in range(span.first, len(span.ids)):
        with torch.no_grad():
            logits = scorer.model(torch.from_numpy(span.ids[None, :place]))[0, -1, : scorer.vocab_size].double()
        scores.append(float(logits.log_softmax(0)[span.ids[place]]))
    return scores


def random_ids(rng: np.random.Generator, length: int) -> np.ndarray:
    return rng.integers(0, 256, size=length)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_equal_one_position_at_a_time(make_scorer, family: str) -> None:
    scorer, rng = make_scorer(batch_tokens=50, **FAMILIES[family]), np.random.default_rng(1)
    spans = [Span(random_ids(rng, n), first) for n, first in ((9, 1), (25, 24), (2, 1), (13, 6), (25, 1))]
    for span, scores in zip(spans, scorer.span_logprobs(spans), strict=True):
        np.testing.assert_allclose(scores, reference(scorer, span), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_context_equals_the_whole(make_scorer, family: str) -> None:
    scorer, rng = make_scorer(batch_tokens=60, **FAMILIES[family]), np.random.default_rng(2)
    requests = [
        Continuations(random_ids(rng, n), tuple(random_ids(rng, length) for length in lengths))
        for n, lengths in (
            (14, (5, 6, 1, 7, 11)),
            (3, (1, 1)),
            (8, (4, 2, 7)),
            (5, (6,)),
            (20, (5, 1)),
            (1, (2, 24)),
            (7, (3, 3)),
        )
    ]
    for common, lengths in ((4, (3, 2)), (5, (1, 1, 1)), (1, (6, 1, 4)), (6, (1,))):  # choices that begin alike
        prefix = random_ids(rng, common)
        choices = tuple(np.concatenate([prefix, random_ids(rng, length)]) for length in lengths)
        requests.append(Continuations(random_ids(rng, 3), choices))
    requests.append(Continuations(random_ids(rng, 2), (choices[0], choices[0])))  # equal to the end
    whole = Scorer.choice_logprobs(scorer, requests)
    shared = scorer.choice_logprobs(requests)
    for request, a, b in zip(requests, whole, shared, strict=True):
        assert [len(scores) for scores in b] == [len(choice) for choice in request.choices]
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_choices_begin_with_is_in_a_row_once() -> None:
    context, choices = np.array([1, 2]), (np.array([5, 6, 7, 8]), np.array([5, 6, 9]))
    (tree,) = trees_of(Continuations(context, choices), block_size=24)
    assert tree.ids.tolist() == [1, 2, 5, 6, 7] and tree.segments.tolist() == [-1, -1, -1, -1, 1]
    assert tree.places().tolist() == [0, 1, 2, 3, 0, 1, 2] and tree.branches
    (tree,) = trees_of(Continuations(context, (np.array([3]), np.array([4]))), block_size=24)
    assert tree.ids.tolist() == [1, 2] and tree.places().tolist() == [0, 0] and not tree.branches


@pytest.mark.parametrize("kind", KINDS)
def test_kept_positions_are_those_of_a_whole_pass(kind: str) -> None:
    """With and without a cache, for every kind of model; and the last block is what it was, after an exception too."""
    model = build(kind).eval()
    ids = torch.randint(model.config.vocab_size, (3, 11), generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[0, 10], [4, 4], [9, 2]])
    with torch.no_grad():
        expected = model.hidden(ids).gather(1, keep[..., None].expand(-1, -1, model.config.n_embd))
        with kept_positions(model, keep):
            torch.testing.assert_close(model.hidden(ids), expected, rtol=1e-4, atol=1e-5)
        many = torch.tensor([[6, 7, 8, 9, 10], [0, 1, 2, 3, 3], [2, 10, 4, 0, 7]])  # attention for all, then a choice
        torch.testing.assert_close(
            hidden_at(model, ids, many),
            model.hidden(ids).gather(1, many[..., None].expand(-1, -1, model.config.n_embd)),
            rtol=1e-4,
            atol=1e-5,
        )
        segments = torch.tensor([[-1] * 4 + [1] * 3 + [2] * 4] * 3)
        tree = model.hidden(ids, segments=segments).gather(1, keep[..., None].expand(-1, -1, model.config.n_embd))
        torch.testing.assert_close(hidden_at(model, ids, keep, segments=segments), tree, rtol=1e-4, atol=1e-5)
        model.set_kv_cache(3, max_seq_length=12)
        with kept_positions(model, keep):
            cached = model.hidden(ids, input_pos=torch.arange(11))
        torch.testing.assert_close(cached, expected, rtol=1e-4, atol=1e-5)
        following = model.hidden(ids[:, :1], input_pos=torch.tensor([11]))
        model.clear_kv_cache()
        whole = model.hidden(torch.cat([ids, ids[:, :1]], dim=1))
        torch.testing.assert_close(following[:, 0], whole[:, -1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ZeroDivisionError), kept_positions(model, keep):
        raise ZeroDivisionError
    assert "forward" not in model.transformer.h[-1].__dict__
    assert can_keep(model) and not can_keep(model.train())
    torch.testing.assert_close(hidden_at(model, ids, keep), expected, rtol=1e-4, atol=1e-5)  # without dropout


def test_the_models_mode_is_restored(make_scorer) -> None:
    scorer = make_scorer()
    scorer.model.train()
    scorer.span_logprobs([Span(np.arange(5), 1)])
    assert scorer.model.training


def test_a_prompt_beyond_the_window_is_an_error(make_scorer) -> None:
    scorer = make_scorer()
    with pytest.raises(DataError, match="window holds 24"):
        scorer.choice_logprobs([Continuations(np.arange(24), (np.arange(2),))])
    with pytest.raises(DataError, match="25 tokens"):
        scorer.span_logprobs([Span(np.arange(26), 1)])


def test_weights_that_diverged_are_an_error(make_scorer) -> None:
    scorer = make_scorer()
    with torch.no_grad():
        scorer.model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not a number"):
        scorer.span_logprobs([Span(np.arange(4), 1)])


@given(length=st.integers(1, 90), block=st.integers(1, 12), data=st.data())
@settings(max_examples=60, deadline=None)
def test_windows_score_every_token_once_and_with_context(length: int, block: int, data: st.DataObject) -> None:
    context = data.draw(st.integers(1, block))
    ids = np.arange(length + 1)
    spans = sliding_spans(ids, block_size=block, context=context)
    scored = np.concatenate([span.ids[span.first :] for span in spans])
    assert scored.tolist() == ids[1:].tolist()
    assert all(len(span.ids) - 1 <= block for span in spans)
    assert all(span.first >= context for span in spans[1:])


def test_a_context_outside_the_window_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--context 9"):
        sliding_spans(np.arange(30), block_size=8, context=9)


def test_windows_are_those_of_generation(make_scorer) -> None:
    """The context of every token is the one that generating it would have had."""
    from litgpt_core.generation.text_window import TextWindow

    window, seen = TextWindow(ids=[0], block_size=7), []
    for token in range(1, 40):
        window.next_feed(0)
        seen.append(window.ids[window.start :])
        window.ids.append(token)
    spans = sliding_spans(np.arange(40), block_size=7)
    contexts = [span.ids[:place].tolist() for span in spans for place in range(span.first, len(span.ids))]
    assert contexts == seen


def test_bits_per_byte_of_a_uniform_model_are_known(byte_tokenizer) -> None:
    score = score_text(UniformScorer(byte_tokenizer), "äb" * 50)
    assert score.n_bytes == score.n_tokens == 150
    assert math.isclose(score.bits_per_byte, math.log2(byte_tokenizer.vocab_size))


def test_ngram_scorers_have_their_analytic_loss(byte_tokenizer) -> None:
    train, val = "abracadabra " * 30, "a cabra abra"
    ids = np.array(byte_tokenizer.encode(train))
    counts = BigramModel.fit(ids, vocab_size=byte_tokenizer.vocab_size)
    val_ids = np.array(byte_tokenizer.encode(val))
    expected = reference_losses(ids, val_ids, vocab_size=byte_tokenizer.vocab_size)
    for order, loss in ((1, expected.unigram), (2, expected.bigram)):
        scored = NgramScorer(counts, byte_tokenizer, order=order).span_logprobs([Span(val_ids, 1)])[0]
        assert math.isclose(-scored.mean(), loss, rel_tol=1e-12)


def test_texts_are_scored_apart_and_add_up(make_scorer) -> None:
    scorer = make_scorer()
    texts = [Document("", "a", "def f(x): return x" * 5), Document("", "b", "é")]
    scores = score_texts(scorer, texts)
    assert [score.n_bytes for score in scores] == [90, 2]
    alone = score_text(scorer, texts[0].text)
    np.testing.assert_allclose(scores[0].token_bits, alone.token_bits, atol=1e-4)
    assert math.isclose(total_bits_per_byte(scores), (scores[0].bits + scores[1].bits) / 92)


def test_blocks_add_up_under_tokens_of_any_length(make_scorer) -> None:
    score = score_text(make_scorer(), "some text of no great length, " * 9)
    blocks = score.block_bits(64)
    assert len(blocks) == math.ceil(score.n_bytes / 64)
    assert math.isclose(blocks.sum(), score.bits)
    np.testing.assert_allclose(blocks[0], score.token_bits[:64].sum())


def test_an_empty_text_is_an_error(make_scorer) -> None:
    with pytest.raises(DataError, match="empty"):
        score_text(make_scorer(), "")
