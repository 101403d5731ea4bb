"""What clients of OpenAI's API really send is accepted; what is not supported is named."""

import json

import pytest

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
NULLS = (
    *("audio", "best_of", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "metadata"),
    *("max_completion_tokens", "max_tokens", "min_p", "modalities", "model", "n", "parallel_tool_calls", "prediction"),
    *("presence_penalty", "reasoning_effort", "repetition_penalty", "response_format", "seed", "service_tier", "stop"),
    *("store", "stream", "stream_options", "suffix", "temperature", "tool_choice", "tools", "top_k", "top_logprobs"),
    *("top_p", "user", "echo", "ignore_eos", "conversation_id", "turn"),
)
IMAGE = {"type": "image_url", "image_url": {}}


def error(response) -> dict:
    return response.json()["error"]


def prompt_of(client, monkeypatch, body) -> str:
    """The text of the prompt that the server makes of a request."""
    seen = []
    worker = "litgpt_core.serving.worker.Worker.submit"
    import litgpt_core.serving.worker as module

    submit = module.Worker.submit
    monkeypatch.setattr(worker, lambda self, job: seen.append((self, job)) or submit(self, job))
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    (own, job), *_ = seen
    return own.engine.tokenizer.decode(job.request.prompt_ids)


def test_null_means_absent(client):
    here = client()
    body = dict.fromkeys(NULLS)
    plain = here.post(CHAT, json=HELLO).json()["choices"]
    assert here.post(CHAT, json=HELLO | body).json()["choices"] == plain
    assert here.post(COMPLETE, json=body | {"prompt": "a"}).status_code == 200
    assert here.post(COMPLETE, json=body | {"prompt": None}).status_code == 200, "as an absent prompt"


@pytest.mark.parametrize(
    ("more", "field", "reason"),
    [
        ({"tools": [{}], "tool_choice": "required"}, "tool_choice", "may not be made to call"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "may not be made to call"),
        ({"response_format": {"type": "json_object"}}, "response_format", "cannot be enforced"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "not supported"),
        ({"stop": ["a"] * 17}, "stop", "17 stop strings were given, at most 16"),
        ({"stop": "a" * 300}, "stop", "300 characters, at most 256"),
        ({"stop": [1]}, "stop", "a string or a list of strings"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty", "greater than or equal to 0.01"),
        ({"n": 99}, "n", "at most 8"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content", "'image_url'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content", "part 0 is not"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role", "['user'] is unknown"),
        ({"messages": [{"role": "user"}]}, "messages.0", "has no content"),
        ({"messages": HELLO["messages"] * 2001}, "messages", "2,001 messages were given"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named_with_the_reason(client, more, field, reason):
    answer = client().post(CHAT, json=HELLO | more)
    assert answer.status_code == 400
    assert error(answer)["param"] == field and reason in error(answer)["message"], error(answer)


def test_what_changes_nothing_is_accepted(client):
    here = client()
    for more in (
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"response_format": {"type": "text"}, "logit_bias": {}, "modalities": ["text"], "user": "me", "store": False},
    ):
        assert here.post(CHAT, json=HELLO | more).status_code == 200, more


def test_broken_json_is_located(client):
    here = client()
    headers = {"content-type": "application/json"}
    answer = here.post(CHAT, content=b'{"messages": [}', headers=headers)
    assert answer.status_code == 400 and error(answer)["code"] == "invalid_json"
    assert "at character 14" in error(answer)["message"]
    assert here.post(CHAT, content=b"\xff", headers=headers).status_code == 400
    assert here.post(CHAT, content=b"[" * 100_000, headers=headers).status_code == 400


def test_extreme_sampling_values_mean_what_they_mean_elsewhere(client):
    here = client()
    params = HELLO | {"temperature": 1.5, "seed": 3, "max_tokens": 8}
    greedy = here.post(CHAT, json=HELLO | {"temperature": 0, "max_tokens": 8}).json()["choices"]
    assert here.post(CHAT, json=params | {"top_p": 0}).json()["choices"] == greedy
    assert (
        here.post(CHAT, json=params | {"top_k": -1}).json()["choices"]
        == here.post(CHAT, json=params | {"top_k": 0}).json()["choices"]
    )
    usage = here.post(CHAT, json=params | {"max_tokens": 10**9}).json()["usage"]
    assert usage["max_tokens_requested"] == 10**9 and usage["max_tokens"] == 1024
    assert "max_tokens" not in here.post(CHAT, json=params).json()["usage"]


@pytest.mark.parametrize("name", ["chatty", "base"])
def test_every_message_reaches_the_prompt(client, make_model, monkeypatch, name):
    make_model("base", seed=2, style=None)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "s1"},
        {"role": "developer", "content": "s2"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "1"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "user", "content": "q2"},
    ]
    monkeypatch.setattr("litgpt_core.generation.prompt_fitting._most_that_fit", lambda n, **_: n)
    monkeypatch.setattr("litgpt_core.serving.prompting.fit_prompt", _fit_all)
    text = prompt_of(client(), monkeypatch, {"model": name, "max_tokens": 1, "messages": messages})
    assert [part for part in ("s1", "s2", "Hi", "q1", '"name": "f"', "42", "no", "q2") if part not in text] == []


def _fit_all(messages, **words):
    from litgpt_core.generation.prompt_fitting import fit_prompt

    return fit_prompt(messages, **(words | {"block_size": 10_000}))


def test_turns_that_were_left_out_are_counted_in_the_usage(client):
    turns = [{"role": role, "content": "word " * 4} for _ in range(10) for role in ("user", "assistant")]
    body = {"messages": [*turns, {"role": "user", "content": "short"}], "max_tokens": 5}
    assert client().post(CHAT, json=body).json()["usage"]["turns_left_out"] >= 8


def test_one_model_head_requests_and_the_keys_scheme(client, make_model):
    here = client(api_key="a long secret", cors_origins=("https://site.example",))
    key = {"Authorization": "bEARER a long secret"}
    make_model("group/nested", seed=2, style=None)
    model = here.get("/v1/models/chatty", headers=key).json()
    assert model["id"] == "chatty" and model["object"] == "model"
    assert here.get("/v1/models/nobody", headers=key).status_code == 404
    assert error(here.get("/v1/models/nobody", headers=key))["param"] == "model"
    for path in ("/", "/health", "/v1/models", "/v1/models/chatty", "/stats"):
        answer = here.head(path, headers=key)
        assert answer.status_code == 200 and answer.content == b"", path
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert here.get("/v1/models", headers={"Authorization": "Basic a long secret"}).status_code == 401
    asked = {
        "origin": "https://site.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    answer = here.options(CHAT, headers=asked)
    assert answer.status_code == 200 and "x-stainless-lang" in answer.headers["access-control-allow-headers"]
    other = asked | {"origin": "https://other.example"}
    assert "access-control-allow-origin" not in here.options(CHAT, headers=other).headers


def test_a_character_that_cannot_be_read_is_named_by_its_place_in_the_message(client):
    body = HELLO["messages"] + [{"role": "assistant", "content": "x"}, {"role": "user", "content": "ab\ud800"}]
    text = json.dumps({"messages": body}).encode()
    answer = client().post(CHAT, content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and error(answer)["code"] == "unencodable_text"
    assert error(answer)["message"].startswith("Message 3: The text contains a lone surrogate U+D800 at character 2.")


def test_a_final_message_can_be_continued_and_is_logged_as_one_answer(client, tmp_path):
    here = client()
    params = HELLO | {"temperature": 0, "ignore_eos": True}
    whole = here.post(CHAT, json=params | {"max_tokens": 8}).json()["choices"][0]["message"]["content"]
    first = here.post(CHAT, json=params | {"max_tokens": 3}).json()["choices"][0]["message"]["content"]
    if not whole.startswith(first) or "\ufffd" in first:
        first = whole[:1]
    begun = [*HELLO["messages"], {"role": "assistant", "content": first}]
    more = {"messages": begun, "continue_final_message": True, "max_tokens": 4}
    rest = here.post(CHAT, json=params | more).json()["choices"][0]["message"]["content"]
    logged = [json.loads(line) for line in (tmp_path / "chat_history.jsonl").read_text().splitlines()]
    assert rest and logged[-1]["assistant"] == first + rest and logged[-1]["user"] == "Hello"
    assert error(here.post(CHAT, json=HELLO | {"continue_final_message": True}))["param"] == "continue_final_message"
