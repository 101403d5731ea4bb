"""Converts errors to OpenAI's format. Messages never contain a path of this machine."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from litgpt_core.core.errors import ConfigError, LightComputeError, TokenizerError
from litgpt_core.prompts.template_process import ChatTemplateError, ChatTemplateRefusal
from litgpt_core.runs.watching import UnknownRun
from litgpt_core.serving.job import Stopped, TimedOut
from litgpt_core.serving.markup_process import TooSlow
from litgpt_core.serving.models import ModelBroken, UnknownModel
from litgpt_core.serving.run_pages import RunsHidden
from litgpt_core.serving.worker import Busy

logger = logging.getLogger(__name__)


class TooLong(LightComputeError):
    """The prompt exceeds the context window or a limit of the server."""


class InvalidField(LightComputeError):
    """A field has a value outside the server's limits.

    Attributes:
        param: The field's name.
    """

    def __init__(self, given: str, *, param: str, needed: str = "") -> None:
        super().__init__(given, needed=needed)
        self.param = param


_KINDS: tuple[tuple[type[LightComputeError], int, str, str | None], ...] = (
    (UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (UnknownRun, 404, "invalid_request_error", "run_not_found"),
    (RunsHidden, 404, "invalid_request_error", "runs_hidden"),
    (TooSlow, 400, "invalid_request_error", "markup_too_slow"),
    (TooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (Busy, 429, "rate_limit_error", "queue_full"),
    (ModelBroken, 500, "server_error", "model_broken"),
    (TimedOut, 504, "timeout_error", "timeout"),
    (Stopped, 503, "server_error", "shutting_down"),
    (ChatTemplateRefusal, 400, "invalid_request_error", "chat_template_refused"),
    (ChatTemplateError, 500, "server_error", "chat_template_failed"),
    (InvalidField, 400, "invalid_request_error", None),
    (ConfigError, 400, "invalid_request_error", None),
    (TokenizerError, 400, "invalid_request_error", "unencodable_text"),
)
"""Errors whose message is sent to clients, with status, type and code. All others become an internal error."""

_PARAMS: dict[type[LightComputeError], str] = {
    UnknownModel: "model",
    UnknownRun: "run",
    ChatTemplateRefusal: "messages",
}

_STATUS_CODES = {408: "body_too_slow", 413: "body_too_large", 499: "client_gone"}
_STATUS_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's format."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe(error: BaseException) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for an error."""
    for kind, status, type_name, code in _KINDS:
        if isinstance(error, kind):
            message = _without_paths(error) + (f" Needed: {error.needed}." if error.needed else "")
            param = error.param if isinstance(error, InvalidField) else _PARAMS.get(kind)
            headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else {}
            return status, error_body(message, kind=type_name, code=code, param=param), headers
    logger.error("A request failed: %s: %s", type(error).__name__, error, exc_info=error)
    given = "The model could not answer this request; see the server's log."
    return 500, error_body(given, kind="server_error", code="internal_error"), {}


def _without_paths(error: LightComputeError) -> str:
    """The error's first sentence; of a chat template without the folder of its file."""
    if isinstance(error, ChatTemplateError | ChatTemplateRefusal):
        return re.sub(r" in .*?([^/\\]+) (fails|refuses|leaves)", r" in \1 \2", error.given, count=1)
    return error.given


async def on_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of all exceptions raised in a request."""
    status, body, headers = describe(error)
    return SafeJSONResponse(body, status_code=status, headers=headers)


async def on_http_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of Starlette's own errors: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)
    kind = _STATUS_TYPES.get(error.status_code, "invalid_request_error")
    body = error_body(str(error.detail), kind=kind, code=_STATUS_CODES.get(error.status_code))
    return SafeJSONResponse(body, status_code=error.status_code, headers=dict(error.headers or {}))


async def on_invalid(_: Request, error: Exception) -> JSONResponse:
    """Handler of requests that do not match `schema`: names the first invalid field, and the place in broken JSON."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    context = first.get("ctx") or {}
    if first["type"] == "json_invalid":
        reason = context.get("error", "it cannot be read")
        message = f"The body is not valid JSON: {reason}, at character {first['loc'][-1]}."
        return SafeJSONResponse(error_body(message, kind="invalid_request_error", code="invalid_json"), status_code=400)
    place = [str(part) for part in first["loc"] if part not in ("body", "query")]
    place += [str(context["field"])] if first["type"] == "unsupported_field" else []
    param = ".".join(place) or None
    message = f"{param or 'The body'}: {first['msg'].removeprefix('Value error, ')}" + (
        f" (and {len(error.errors()) - 1} more problems)" if len(error.errors()) > 1 else ""
    )
    code = "unsupported_field" if first["type"] == "unsupported_field" else None
    body = error_body(message, kind="invalid_request_error", param=param, code=code)
    return SafeJSONResponse(body, status_code=400)


class SafeJSONResponse(JSONResponse):
    """JSON in ASCII: a lone surrogate of a request can be repeated in an answer."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
