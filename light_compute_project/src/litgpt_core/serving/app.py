"""The HTTP application: OpenAI's endpoints, a plain chat, ratings, health, metrics, and the page.

request -> Guard (host, key, size) -> shape (schema) -> model (models) -> GenerationRequest (prompting)
        -> Worker.submit -> Job -> answer whole or streamed (answers) -> chat log, metrics
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from litgpt_core.core.errors import LightComputeError
from litgpt_core.generation.request import Delta, GenerationRequest
from litgpt_core.serving.answers import Answer
from litgpt_core.serving.chat_log import READY, ChatLog
from litgpt_core.serving.chat_memory import Exchange, KnownConversations, remember
from litgpt_core.serving.errors import error_body, on_error, on_http_error, on_invalid
from litgpt_core.serving.guard import Guard
from litgpt_core.serving.job import Job
from litgpt_core.serving.metrics import CONTENT_TYPE, ServerMetrics
from litgpt_core.serving.models import LoadedModel, ModelShelf
from litgpt_core.serving.prompting import chat_requests, completion_requests
from litgpt_core.serving.schema import (
    AnswerRequest,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    PlainChatRequest,
    RatingRequest,
)
from litgpt_core.serving.settings import ServerSettings
from litgpt_core.serving.worker import Busy

logger = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
PRESENT_S = 0.25
"""Seconds between two looks whether a client that waits for a whole answer is still there."""


class Server:
    """Everything that the endpoints share."""

    def __init__(self, settings: ServerSettings, shelf: ModelShelf) -> None:
        self.settings, self.shelf = settings, shelf
        self.metrics = ServerMetrics(shelf)
        self.log = None if settings.chat_log is None else ChatLog(settings.chat_log)
        self._answered = 0  # conversations of POST /chat where nothing is logged
        self._known = KnownConversations()

    # --- answering

    async def chat(self, asked: ChatRequest, request: Request) -> Response:
        """POST /v1/chat/completions."""
        model = await self.shelf.get(asked.model)
        answer = self._begin(chat_requests(asked, model, self.settings), model, asked, chat=True)
        return await self._respond(answer, asked, request)

    async def complete(self, asked: CompletionRequest, request: Request) -> Response:
        """POST /v1/completions."""
        model = await self.shelf.get(asked.model)
        requests = completion_requests(asked, model, self.settings)
        prefixes = []
        if asked.echo:
            decode = model.engine.tokenizer.decode
            prefixes = [asked.prompt if isinstance(asked.prompt, str) else decode(r.prompt_ids) for r in requests]
        answer = self._begin(requests, model, asked, chat=False)
        answer.prefixes = prefixes
        return await self._respond(answer, asked, request)

    async def plain_chat(self, asked: PlainChatRequest, request: Request) -> Response:
        """POST /chat: one message, one answer."""
        whole = ChatRequest(messages=[ChatMessage(role="user", content=asked.message)])
        model = await self.shelf.get(None)
        answer = self._begin(chat_requests(whole, model, self.settings), model, whole, chat=True)
        body = await self._while_present(answer, request)
        self._answered += 1
        text = body["choices"][0]["message"]["content"]
        return JSONResponse({"response": text, "chat_count": await self.chat_count()})

    def _begin(
        self, requests: Sequence[GenerationRequest], model: LoadedModel, asked: AnswerRequest, *, chat: bool
    ) -> Answer:
        deadline = time.monotonic() + self.settings.timeout_s
        jobs: list[Job] = []
        try:
            for one in requests:
                job = Job(request=one, deadline=deadline)
                model.worker.submit(job)
                jobs.append(job)
        except Exception as problem:
            for job in jobs:
                job.cancel()
            reason = "queue_full" if isinstance(problem, Busy) else "error"
            self.metrics.refused(model=model.found.name, reason=reason)
            raise

        async def on_finish(deltas: Sequence[Delta]) -> str | None:
            if isinstance(asked, ChatRequest) and len(deltas) == 1:
                return await self._remember(asked, deltas[0], model, requests[0])
            return None

        usage = asked.stream_options is not None and asked.stream_options.include_usage
        return Answer(model=model, jobs=jobs, chat=chat, on_finish=on_finish, with_usage=usage)

    async def _respond(self, answer: Answer, asked: AnswerRequest, request: Request) -> Response:
        if asked.stream:
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamingResponse(self._counted(answer), media_type="text/event-stream", headers=headers)
        return JSONResponse(await self._while_present(answer, request))

    async def _counted(self, answer: Answer) -> AsyncIterator[bytes]:
        """The events; when the client has gone, the work stops."""
        try:
            async for event in answer.events():
                yield event
        finally:
            self._count(answer)

    async def _while_present(self, answer: Answer, request: Request) -> dict[str, Any]:
        """The whole answer, unless the client goes away before it is there."""
        task = asyncio.ensure_future(answer.whole())
        try:
            while True:
                done, _ = await asyncio.wait([task], timeout=PRESENT_S)
                if done:
                    return task.result()
                if await request.is_disconnected():
                    raise HTTPException(499, "The client has gone.")
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
            self._count(answer)

    def _count(self, answer: Answer) -> None:
        now = time.monotonic()
        for job in answer.jobs:
            job.cancel()
            self.metrics.count(job, model=answer.model.found.name, now=now)

    # --- the log

    async def _remember(
        self, asked: ChatRequest, delta: Delta, model: LoadedModel, request: GenerationRequest
    ) -> str | None:
        """Append a finished exchange; returns its id."""
        messages = [(message.role, message.text) for message in asked.messages]
        if self.log is None or messages[-1][0] != "user" or not delta.text.strip():
            return None
        sampling = {key: value for key, value in vars(request.sampling).items() if value is not None}
        settings = {**sampling, "max_tokens": request.max_new_tokens, "seed": request.seed}
        exchange = Exchange(
            messages=messages,
            answer=delta.text,
            model=model.found.name,
            settings=settings,
            conversation_id=asked.conversation_id,
            turn=asked.turn,
        )
        try:
            return await asyncio.to_thread(remember, exchange, log=self.log, known=self._known)
        except OSError as problem:  # the answer is there all the same
            logger.warning("The chat log cannot be written: %s", problem.strerror or problem)
            return None

    async def chat_count(self) -> int:
        """Conversations so far."""
        return self._answered if self.log is None else await asyncio.to_thread(lambda log: log.conversations, self.log)

    async def rate(self, asked: RatingRequest) -> Response:
        """POST /v1/ratings."""
        if self.log is None or not await asyncio.to_thread(self.log.rate, asked.id, asked.rating):
            message = "There is no such exchange in the chat log."
            body = error_body(message, kind="invalid_request_error", param="id", code="unknown_exchange")
            return JSONResponse(body, status_code=404)
        return JSONResponse({"ok": True})

    # --- what there is

    async def models(self) -> dict[str, Any]:
        """GET /v1/models."""
        return {
            "object": "list",
            "data": [
                {
                    "id": facts.name,
                    "object": "model",
                    "created": int(facts.modified),
                    "owned_by": "light-compute",
                    "loaded": facts.loaded,
                    "chat": facts.chat,
                    "parameters": facts.parameters,
                    "context_length": facts.context_length,
                }
                for facts in await self.shelf.all()
            ],
        }

    def describe(self) -> dict[str, Any]:
        """GET /v1/settings."""
        s = self.settings
        defaults = {
            "temperature": s.sampling.temperature,
            "top_k": s.sampling.top_k or 0,
            "top_p": s.sampling.top_p,
            "min_p": s.sampling.min_p,
            "repetition_penalty": s.sampling.repetition_penalty,
            "max_tokens": s.default_tokens,
        }
        return {
            "default_model": self.shelf.default,
            "max_tokens": s.max_tokens,
            "max_prompt_chars": s.max_prompt_chars,
            "logging": self.log is not None,
            "defaults": defaults,
        }


def create_app(settings: ServerSettings, shelf: ModelShelf) -> FastAPI:
    """The application of one server; its lifespan loads the default model and ends the workers."""
    server = Server(settings, shelf)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await shelf.get(None)
        yield
        await asyncio.to_thread(shelf.close)

    app = FastAPI(title="Light Compute Project", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Guard, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_error)
    app.add_exception_handler(LightComputeError, on_error)
    _add_routes(app, server)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _add_routes(app: FastAPI, server: Server) -> None:
    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        return await server.chat(asked, request)

    @app.post("/v1/completions")
    async def complete(asked: CompletionRequest, request: Request) -> Response:
        return await server.complete(asked, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return await server.models()

    @app.get("/v1/settings")
    async def describe() -> dict[str, Any]:
        return server.describe()

    @app.post("/v1/ratings")
    async def rate(asked: RatingRequest) -> Response:
        return await server.rate(asked)

    @app.post("/chat")
    async def plain_chat(asked: PlainChatRequest, request: Request) -> Response:
        return await server.plain_chat(asked, request)

    @app.get("/stats")
    async def stats() -> dict[str, Any]:
        count = await server.chat_count()
        return {"chat_count": count, "ready_for_finetuning": count >= READY}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": server.shelf.default}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")
