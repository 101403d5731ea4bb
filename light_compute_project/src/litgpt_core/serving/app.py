"""The HTTP application: OpenAI's endpoints, a plain chat endpoint, ratings, runs, health, metrics, and the page.

request -> Guard (host, key, size) -> validation (schema) -> model (models)
        -> GenerationRequest (preparation, prompting) -> Worker.submit -> Job
        -> response, complete or streamed (responses) -> chat log, metrics
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from litgpt_core.core.errors import LightComputeError
from litgpt_core.runs.watching import MOST_CURVES, MOST_POINTS
from litgpt_core.serving.attention import AttentionRequest
from litgpt_core.serving.bodies import body_of
from litgpt_core.serving.endpoints import Server
from litgpt_core.serving.errors import on_error, on_http_error, on_invalid
from litgpt_core.serving.guard import Guard
from litgpt_core.serving.metrics import CONTENT_TYPE
from litgpt_core.serving.models import ModelPool
from litgpt_core.serving.schema import ChatRequest, CompletionRequest, MarkupRequest, PlainChatRequest, RatingRequest
from litgpt_core.serving.settings import ServerSettings

STATIC = Path(__file__).with_name("static")


def create_app(settings: ServerSettings, pool: ModelPool) -> FastAPI:
    """The application of one server; its lifespan loads the default model and stops the workers."""
    server = Server(settings, pool)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.get(None)
        yield
        server.close()
        await asyncio.to_thread(pool.close)

    app = FastAPI(title="Light Compute Project", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Guard, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],  # browsers' clients send headers of their own, such as X-Stainless-Lang
        )
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_error)
    app.add_exception_handler(LightComputeError, on_error)
    _add_routes(app, server)
    _add_run_routes(app, server)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _add_routes(app: FastAPI, server: Server) -> None:
    get, preparation = functools.partial(app.api_route, methods=["GET", "HEAD"]), server.preparation

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await server.chat(await body_of(ChatRequest, request, preparation), request)

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        return await server.complete(await body_of(CompletionRequest, request, preparation), request)

    @get("/v1/models")
    async def models() -> dict[str, Any]:
        return await server.models()

    @get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return await server.model(name)

    @get("/v1/settings")
    async def describe() -> dict[str, Any]:
        return server.describe()

    @app.post("/v1/ratings")
    async def rate(request: Request) -> Response:
        return await server.rate(await body_of(RatingRequest, request, preparation))

    @app.post("/v1/markup")
    async def markup(request: Request) -> dict[str, Any]:
        params = await body_of(MarkupRequest, request, preparation)
        return await server.markup.ask(params.model_dump())

    @app.post("/v1/attention")
    async def attention(request: Request) -> dict[str, Any]:
        return await server.attention.ask(await body_of(AttentionRequest, request, preparation))

    @app.post("/chat")
    async def plain_chat(request: Request) -> Response:
        return await server.plain_chat(await body_of(PlainChatRequest, request, preparation), request)

    @get("/stats")
    async def stats() -> dict[str, Any]:
        return await server.stats()

    @get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "model": server.pool.default}

    @get("/metrics")
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)

    @get("/")
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")


def _add_run_routes(app: FastAPI, server: Server) -> None:
    get = functools.partial(app.api_route, methods=["GET", "HEAD"])

    @get("/v1/runs")
    async def runs(since: str | None = None) -> dict[str, Any]:
        return await server.runs.listed(since=since)

    @get("/v1/runs/curves")
    async def curves(
        run: Annotated[list[str], Query(max_length=MOST_CURVES)],
        key: Annotated[list[str], Query(max_length=MOST_CURVES)] = [],  # noqa: B006
        x: str = "steps",
        points: Annotated[int, Query(ge=1, le=MOST_POINTS)] = 400,
        since: str | None = None,
    ) -> dict[str, Any]:
        return await server.runs.curves(run, keys=key, x=x, points=points, since=since)

    @get("/v1/runs/one")
    async def one_run(run: str) -> dict[str, Any]:
        return await server.runs.one(run)
