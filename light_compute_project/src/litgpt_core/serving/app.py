"""The HTTP application: OpenAI's endpoints, a plain chat endpoint, ratings, health, metrics, and the chat page.

request -> Guard (host, key, size) -> validation (schema) -> model (models) -> GenerationRequest (prompting)
        -> Worker.submit -> Job -> response, complete or streamed (responses) -> chat log, metrics
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
from litgpt_core.serving.chat_log import READY, ExchangeLog
from litgpt_core.serving.conversation_tracking import Exchange, RecentConversations, log_exchange
from litgpt_core.serving.errors import error_body, on_error, on_http_error, on_invalid
from litgpt_core.serving.guard import Guard
from litgpt_core.serving.job import Job
from litgpt_core.serving.metrics import CONTENT_TYPE, ServerMetrics
from litgpt_core.serving.models import LoadedModel, ModelPool
from litgpt_core.serving.prompting import chat_requests, completion_requests
from litgpt_core.serving.responses import CompletionResponse
from litgpt_core.serving.schema import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    GenerationParams,
    PlainChatRequest,
    RatingRequest,
)
from litgpt_core.serving.settings import ServerSettings
from litgpt_core.serving.worker import Busy

logger = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
DISCONNECT_CHECK_S = 0.25
"""Seconds between two checks whether the client of a complete (not streamed) response is still connected."""


class Server:
    """The state shared by the endpoints."""

    def __init__(self, settings: ServerSettings, pool: ModelPool) -> None:
        self.settings, self.pool = settings, pool
        self.metrics = ServerMetrics(pool)
        self.log = None if settings.chat_log is None else ExchangeLog(settings.chat_log)
        self._n_answered = 0  # conversations of POST /chat if the chat log is disabled
        self._known = RecentConversations()

    # --- generation

    async def chat(self, params: ChatRequest, request: Request) -> Response:
        """POST /v1/chat/completions."""
        model = await self.pool.get(params.model)
        answer = self._begin(chat_requests(params, model, self.settings), model, params, chat=True)
        return await self._respond(answer, params, request)

    async def complete(self, params: CompletionRequest, request: Request) -> Response:
        """POST /v1/completions."""
        model = await self.pool.get(params.model)
        requests = completion_requests(params, model, self.settings)
        prefixes = []
        if params.echo:
            decode = model.engine.tokenizer.decode
            prefixes = [params.prompt if isinstance(params.prompt, str) else decode(r.prompt_ids) for r in requests]
        answer = self._begin(requests, model, params, chat=False)
        answer.prefixes = prefixes
        return await self._respond(answer, params, request)

    async def plain_chat(self, params: PlainChatRequest, request: Request) -> Response:
        """POST /chat: one message, one answer."""
        chat = ChatRequest(messages=[ChatMessage(role="user", content=params.message)])
        model = await self.pool.get(None)
        answer = self._begin(chat_requests(chat, model, self.settings), model, chat, chat=True)
        body = await self._until_disconnect(answer, request)
        self._n_answered += 1
        text = body["choices"][0]["message"]["content"]
        return JSONResponse({"response": text, "chat_count": await self.chat_count()})

    def _begin(
        self, requests: Sequence[GenerationRequest], model: LoadedModel, params: GenerationParams, *, chat: bool
    ) -> CompletionResponse:
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
            if isinstance(params, ChatRequest) and len(deltas) == 1:
                return await self._log_exchange(params, deltas[0], model, requests[0])
            return None

        usage = params.stream_options is not None and params.stream_options.include_usage
        return CompletionResponse(model=model, jobs=jobs, chat=chat, on_finish=on_finish, with_usage=usage)

    async def _respond(self, answer: CompletionResponse, params: GenerationParams, request: Request) -> Response:
        if params.stream:
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamingResponse(self._counted(answer), media_type="text/event-stream", headers=headers)
        return JSONResponse(await self._until_disconnect(answer, request))

    async def _counted(self, answer: CompletionResponse) -> AsyncIterator[bytes]:
        """The events; cancels the jobs when the client disconnects."""
        try:
            async for event in answer.events():
                yield event
        finally:
            self._count(answer)

    async def _until_disconnect(self, answer: CompletionResponse, request: Request) -> dict[str, Any]:
        """The complete response, unless the client disconnects before."""
        task = asyncio.ensure_future(answer.complete())
        try:
            while True:
                done, _ = await asyncio.wait([task], timeout=DISCONNECT_CHECK_S)
                if done:
                    return task.result()
                if await request.is_disconnected():
                    raise HTTPException(499, "The client has disconnected.")
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
            self._count(answer)

    def _count(self, answer: CompletionResponse) -> None:
        now = time.monotonic()
        for job in answer.jobs:
            job.cancel()
            self.metrics.count(job, model=answer.model.found.name, now=now)

    # --- the log

    async def _log_exchange(
        self, params: ChatRequest, delta: Delta, model: LoadedModel, request: GenerationRequest
    ) -> str | None:
        """Append a finished exchange; returns its id."""
        messages = [(message.role, message.text) for message in params.messages]
        if self.log is None or messages[-1][0] != "user" or not delta.text.strip():
            return None
        sampling = {key: value for key, value in vars(request.sampling).items() if value is not None}
        settings = {**sampling, "max_tokens": request.max_new_tokens, "seed": request.seed}
        exchange = Exchange(
            messages=messages,
            answer=delta.text,
            model=model.found.name,
            settings=settings,
            conversation_id=params.conversation_id,
            turn=params.turn,
        )
        try:
            return await asyncio.to_thread(log_exchange, exchange, log=self.log, known=self._known)
        except OSError as problem:  # the response is still sent
            logger.warning("The chat log cannot be written: %s", problem.strerror or problem)
            return None

    async def chat_count(self) -> int:
        """Conversations so far."""
        return (
            self._n_answered if self.log is None else await asyncio.to_thread(lambda log: log.conversations, self.log)
        )

    async def rate(self, params: RatingRequest) -> Response:
        """POST /v1/ratings."""
        if self.log is None or not await asyncio.to_thread(self.log.rate, params.id, params.rating):
            message = "There is no such exchange in the chat log."
            body = error_body(message, kind="invalid_request_error", param="id", code="unknown_exchange")
            return JSONResponse(body, status_code=404)
        return JSONResponse({"ok": True})

    # --- models and settings

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
                for facts in await self.pool.all()
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
            "default_model": self.pool.default,
            "max_tokens": s.max_tokens,
            "max_prompt_chars": s.max_prompt_chars,
            "logging": self.log is not None,
            "defaults": defaults,
        }


def create_app(settings: ServerSettings, pool: ModelPool) -> FastAPI:
    """The application of one server; its lifespan loads the default model and stops the workers."""
    server = Server(settings, pool)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.get(None)
        yield
        await asyncio.to_thread(pool.close)

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
    async def chat(params: ChatRequest, request: Request) -> Response:
        return await server.chat(params, request)

    @app.post("/v1/completions")
    async def complete(params: CompletionRequest, request: Request) -> Response:
        return await server.complete(params, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return await server.models()

    @app.get("/v1/settings")
    async def describe() -> dict[str, Any]:
        return server.describe()

    @app.post("/v1/ratings")
    async def rate(params: RatingRequest) -> Response:
        return await server.rate(params)

    @app.post("/chat")
    async def plain_chat(params: PlainChatRequest, request: Request) -> Response:
        return await server.plain_chat(params, request)

    @app.get("/stats")
    async def stats() -> dict[str, Any]:
        count = await server.chat_count()
        return {"chat_count": count, "ready_for_finetuning": count >= READY}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": server.pool.default}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")
