"""POST /v1/attention: what `looked_at` says of the conversation as the server formats it; answers are not disturbed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from litgpt_core.checkpoint import load_model
from litgpt_core.interpret.looked_at import looked_at
from litgpt_core.serving.attention import MOST_ANSWER_TOKENS

QUESTION = {"role": "user", "content": "Hi"}


def asked(answer: str, position: int) -> dict[str, object]:
    return {"messages": [QUESTION, {"role": "assistant", "content": answer}], "position": position}


def test_weights_are_those_of_the_prompt_and_the_answer(client: Callable[..., TestClient], tmp_path) -> None:
    opened = client()
    before = opened.post("/v1/chat/completions", json={"messages": [QUESTION]}).json()["choices"][0]["message"]
    found = opened.post("/v1/attention", json=asked("abc", 2)).json()
    assert found["answer"] == ["a", "b", "c"] and found["position"] == 2 and found["model"] == "chatty"
    assert "".join(found["context"][found["prompt_tokens"] :]) == "ab" and "Hi" in "".join(found["context"])
    prompt = [ord(text) for text in found["context"][: found["prompt_tokens"]]]
    model = load_model(tmp_path / "models" / "chatty").eval()
    expected = looked_at(model, prompt, [97, 98, 99], position=2)
    for name in ("average", "rollout"):
        assert found[name] == pytest.approx(expected[name], abs=2e-4)
        assert sum(found[name]) == pytest.approx(1.0, abs=0.02)
    assert len(found["layers"]) == 2 and len(found["layers"][0]) == len(found["context"])
    after = opened.post("/v1/chat/completions", json={"messages": [QUESTION]}).json()["choices"][0]["message"]
    assert after == before


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (asked("abc", 3), "position", "position 3 of an answer of 3 tokens"),
        (asked("", 0), "messages", "The last of 2 messages"),
        ({"messages": [QUESTION]}, "messages", "of the user"),
        (asked("abc", -1), "position", "greater than or equal to 0"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "The last of 1 messages"),
    ],
)
def test_what_cannot_be_shown_is_one_clear_error(
    client: Callable[..., TestClient], body: dict[str, object], param: str, message: str
) -> None:
    answer = client().post("/v1/attention", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]


def test_long_answers_are_bounded(client: Callable[..., TestClient]) -> None:
    found = client().post("/v1/attention", json=asked("ab" * 600, 400)).json()
    assert len(found["answer"]) == MOST_ANSWER_TOKENS and len(found["context"]) <= 96
    assert found["left_out"] > 0
