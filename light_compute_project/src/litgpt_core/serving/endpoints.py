"""What the endpoints of `app` do: generation, the chat log, ratings, models, settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from litgpt_core.generation.request import Delta, GenerationRequest
from litgpt_core.serving.attention import AttentionAnswers
from litgpt_core.serving.chat_log import ExchangeLog, LogFull
from litgpt_core.serving.conversation_tracking import Exchange, RecentConversations, log_exchange
from litgpt_core.serving.errors import error_body
from litgpt_core.serving.job import Job
from litgpt_core.serving.markup_process import MarkupProcess
from litgpt_core.serving.metrics import ServerMetrics
from litgpt_core.serving.model_facts import ModelFacts
from litgpt_core.serving.models import LoadedModel, ModelPool
from litgpt_core.serving.preparation import Preparation
from litgpt_core.serving.prompting import (
    asked_tokens,
    chat_requests,
    check_messages,
    completion_requests,
    conversation_of,
)
from litgpt_core.serving.readiness import Readiness
from litgpt_core.serving.responses import CompletionResponse
from litgpt_core.serving.run_pages import RunPages
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
        self.preparation = Preparation(most_waiting=settings.slots + settings.queue)
        self._readiness = Readiness(settings.chat_log)
        self.markup = MarkupProcess()
        self.attention = AttentionAnswers(pool, settings)
        self.runs = RunPages(settings.shown_runs, models=pool.found)

    # --- generation

    async def chat(self, params: ChatRequest, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await self._respond(await self._begin_chat(params), params, request)

    async def _begin_chat(self, params: ChatRequest) -> CompletionResponse:
        deadline, chars = self._deadline(), check_messages(params, self.settings)
        model = await self.pool.get(params.model)
        requests, left_out = await self.preparation.run(
            lambda: chat_requests(params, model, self.settings), chars=chars, deadline=deadline
        )
        answer = self._begin(requests, model, params, chat=True, deadline=deadline)
        answer.turns_left_out = left_out
        return answer

    async def complete(self, params: CompletionRequest, request: Request) -> Response:
        """POST /v1/completions."""
        deadline = self._deadline()
        model = await self.pool.get(params.model)

        def prepare() -> tuple[list[GenerationRequest], list[str]]:
            requests = completion_requests(params, model, self.settings)
            if not params.echo:
                return requests, []
            given, decode = params.prompt, model.engine.tokenizer.decode
            return requests, [given if isinstance(given, str) else decode(one.prompt_ids) for one in requests]

        prompts = params.prompt if isinstance(params.prompt, list) else [params.prompt]
        chars = sum(1 if isinstance(prompt, int) else len(prompt) for prompt in prompts)
        requests, prefixes = await self.preparation.run(prepare, chars=chars, deadline=deadline)
        answer = self._begin(requests, model, params, chat=False, deadline=deadline)
        answer.prefixes = prefixes
        return await self._respond(answer, params, request)

    async def plain_chat(self, params: PlainChatRequest, request: Request) -> Response:
        """POST /chat: one message, one answer."""
        chat = ChatRequest(messages=[ChatMessage(role="user", content=params.message)])
        body = await self._until_disconnect(await self._begin_chat(chat), request)
        self._n_answered += 1
        text = body["choices"][0]["message"]["content"]
        return JSONResponse({"response": text, "chat_count": await self.chat_count()})

    def _deadline(self) -> float:
        return time.monotonic() + self.settings.timeout_s

    def _begin(
        self,
        requests: Sequence[GenerationRequest],
        model: LoadedModel,
        params: GenerationParams,
        *,
        chat: bool,
        deadline: float,
    ) -> CompletionResponse:
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

        usage = params.stream_options is not None and bool(params.stream_options.include_usage)
        return CompletionResponse(
            model=model,
            jobs=jobs,
            chat=chat,
            on_finish=on_finish,
            with_usage=usage,
            asked_tokens=asked_tokens(params),
        )

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
        conversation, begun = conversation_of(params)
        messages = [(message.role, message.content) for message in conversation]
        if self.log is None or messages[-1][0] != "user" or not delta.text.strip():
            return None
        sampling = {key: value for key, value in vars(request.sampling).items() if value is not None}
        settings = {**sampling, "max_tokens": request.max_new_tokens, "seed": request.seed}
        exchange = Exchange(
            messages=messages,
            answer=begun + delta.text,
            model=model.found.name,
            settings=settings,
            conversation_id=params.conversation_id,
            turn=params.turn,
        )
        try:
            return await asyncio.to_thread(log_exchange, exchange, log=self.log, known=self._known)
        except LogFull:  # which it has logged; the response is still sent
            return None
        except OSError as problem:
            logger.warning("The chat log cannot be written: %s", problem.strerror or problem)
            return None

    async def chat_count(self) -> int:
        """Conversations so far."""
        return (
            self._n_answered if self.log is None else await asyncio.to_thread(lambda log: log.conversations, self.log)
        )

    async def rate(self, params: RatingRequest) -> Response:
        """POST /v1/ratings."""
        try:
            known = self.log is not None and await asyncio.to_thread(self.log.rate, params.id, params.rating)
        except OSError as problem:
            logger.warning("The chat log cannot be written: %s", problem.strerror or problem)
            body = error_body("The chat log cannot be written.", kind="server_error", code="log_not_writable")
            return JSONResponse(body, status_code=503)
        if not known:
            message = "There is no such exchange in the chat log."
            body = error_body(message, kind="invalid_request_error", param="id", code="unknown_exchange")
            return JSONResponse(body, status_code=404)
        return JSONResponse({"ok": True})

    # --- models and settings

    async def models(self) -> dict[str, Any]:
        """GET /v1/models."""
        return {"object": "list", "data": [_described(facts) for facts in await self.pool.all()]}

    async def model(self, name: str) -> dict[str, Any]:
        """GET /v1/models/NAME."""
        return _described(await self.pool.one(name))

    async def stats(self) -> dict[str, Any]:
        """GET /stats: ready when fine-tuning on the log would start, by the trainer's own counting."""
        count, ready = await self.chat_count(), await self._readiness.is_ready()
        return {"chat_count": count, "ready_for_finetuning": ready}

    def close(self) -> None:
        """Start no more work."""
        self.preparation.close()
        self._readiness.close()
        self.runs.close()
        self.markup.close()
        self.attention.close()

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
            "max_messages": s.max_messages,
            "logging": self.log is not None and not self.log.is_full,
            "runs": s.shown_runs is not None,
            "defaults": defaults,
        }


def _described(facts: ModelFacts) -> dict[str, Any]:
    return {
        "id": facts.name,
        "object": "model",
        "created": int(facts.modified),
        "owned_by": "light-compute",
        "loaded": facts.loaded,
        "chat": facts.chat,
        "parameters": facts.parameters,
        "context_length": facts.context_length,
        "suggestions": list(facts.suggestions),
    }
