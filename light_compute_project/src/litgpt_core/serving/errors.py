"""Converts errors to OpenAI's format. Messages never contain a path of this machine."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from litgpt_core.core.errors import ConfigError, LightComputeError, TokenizerError
from litgpt_core.serving.job import Stopped, TimedOut
from litgpt_core.serving.models import ModelBroken, UnknownModel
from litgpt_core.serving.worker import Busy

logger = logging.getLogger(__name__)


class TooLong(LightComputeError):
    """The prompt exceeds the context window or a limit of the server."""


_KINDS: tuple[tuple[type[LightComputeError], int, str, str | None], ...] = (
    (UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (TooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (Busy, 429, "rate_limit_error", "queue_full"),
    (ModelBroken, 500, "server_error", "model_broken"),
    (TimedOut, 504, "timeout_error", "timeout"),
    (Stopped, 503, "server_error", "shutting_down"),
    (ConfigError, 400, "invalid_request_error", None),
    (TokenizerError, 400, "invalid_request_error", "unencodable_text"),
)
"""Errors whose message is sent to clients, with status, type and code. All others become an internal error."""

_STATUS_CODES = {413: "body_too_large", 499: "client_gone"}
_STATUS_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's format."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe(error: BaseException) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for an error."""
    for kind, status, type_name, code in _KINDS:
        if isinstance(error, kind):
            message = error.given + (f" Needed: {error.needed}." if error.needed else "")
            headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else {}
            return status, error_body(message, kind=type_name, code=code), headers
    logger.error("A request failed: %s: %s", type(error).__name__, error, exc_info=error)
    given = "The model could not answer this request; see the server's log."
    return 500, error_body(given, kind="server_error", code="internal_error"), {}


async def on_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of all exceptions raised in a request."""
    status, body, headers = describe(error)
    return JSONResponse(body, status_code=status, headers=headers)


async def on_http_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of Starlette's own errors: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)
    kind = _STATUS_TYPES.get(error.status_code, "invalid_request_error")
    body = error_body(str(error.detail), kind=kind, code=_STATUS_CODES.get(error.status_code))
    return JSONResponse(body, status_code=error.status_code, headers=dict(error.headers or {}))


async def on_invalid(_: Request, error: Exception) -> JSONResponse:
    """Handler of requests that do not match `schema`: names the first invalid field."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(place) or None
    message = f"{param or 'The body'}: {first['msg']}" + (
        f" (and {len(error.errors()) - 1} more problems)" if len(error.errors()) > 1 else ""
    )
    return JSONResponse(error_body(message, kind="invalid_request_error", param=param), status_code=400)
