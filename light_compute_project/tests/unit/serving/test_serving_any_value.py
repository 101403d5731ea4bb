"""Any value under any key of any request is answered, or refused with the name of the field: never a status 500."""

import json

import pytest

from litgpt_core.serving.schema import ChatRequest, CompletionRequest, PlainChatRequest, RatingRequest
from litgpt_core.serving.unsupported_fields import _ALLOWED

MESSAGE = {"role": "user", "content": "Hello"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ODD = [
    *([], [[]], [1], ["a"], [None], [{}], ["\ud800"], [[[[[[[[[[[]]]]]]]]]]]),
    *({}, {"a": {"b": []}}, {"\ud800": "\ud800"}, None, True, False),
    *(0, -1, 1, 10**30, 10**400, -(2**63), 2**64, 0.5, 1e308, -1e308, float("nan"), float("inf")),
    *("", "a", "\ud800", "\udfff\ud800", "\x00", "{}", "null", "x" * 200_000, "9" * 5000),
]


def _bodies():
    """Bodies that are right but for one place."""
    base = {"messages": [MESSAGE], "max_tokens": 1}
    keys = {*ChatRequest.model_fields, *_ALLOWED, "tools", "user", "metadata"}
    for value in ODD:
        yield "/v1/chat/completions", "", value
        for key in keys:
            yield "/v1/chat/completions", key, base | {key: value}
        for key in ("role", "content", "refusal", "tool_calls", "name"):
            for role in ("user", "assistant"):
                message = MESSAGE | {"role": role, key: value}
                yield "/v1/chat/completions", f"messages.0.{key}", base | {"messages": [message, MESSAGE]}
        yield "/v1/chat/completions", "messages.0", base | {"messages": [value]}
        yield "/v1/chat/completions", "messages.0.content", base | {"messages": [MESSAGE | {"content": [value]}]}
        part = {"type": "text", "text": value}
        yield "/v1/chat/completions", "messages.0.content", base | {"messages": [MESSAGE | {"content": [part]}]}
        for key in ("function", "type", "id"):
            message = {"role": "assistant", "content": None, "tool_calls": [CALL | {key: value}]}
            yield "/v1/chat/completions", "messages.0.tool_calls", base | {"messages": [message, MESSAGE]}
        for key in ("name", "arguments"):
            call = CALL | {"function": {"name": "f", "arguments": "{}", key: value}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            yield "/v1/chat/completions", "messages.0.tool_calls", base | {"messages": [message, MESSAGE]}
        yield (
            "/v1/chat/completions",
            "stream_options",
            base | {"stream_options": {"include_usage": value}, "stream": True},
        )
        for key in CompletionRequest.model_fields:
            yield "/v1/completions", key, {"prompt": "a", "max_tokens": 1, key: value}
        for key in RatingRequest.model_fields:
            yield "/v1/ratings", key, {"id": "a", "rating": 1, key: value}
        for key in PlainChatRequest.model_fields:
            yield "/chat", key, {key: value}


PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/ratings", "/chat")


@pytest.mark.parametrize("path", PATHS)
def test_some_values_under_any_key(client, path):
    """Every seventh pair of place and value."""
    check(client, path, [(key, body) for to, key, body in _bodies() if to == path][::7])


@pytest.mark.nightly
@pytest.mark.parametrize("path", PATHS)
def test_any_value_under_any_key(client, path):
    check(client, path, [(key, body) for to, key, body in _bodies() if to == path])


def check(client, path, bodies):
    assert bodies
    here = client(default_tokens=1, max_tokens=2, max_prompt_chars=1000)
    wrong = []
    for key, body in bodies:
        text = json.dumps(body)
        answer = here.post(path, content=text.encode(), headers={"content-type": "application/json"})
        shown = (key, text[:120], answer.status_code, answer.text[:200])
        if answer.status_code == 200:
            if '"error":{' in answer.text:
                wrong.append(shown)
            continue
        found = answer.json()["error"]
        named = (found["param"] or "").split(".")[0] if key else ""
        # an error about a whole request has no field: a body that is no object, a text that does not fit
        general = found["code"] in ("invalid_json", "unencodable_text", "context_length_exceeded", "unknown_exchange")
        if not 400 <= answer.status_code < 500 or not (general or not key or named == key.split(".")[0] or named):
            wrong.append(shown)
        if not general and key and named and named != key.split(".")[0]:
            wrong.append(("another field is named", *shown))
    assert wrong == []
