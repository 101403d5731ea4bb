"""Requests of the harness and the CORE metric: scores equal a plain computation, prompts are built as described."""

import csv
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from litgpt_core.core.errors import DataError, EnvironmentProblem
from litgpt_core.evaluate.core_metric import CoreTask, core_metric, prompts_of, read_bundle, task_answers
from litgpt_core.evaluate.harness import HarnessRequests, run_tasks


def plain(scorer, ids: list[int], first: int) -> tuple[float, bool]:
    with torch.no_grad():
        logits = scorer.model(torch.tensor([ids[:-1]]))[0, :, : scorer.vocab_size].double().log_softmax(1)
    wanted = torch.tensor(ids[1:])
    scores = logits.gather(1, wanted[:, None])[first - 1 :, 0]
    return float(scores.sum()), bool((logits.argmax(1) == wanted)[first - 1 :].all())


def test_log_likelihoods_and_greedy_flags(make_scorer) -> None:
    scorer = make_scorer()
    requests = HarnessRequests(scorer)
    said = {letter: requests.generate_until([(letter, {"max_gen_toks": 1})])[0] for letter in "abcdefghijklmnopqrst"}
    prompt, greedy = next((letter, text) for letter, text in said.items() if text.isascii() and text)
    pairs = [("ab", "cde"), ("ab", "xyzuv"), ("q", "r"), (prompt, greedy), ("", "hello")]
    for pair, (value, flag) in zip(pairs, requests.loglikelihood(pairs), strict=True):
        context = list(pair[0].encode()) or [scorer.start_id]
        expected = plain(scorer, [*context, *pair[1].encode()], len(context))
        assert math.isclose(value, expected[0], abs_tol=1e-4) and flag == expected[1]
    assert requests.loglikelihood([(prompt, greedy)])[0][1] is True


def test_spaces_move_to_the_continuation_and_long_contexts_lose_their_beginning(make_scorer) -> None:
    requests = HarnessRequests(make_scorer())
    context, continuation = requests.encode_pair("abc  ", "de")
    assert bytes(context.tolist()) == b"abc" and bytes(continuation.tolist()) == b"  de"
    context, continuation = requests.encode_pair("x" * 50 + "abc", "de")
    assert len(context) + len(continuation) - 1 == 24 and bytes(context[-3:].tolist()) == b"abc"
    (value, _), (whole, _) = requests.loglikelihood([("x" * 50 + "abc", "de"), ("x" * 20 + "abc", "de")])
    assert math.isclose(value, whole, abs_tol=1e-5)


def test_rolling_windows_predict_every_token_once(make_scorer) -> None:
    """Windows of the harness: block_size predictions each, the last one with as much context as fits."""
    scorer = make_scorer()
    text = "a text that is longer than two windows of this model, surely"
    ids = [scorer.start_id, *text.encode()]
    expected = 0.0
    for begin in range(0, len(text), 24):
        end = min(begin + 24, len(text))
        start = begin if begin == 0 or end - begin == 24 else end - 24
        expected += plain(scorer, ids[start : end + 1], begin - start + 1)[0]
    found = HarnessRequests(scorer).loglikelihood_rolling([text, "short"])
    assert math.isclose(found[0], expected, abs_tol=1e-3)
    assert math.isclose(found[1], plain(scorer, [scorer.start_id, *b"short"], 1)[0], abs_tol=1e-4)


def test_generation_stops_before_the_stop_string(make_scorer) -> None:
    requests = HarnessRequests(make_scorer())
    whole = requests.generate_until([("ab", {"max_gen_toks": 12})])[0]
    assert len(whole) > 4
    stop = whole[2:4]
    cut = requests.generate_until([("ab", {"max_gen_toks": 12, "until": [stop]})])[0]
    assert cut == whole[: whole.index(stop)]


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_package_the_error_says_what_to_install(make_scorer) -> None:
    with pytest.raises(EnvironmentProblem, match="pip install lm-eval"):
        run_tasks(make_scorer(), ["hellaswag"])


def task(kind: str, items: list[dict], examples: int = 0) -> CoreTask:
    return CoreTask(label="t", kind=kind, examples=examples, delimiter=" ", items=items, chance=0.5)


def test_choices_are_compared_by_their_mean_loss(make_scorer) -> None:
    scorer = make_scorer()
    items = [{"query": f"q{i}", "choices": ["aaa", "bcdef"], "gold": i % 2} for i in range(6)]
    means = {}
    for i in range(6):
        losses = []
        for choice in items[i]["choices"]:
            ids = [scorer.start_id, *f"q{i} {choice}".encode()]
            losses.append(-plain(scorer, ids, 4)[0] / len(choice))
        means[f"q{i}"] = losses.index(min(losses)) == i % 2
    found = task_answers(scorer, task("multiple_choice", items))
    assert sorted(found) == sorted(means.values())


def test_schemas_score_the_common_end(make_scorer) -> None:
    scorer = make_scorer()
    items = [{"context_options": ["one", "sixty"], "continuation": "end", "gold": 0}]
    losses = [-plain(scorer, [scorer.start_id, *f"{o} end".encode()], len(o) + 1)[0] for o in ("one", "sixty")]
    assert task_answers(scorer, task("schema", items)) == [losses[0] < losses[1]]


def test_a_continuation_counts_if_it_is_greedy(make_scorer) -> None:
    scorer = make_scorer()
    greedy = HarnessRequests(scorer).engine.generate([scorer.start_id, *b"ab"], max_new_tokens=1, stop_ids=())[0]
    assert task_answers(scorer, CoreTask(label="t", kind="language_modeling", examples=0, delimiter="", chance=0,
        items=[{"context": "ab", "continuation": "~"}])) == [greedy == ord("~")]  # fmt: skip


def test_prompts_hold_solved_examples_of_other_items() -> None:
    items = [{"query": f"q{i}", "choices": ["yes", "no"], "gold": i % 2} for i in range(5)]
    prompts = prompts_of(task("multiple_choice", items, examples=2), items, 3)
    assert [prompt.splitlines()[-1] for prompt in prompts] == ["q3 yes", "q3 no"]
    solved = prompts[0].split("\n\n")[:-1]
    assert len(solved) == 2 and set(solved) < {"q0 yes", "q1 no", "q2 yes", "q4 yes"}
    text = prompts_of(
        task("language_modeling", [{"context": " a ", "continuation": "b"}]),
        [{"context": " a ", "continuation": "b"}],
        0,
    )
    assert text == ["a", "a b"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "eval_data").mkdir()
    items = [{"query": f"q{i}", "choices": ["a", "b"], "gold": i % 2} for i in range(10)]
    (tmp_path / "eval_data" / "mc.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "core.yaml").write_text(
        "icl_tasks:\n- {label: mc, dataset_uri: mc.jsonl, num_fewshot: [1], icl_task_type: multiple_choice}\n"
    )
    with (tmp_path / "eval_meta_data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Eval Task", "Random baseline"], ["mc", "50.0"]])
    return tmp_path


def test_a_bundle_gives_a_centred_metric(make_scorer, bundle: Path) -> None:
    found = core_metric(make_scorer(), read_bundle(bundle))
    accuracy = found["tasks"]["mc"]["accuracy"]
    assert found["tasks"]["mc"]["n"] == 10 and math.isclose(found["core"], (accuracy - 0.5) / 0.5)
    assert core_metric(make_scorer(), read_bundle(bundle), limit=3)["tasks"]["mc"]["n"] == 3
    assert found["se"] > 0 and np.isfinite(found["se"])


def test_what_is_no_bundle_is_an_error(bundle: Path) -> None:
    with pytest.raises(DataError, match=r"core\.yaml cannot be read"):
        read_bundle(bundle / "none")
    (bundle / "core.yaml").write_text("tasks: []")
    with pytest.raises(DataError, match="no CORE bundle"):
        read_bundle(bundle)
