"""The endpoints respond as OpenAI's do, with what was requested."""

import json
import time

import pytest

from litgpt_core.core.machine import compile_obstacle
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.speculation import DraftBudget, NgramDraft
from litgpt_core.prompts import Message, encode_prompt, style_named
from litgpt_core.serving import readiness

REUSED = "light_compute_prompt_tokens_reused_total"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def events(response) -> list[dict]:
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.fixture
def expected(make_model):
    """The engine's own answer to Hello."""
    engine = Engine.from_directory(make_model("chatty"), device="cpu", dtype="32")
    style = style_named("human_assistant")
    ids = encode_prompt(style, engine.tokenizer, [Message(role="user", content="Hello")])

    def _expected(**words):
        from litgpt_core.generation.request import GenerationRequest
        from litgpt_core.generation.sampling import GREEDY

        usual = {"max_new_tokens": 12, "sampling": GREEDY, "stop": style.stop_strings(), "overflow": "stop"}
        usual["stop_ids"] = style.stop_tokens(engine.tokenizer)
        request = GenerationRequest(prompt_ids=tuple(ids), **(usual | words))
        return "".join(delta.text for delta in engine.stream(request)), len(ids)

    return _expected


def test_a_chat_equals_the_engines_answer(client, expected):
    text, n_prompt = expected()
    body = client().post("/v1/chat/completions", json=HELLO).json()
    assert body["object"] == "chat.completion" and body["model"] == "chatty"
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "length"}
    ]
    assert body["usage"] == {"prompt_tokens": n_prompt, "completion_tokens": 12, "total_tokens": n_prompt + 12}
    assert len(text) > 2


def test_speculative_decoding_changes_nothing_but_the_usage(client, monkeypatch):
    monkeypatch.setattr(DraftBudget, "length", lambda self, rate, *, n_sequences: 4 * (n_sequences in self._step_s))
    monkeypatch.setattr(NgramDraft, "draft", lambda self, ids, n: ids[-1:] * n)
    repeating = HELLO | {
        "messages": [{"role": "user", "content": "abcabcabcabc"}],
        "max_tokens": 40,
        "temperature": 0.9,
    }
    plain = client().post("/v1/chat/completions", json=repeating | {"seed": 1}).json()
    here = client(speculative="ngram")
    found = here.post("/v1/chat/completions", json=repeating | {"seed": 1}).json()
    assert found["choices"] == plain["choices"] and "completion_tokens_details" not in plain["usage"]
    if compile_obstacle("cpu") is None:  # only the CPU kernel verifies drafts
        details = found["usage"]["completion_tokens_details"]
        assert (
            details.keys() == {"accepted_prediction_tokens", "rejected_prediction_tokens"} and sum(details.values()) > 0
        )
        rejected = (
            f'drafted_tokens_total{{model="chatty",outcome="rejected"}} {details["rejected_prediction_tokens"]:.1f}'
        )
        assert rejected in here.get("/metrics").text


def test_the_next_turn_reuses_the_cache(client):
    here, answers = client(), []
    history = [{"role": "user", "content": "A long enough greeting"}]
    for _ in range(2):
        answers.append(here.post("/v1/chat/completions", json=HELLO | {"messages": history, "max_tokens": 5}).json())
        said = answers[-1]["choices"][0]["message"]
        history += [said, {"role": "user", "content": "And?"}]
    fresh = client().post("/v1/chat/completions", json=HELLO | {"messages": history[:3], "max_tokens": 5}).json()
    assert fresh["choices"] == answers[1]["choices"] and "prompt_tokens_details" not in answers[0]["usage"]
    if compile_obstacle("cpu") is None:  # only the CPU kernel reuses
        reused = answers[1]["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert answers[0]["usage"]["prompt_tokens"] - 1 <= reused < answers[1]["usage"]["prompt_tokens"]
        counted = next(x for x in here.get("/metrics").text.splitlines() if x.startswith(REUSED))
        assert float(counted.rpartition(" ")[2]) == reused


def test_a_stream_joins_to_the_complete_answer(client, expected):
    text, _ = expected()
    params = HELLO | {"stream": True, "stream_options": {"include_usage": True}}
    response = client().post("/v1/chat/completions", json=params)
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response)
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in found if e["choices"]) == text
    assert found[-2]["choices"][0]["finish_reason"] == "length" and found[-2]["exchange_id"]
    assert found[-1]["usage"]["completion_tokens"] == 12 and found[-1]["choices"] == []
    assert len({e["id"] for e in found}) == 1


def test_seeds_choices_stops_and_limits_are_obeyed(client):
    here = client()
    params = HELLO | {"temperature": 1.5, "seed": 7, "n": 3, "max_tokens": 20}
    first, again = (here.post("/v1/chat/completions", json=params).json() for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]] and len(set(texts)) == 3
    assert first["usage"]["completion_tokens"] == 60
    streamed = events(here.post("/v1/chat/completions", json=params | {"stream": True}))
    for index, text in enumerate(texts):
        parts = [c["delta"].get("content", "") for e in streamed for c in e["choices"] if c["index"] == index]
        assert "".join(parts) == text
    alone = here.post("/v1/chat/completions", json=params | {"seed": 8, "n": 1}).json()
    assert alone["choices"][0]["message"]["content"] == texts[1], "choice i is sampled with seed + i"
    stop = texts[0][4:6]
    ended = here.post("/v1/chat/completions", json=params | {"n": 1, "stop": [stop]}).json()["choices"][0]
    assert ended["message"]["content"] == texts[0][: texts[0].index(stop)] and ended["finish_reason"] == "stop"
    one = here.post("/v1/chat/completions", json=HELLO | {"max_completion_tokens": 1}).json()
    assert one["usage"]["completion_tokens"] == 1


def test_log_probabilities_have_both_formats(client):
    here = client()
    params = HELLO | {"logprobs": True, "top_logprobs": 2, "max_tokens": 4}
    entries = here.post("/v1/chat/completions", json=params).json()["choices"][0]["logprobs"]["content"]
    assert len(entries) == 4
    for entry in entries:
        assert entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 2
        assert entry["top_logprobs"][0]["bytes"] == entry["bytes"], "temperature 0 is greedy"
    params = {"prompt": "def ", "logprobs": 3, "max_tokens": 4, "temperature": 0}
    found = here.post("/v1/completions", json=params).json()["choices"][0]
    assert [len(found["logprobs"][name]) for name in ("tokens", "token_logprobs", "top_logprobs")] == [4, 4, 4]
    assert found["logprobs"]["text_offset"][0] == 0


def test_completions_take_texts_and_ids(client):
    here = client()
    text = here.post("/v1/completions", json={"prompt": "def ", "max_tokens": 6}).json()["choices"][0]["text"]
    ids = here.post("/v1/completions", json={"prompt": [100, 101, 102, 32], "max_tokens": 6}).json()
    assert ids["choices"][0]["text"] == text and ids["usage"]["prompt_tokens"] == 4
    both = here.post("/v1/completions", json={"prompt": ["def ", "x"], "max_tokens": 6, "echo": True}).json()
    assert both["choices"][0]["text"] == "def " + text and both["choices"][1]["text"].startswith("x")
    assert both["usage"]["prompt_tokens"] == 5


def test_exchanges_are_logged_counted_and_rated(client, tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, "_REST", 0)  # where the first count takes seconds, 20 times as long would follow
    here = client()
    assert here.get("/stats").json() == {"chat_count": 0, "ready_for_finetuning": False}
    said = here.post("/chat", json={"message": "Hello"}).json()
    assert said["chat_count"] == 1 and isinstance(said["response"], str)
    params = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two"},
        ],
        "conversation_id": "abc",
    }
    number = here.post("/v1/chat/completions", json=params).json()["exchange_id"]
    assert here.post("/v1/ratings", json={"id": number, "rating": -1}).json() == {"ok": True}
    assert here.post("/v1/ratings", json={"id": "nobody", "rating": 1}).status_code == 404
    lines = [json.loads(line) for line in (tmp_path / "chat_history.jsonl").read_text().splitlines()]
    assert [line.get("type") for line in lines] == [None, None, "rating"]
    assert [lines[1][name] for name in ("user", "conversation_id", "turn", "system", "model")] == [
        "Two",
        "abc",
        1,
        "Be brief.",
        "chatty",
    ]
    for i in range(8):
        here.post("/chat", json={"message": f"Message {i}"})
    here.post("/chat", json={"message": "Message 7"})
    assert here.get("/stats").json() == {"chat_count": 11, "ready_for_finetuning": False}, "one rated bad, one twice"
    here.post("/chat", json={"message": "Message 8"})
    deadline = time.monotonic() + 20
    while not here.get("/stats").json()["ready_for_finetuning"]:
        assert time.monotonic() < deadline, "it is counted again soon after a change"
        time.sleep(0.02)
    assert here.get("/stats").json() == {"chat_count": 12, "ready_for_finetuning": True}
    assert client(chat_log=None).get("/v1/settings").json()["logging"] is False


def test_models_are_listed_loaded_on_request_and_reloaded_when_replaced(client, make_model, monkeypatch):
    monkeypatch.setattr("litgpt_core.serving.models.RESCAN_S", 0.0)
    here = client()
    make_model("base", seed=2, style=None)
    listed = {model["id"]: model for model in here.get("/v1/models").json()["data"]}
    assert listed["chatty"]["loaded"] and listed["chatty"]["chat"] and listed["chatty"]["context_length"] == 96
    assert not listed["base"]["loaded"] and not listed["base"]["chat"] and listed["base"]["parameters"] > 10_000
    text = here.post("/v1/chat/completions", json=HELLO).json()["choices"][0]["message"]["content"]
    other = here.post("/v1/chat/completions", json=HELLO | {"model": "base"}).json()
    assert other["model"] == "base" and other["choices"][0]["message"]["content"] != text
    make_model("chatty", seed=9)
    newer = here.post("/v1/chat/completions", json=HELLO).json()["choices"][0]["message"]["content"]
    assert newer != text, "a replaced model is reloaded without a restart"


def test_old_turns_are_left_out_and_a_message_that_is_too_long_is_refused(client):
    here = client()
    turns = [{"role": role, "content": "word " * 4} for _ in range(10) for role in ("user", "assistant")]
    params = {"messages": [*turns, {"role": "user", "content": "short"}], "max_tokens": 5}
    answer = here.post("/v1/chat/completions", json=params)
    assert answer.status_code == 200 and answer.json()["usage"]["prompt_tokens"] <= 96 - 5
    answer = here.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x" * 200}]})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
    answer = here.post("/v1/completions", json={"prompt": "x" * 200})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"


def test_metrics_count_requests_and_tokens(client):
    here = client()
    here.post("/v1/chat/completions", json=HELLO)
    text = here.get("/metrics").text
    assert 'light_compute_requests_total{model="chatty",outcome="length"} 1.0' in text
    assert 'light_compute_new_tokens_total{model="chatty"} 12.0' in text
    assert 'light_compute_first_token_seconds_count{model="chatty"} 1.0' in text
    assert 'light_compute_running{model="chatty"} 0.0' in text


def test_the_page_is_served_with_a_strict_policy(client):
    answer = client().get("/")
    assert answer.status_code == 200 and "<html" in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in answer.text and "style=" not in answer.text
