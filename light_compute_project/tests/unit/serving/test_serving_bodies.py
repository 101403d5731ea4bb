"""Bodies of requests: the same errors whether they are read at once or outside the event loop."""

import asyncio
import json

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from litgpt_core.serving.bodies import SMALL_BYTES, body_of
from litgpt_core.serving.preparation import Preparation
from litgpt_core.serving.schema import ChatRequest


def read(*messages: dict) -> ChatRequest:
    left = list(messages)

    async def receive() -> dict:
        return left.pop(0)

    async def run() -> ChatRequest:
        preparation = Preparation(most_waiting=2)
        try:
            return await body_of(ChatRequest, Request({"type": "http", "headers": []}, receive), preparation)
        finally:
            preparation.close()

    return asyncio.run(run())


def sent(data: bytes, *, more: bool = False) -> dict:
    return {"type": "http.request", "body": data, "more_body": more}


@pytest.mark.parametrize("length", [10, 2 * SMALL_BYTES])
def test_small_and_large_bodies(length: int) -> None:
    talk = {"messages": [{"role": "user", "content": "a" * length}]}
    assert read(sent(json.dumps(talk).encode())).messages[0].content == "a" * length
    for role, place in (("nobody", ("body", "messages", 0, "role")), (3, ("body", "messages", 0, "role"))):
        talk["messages"][0]["role"] = role
        with pytest.raises(RequestValidationError) as caught:
            read(sent(json.dumps(talk).encode()))
        assert caught.value.errors()[0]["loc"] == place
    with pytest.raises(RequestValidationError) as caught:
        read(sent(b'{"messages": [' + b"1," * length + b"}"))
    assert caught.value.errors()[0]["type"] == "json_invalid"
    for broken in (b"\xff" * length, b"[" * 50_000):
        with pytest.raises((HTTPException, RequestValidationError)):
            read(sent(broken))


def test_a_client_that_leaves_in_the_middle_is_no_error_of_the_server() -> None:
    with pytest.raises(HTTPException) as caught:
        read(sent(b'{"mess', more=True), {"type": "http.disconnect"})
    assert caught.value.status_code == 400
