"""Builds responses in OpenAI's format from jobs, complete or streamed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from litgpt_core.generation.request import Delta, join_deltas
from litgpt_core.serving.errors import describe
from litgpt_core.serving.job import Job

if TYPE_CHECKING:
    from litgpt_core.generation.request import TokenLogprob
    from litgpt_core.serving.models import LoadedModel
    from litgpt_core.tokenizers.base import Tokenizer

Finished = Callable[[Sequence[Delta]], Awaitable[str | None]]
"""Called with the complete choices when all have ended; may return the id of the logged exchange."""


@dataclass(kw_only=True)
class CompletionResponse:
    """The response to one request while its choices are being generated."""

    model: LoadedModel
    jobs: list[Job]
    chat: bool
    """Whether it is a chat completion or a plain one."""
    on_finish: Finished
    prefixes: list[str] = field(default_factory=list)
    """Prepended to each text (`echo`)."""
    with_usage: bool = False
    """End a stream with the token usage."""
    asked_tokens: int | None = None
    """`max_tokens` of the request."""
    turns_left_out: int = 0
    """Oldest turns of the conversation that are not in the prompt."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    async def complete(self) -> dict[str, Any]:
        """The complete response as one JSON object."""
        results = [asyncio.ensure_future(job.result()) for job in self.jobs]
        try:
            deltas = await asyncio.gather(*results)
        finally:  # if one fails, do not leave the others waiting
            for result in results:
                result.cancel()
            await asyncio.gather(*results, return_exceptions=True)
        exchange = await self.on_finish(deltas)
        choices = [self._choice(index, delta) for index, delta in enumerate(deltas)]
        body = self._frame("chat.completion" if self.chat else "text_completion", choices)
        body["usage"] = self._usage()
        if exchange is not None:
            body["exchange_id"] = exchange
        return body

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events; an error after the start is an event too, because the status has been sent."""
        try:
            async for body in self._bodies():
                yield _event(body)
        except Exception as problem:
            yield _event(describe(problem)[1])
        yield b"data: [DONE]\n\n"

    async def _bodies(self) -> AsyncIterator[dict[str, Any]]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        if self.chat:
            for index in range(len(self.jobs)):
                yield self._frame(kind, [self._first_choice(index, {"role": "assistant", "content": ""})])
        got: list[list[Delta]] = [[] for _ in self.jobs]
        offsets, ended = [0] * len(self.jobs), 0
        async for index, delta in merged([job.deltas() for job in self.jobs]):
            before = "" if self.chat or got[index] or not self.prefixes else self.prefixes[index]
            got[index].append(delta)
            body = self._frame(kind, [self._stream_choice(index, delta, before=before, offset=offsets[index])])
            offsets[index] += len(delta.text)
            ended += delta.finish_reason is not None
            if ended == len(self.jobs):
                exchange = await self.on_finish([join_deltas(deltas) for deltas in got])
                if exchange is not None:
                    body["exchange_id"] = exchange
            yield body
        if self.with_usage:
            yield self._frame(kind, []) | {"usage": self._usage()}

    # --- shapes

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        full_id = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"
        name = self.model.found.name
        return {"id": full_id, "object": kind, "created": self.created, "model": name, "choices": choices}

    def _first_choice(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _stream_choice(self, index: int, delta: Delta, *, before: str, offset: int) -> dict[str, Any]:
        logprobs = self._logprobs(delta, offset=offset)
        if not self.chat:
            text = before + delta.text
            return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": delta.finish_reason}
        content = {"content": delta.text} if delta.text else {}
        return {"index": index, "delta": content, "logprobs": logprobs, "finish_reason": delta.finish_reason}

    def _choice(self, index: int, delta: Delta) -> dict[str, Any]:
        rest = {"logprobs": self._logprobs(delta), "finish_reason": delta.finish_reason}
        if self.chat:
            return {"index": index, "message": {"role": "assistant", "content": delta.text}, **rest}
        before = self.prefixes[index] if self.prefixes else ""
        return {"index": index, "text": before + delta.text, **rest}

    def _usage(self) -> dict[str, Any]:
        """OpenAI's fields; also what was clamped or left out, if anything."""
        prompts = {id(job.request.prompt_ids): len(job.request.prompt_ids) for job in self.jobs}  # once for all n
        prompt, new = sum(prompts.values()), sum(job.new_tokens for job in self.jobs)
        usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
        if reused := sum({id(job.request.prompt_ids): job.reused_tokens for job in self.jobs}.values()):
            usage["prompt_tokens_details"] = {"cached_tokens": reused}
        if drafted := sum(job.drafted_tokens for job in self.jobs):
            accepted = sum(job.accepted_tokens for job in self.jobs)
            details = {"accepted_prediction_tokens": accepted, "rejected_prediction_tokens": drafted - accepted}
            usage["completion_tokens_details"] = details
        limit = self.jobs[0].request.max_new_tokens
        if self.asked_tokens is not None and self.asked_tokens > limit:
            usage |= {"max_tokens": limit, "max_tokens_requested": self.asked_tokens}
        if self.turns_left_out:
            usage["turns_left_out"] = self.turns_left_out
        return usage

    def _logprobs(self, delta: Delta, *, offset: int = 0) -> dict[str, Any] | None:
        if not delta.logprobs:
            return None
        tokenizer = self.model.engine.tokenizer
        if self.chat:
            return {"content": [_chat_logprob(value, tokenizer) for value in delta.logprobs], "refusal": None}
        return _completion_logprobs(delta.logprobs, tokenizer, offset=offset)


async def merged(streams: Sequence[AsyncIterator[Delta]]) -> AsyncIterator[tuple[int, Delta]]:
    """Deltas of several choices with their index, as they arrive; the first error ends all."""
    if len(streams) == 1:  # the usual case needs no tasks
        async with contextlib.aclosing(streams[0]) as only:  # type: ignore[type-var]
            async for part in only:
                yield 0, part
        return
    waiting = {asyncio.ensure_future(anext(stream, None)): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                index = waiting.pop(future)
                delta = future.result()
                if delta is not None:
                    waiting[asyncio.ensure_future(anext(streams[index], None))] = index
                    yield index, delta
    finally:
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _token_bytes(token_id: int, tokenizer: Tokenizer) -> bytes:
    data = tokenizer.token_bytes(token_id)
    return tokenizer.decode([token_id]).encode() if data is None else data


def _chat_logprob(value: TokenLogprob, tokenizer: Tokenizer) -> dict[str, Any]:
    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        data = _token_bytes(token_id, tokenizer)
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}

    top = [entry(token_id, logprob) for token_id, logprob in value.top]
    return entry(value.token_id, value.logprob) | {"top_logprobs": top}


def _completion_logprobs(values: Sequence[TokenLogprob], tokenizer: Tokenizer, *, offset: int) -> dict[str, Any]:
    texts = [_token_bytes(value.token_id, tokenizer).decode(errors="replace") for value in values]
    offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
    top = [
        {_token_bytes(token_id, tokenizer).decode(errors="replace"): logprob for token_id, logprob in value.top}
        for value in values
    ]
    logprobs = [value.logprob for value in values]
    return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets}
