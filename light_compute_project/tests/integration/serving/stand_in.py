"""The HTTP API of scripts/serve.py without a model: scripted words come slowly, so that tests can stop them.

python stand_in.py PORT STATIC_FOLDER
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from litgpt_core.serving.markup_child import answer as colours

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
SECONDS_PER_WORD = 0.02
SECONDS_TO_LOAD = 0.8
LIGHTHOUSE = "\n".join(  # one string per line of the answer
    (
        "The lighthouse stood on a rock that the maps had forgotten. **Ines** kept it: she trimmed the wick, wound the "
        "clock, and wrote down every ship.",
        "",
        "What she needed for the winter:",
        "",
        "1. Oil for ninety nights",
        "2. Flour, salt and beans",
        "   - beans first",
        "   - then flour",
        "3. A new rope",
        "",
        "One evening the light answered with a rhythm of its own. She counted `3, 1, 4`, and wrote a few lines to keep "
        "it company:",
        "",
        "```python",
        "def blink(times: int) -> str:",
        '    """One dot per flash."""',
        '    return "." * times',
        "```",
        "",
        "By morning she had stopped being alone.",
    )
)
SEA = " where the water is grey and nobody asks for the name of the boat\nand the wind comes round at four" * 6


def words_for(message: str, *, chat: bool) -> str:
    if not chat:
        return SEA
    if "lighthouse" in message:
        return LIGHTHOUSE
    if "at length" in message:
        return "A long answer goes on. " * 200
    return f"You said: {message}"


def make_app(static: Path) -> FastAPI:
    app = FastAPI()
    suggestions = ["Explain what a language model does, in two sentences.", "Tell me a short story about a lighthouse."]
    scripted = {"loaded": True, "chat": True, "parameters": 14_067_712, "context_length": 2048}
    models = {
        "scripted-answers": scripted | {"suggestions": suggestions},
        "shakespeare-char": {"loaded": False, "chat": False, "parameters": 842_112, "context_length": 256},
        "EleutherAI/pythia-14m": {"loaded": False, "chat": False, "parameters": 14_067_712, "context_length": 512},
    }
    conversations: set[str] = set()
    exchanges: set[str] = set()

    @app.middleware("http")
    async def policy(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(static / "index.html")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "model": "scripted-answers"}

    @app.get("/stats")
    def stats() -> dict[str, object]:
        return {"chat_count": len(conversations), "ready_for_finetuning": len(conversations) >= 10}

    @app.get("/v1/settings")
    def settings() -> dict[str, object]:
        defaults = {"temperature": 0.8, "top_k": 50, "top_p": 1.0, "max_tokens": 256}
        limits = {"max_tokens": 1024, "max_prompt_chars": 4000}
        return {"default_model": "scripted-answers", **limits, "logging": True, "defaults": defaults}

    @app.get("/v1/models")
    def list_models() -> dict[str, object]:
        entry = {"object": "model", "created": 1_780_000_000, "owned_by": "light-compute"}
        return {"object": "list", "data": [{"id": name, **entry, **facts} for name, facts in models.items()]}

    @app.post("/v1/ratings")
    async def rate(request: Request) -> Response:
        given = await request.json()
        if given["id"] not in exchanges:
            return refusal(404, f"No exchange {given['id']}.")
        return JSONResponse({"ok": True})

    @app.post("/v1/markup")
    async def markup(request: Request) -> dict[str, object]:
        return colours(await request.json())

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        given = await request.json()
        name = given.get("model", "scripted-answers")
        if name not in models:
            return refusal(404, f"No model {name}.")
        conversations.add(given["conversation_id"])
        facts = models[name]
        text = words_for(given["messages"][-1]["content"], chat=bool(facts["chat"]))

        async def stream() -> AsyncIterator[str]:
            yield event({"role": "assistant", "content": ""})
            if not facts["loaded"]:
                await asyncio.sleep(SECONDS_TO_LOAD)
                facts["loaded"] = True
            for place, word in enumerate(text.split(" ")):
                await asyncio.sleep(SECONDS_PER_WORD)
                yield event({"content": f" {word}" if place else word})
            exchange = uuid.uuid4().hex
            exchanges.add(exchange)
            yield event({}, finish_reason="stop", exchange_id=exchange)
            usage = {"prompt_tokens": 12, "completion_tokens": text.count(" ") + 1}
            yield event({}, usage=usage | {"total_tokens": sum(usage.values())})
            yield "data: [DONE]\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    app.mount("/static", StaticFiles(directory=static), name="static")
    return app


def event(delta: dict[str, str], *, finish_reason: str | None = None, **more: object) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": int(time.time()), "choices": [choice]}
    return f"data: {json.dumps(chunk | more)}\n\n"


def refusal(status: int, message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=status)


if __name__ == "__main__":
    uvicorn.run(make_app(Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
