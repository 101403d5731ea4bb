"""Refused requests: OpenAI's error format, and no internal details in messages."""

import pytest
import torch

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"


def error(response) -> dict:
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        (HELLO | {"temperature": -1}, "temperature"),
        (HELLO | {"top_p": 2}, "top_p"),
        (HELLO | {"n": 0}, "n"),
        (HELLO | {"top_logprobs": 99}, "top_logprobs"),
        (HELLO | {"conversation_id": "../../etc"}, "conversation_id"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "messages.0.content"),
    ],
)
def test_a_wrong_field_is_named(client, body, param):
    answer = client().post(CHAT, json=body)
    assert answer.status_code == 400
    found = error(answer)
    assert found["type"] == "invalid_request_error" and found["param"].startswith(param)


def test_limits_are_kept(client):
    here = client(max_tokens=50, max_prompt_chars=300, max_body_bytes=2000, max_choices=2)
    clamped = here.post(CHAT, json=HELLO | {"max_tokens": 51, "ignore_eos": True}).json()["usage"]
    assert (clamped["max_tokens"], clamped["max_tokens_requested"], clamped["completion_tokens"]) == (50, 51, 50)
    assert "at most 2" in error(here.post(CHAT, json=HELLO | {"n": 3}))["message"]
    long = {"messages": [{"role": "user", "content": "x" * 301}]}
    assert "at most 300" in error(here.post(CHAT, json=long))["message"]
    answer = here.post(CHAT, json={"messages": [{"role": "user", "content": "x" * 3000}]})
    assert answer.status_code == 413 and error(answer)["code"] == "body_too_large"

    def chunks():
        for _ in range(10):
            yield b" " * 500

    answer = here.post(CHAT, content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413, "a body without a length is counted as it arrives"


def test_stop_strings_and_ids_are_limited(client):
    here = client()
    assert here.post(CHAT, json=HELLO | {"stop": ["a"] * 17}).status_code == 400
    assert here.post(CHAT, json=HELLO | {"stop": "a" * 257}).status_code == 400
    assert here.post(CHAT, json=HELLO | {"stop": ["a" * 256] * 16}).status_code == 200
    answer = here.post("/v1/completions", json={"prompt": [[1, 2], [99_999_999]], "echo": True})
    assert answer.status_code == 400 and "token 99999999" in error(answer)["message"]
    assert here.post("/v1/completions", json={"prompt": "x", "echo": True, "logprobs": 1}).status_code == 400
    metrics = here.get("/metrics").text
    assert 'light_compute_running{model="chatty"} 0.0' in metrics


def test_the_smallest_temperature_is_greedy(client):
    here = client()
    answers = [
        here.post(CHAT, json=HELLO | {"temperature": value, "seed": 3}).json()["choices"][0]["message"]["content"]
        for value in (0, 1e-46, 1e-300)
    ]
    assert len(set(answers)) == 1


def test_an_unwritable_log_does_not_affect_answers(client, tmp_path):
    here = client()
    (tmp_path / "chat_history.jsonl").unlink()
    (tmp_path / "chat_history.jsonl").mkdir()
    answer = here.post(CHAT, json=HELLO)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"]
    assert "exchange_id" not in answer.json()


def test_the_number_of_loaded_models_is_limited(client, make_model, monkeypatch):
    monkeypatch.setattr("litgpt_core.serving.models.RESCAN_S", 0.0)
    here = client(max_loaded=1)
    make_model("second", seed=2)
    assert here.post(CHAT, json=HELLO | {"model": "second"}).status_code == 200
    loaded = {model["id"]: model["loaded"] for model in here.get("/v1/models").json()["data"]}
    assert loaded == {"second": True, "chatty": False}
    monkeypatch.setattr("litgpt_core.serving.worker.Worker.idle", property(lambda _: False))
    answer = here.post(CHAT, json=HELLO | {"model": "chatty"})
    assert answer.status_code == 429 and "busy" in error(answer)["message"]


def test_the_key_is_required_except_for_the_page_and_health(client):
    here = client(api_key="a long secret")
    for path in ("/v1/models", "/stats", "/metrics", "/v1/settings"):
        answer = here.get(path)
        assert answer.status_code == 401 and error(answer)["code"] == "invalid_api_key", path
    assert here.post(CHAT, json=HELLO).status_code == 401
    assert here.post(CHAT, json=HELLO, headers={"Authorization": "Bearer a long secre"}).status_code == 401
    assert here.post(CHAT, json=HELLO, headers={"Authorization": "Bearer a long secret"}).status_code == 200
    assert here.get("/health").status_code == here.get("/").status_code == 200


def test_other_sites_cannot_access_a_private_server(client):
    here = client()
    answer = here.post(CHAT, json=HELLO, headers={"host": "evil.example"})
    assert answer.status_code == 403 and error(answer)["code"] == "wrong_host"
    body = b'{"message": "hi"}'
    answer = here.post("/chat", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    params = {"origin": "https://site.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in here.options("/chat", headers=params).headers
    named = client(cors_origins=("https://site.example",))
    assert named.options("/chat", headers=params).headers["access-control-allow-origin"] == "https://site.example"
    other = {"origin": "https://other.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in named.options("/chat", headers=other).headers


def test_unknown_models_and_paths_are_refused_by_name(client, make_model, tmp_path):
    here = client()
    answer = here.post(CHAT, json=HELLO | {"model": "nobody"})
    assert answer.status_code == 404 and error(answer)["code"] == "model_not_found" and "chatty" in answer.text
    outside = make_model("../elsewhere")
    answer = here.post(CHAT, json=HELLO | {"model": str(outside)})
    assert answer.status_code == 404, "a path is never taken from a request"
    assert error(here.get("/v1/nothing"))["type"] == "invalid_request_error"
    assert here.get("/static/../app.py").status_code == 404
    assert here.get("/static/%2e%2e/app.py").status_code == 404


def test_a_broken_model_is_reported_without_a_path_and_the_server_continues(client, make_model, tmp_path, monkeypatch):
    monkeypatch.setattr("litgpt_core.serving.models.RESCAN_S", 0.0)
    here = client()
    zeros = make_model("zeros")
    weights = zeros / "lit_model.pth"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    answer = here.post(CHAT, json=HELLO | {"model": "zeros"})
    assert answer.status_code == 500
    error(answer)
    assert str(tmp_path) not in answer.text and "zeros" not in answer.text.replace("'zeros'", "")
    broken = make_model("broken")
    state = torch.load(broken / "lit_model.pth", weights_only=True)
    state["lm_head.weight"].fill_(float("nan"))
    torch.save(state, broken / "lit_model.pth")
    (broken / "checksums.json").unlink()
    answer = here.post(CHAT, json=HELLO | {"model": "broken"})
    assert answer.status_code == 500 and error(answer)["code"] == "internal_error"
    assert str(tmp_path) not in answer.text
    streamed = here.post(CHAT, json=HELLO | {"model": "broken", "stream": True})
    assert '"code":"internal_error"' in streamed.text and streamed.text.endswith("data: [DONE]\n\n")
    assert here.post(CHAT, json=HELLO).status_code == 200
