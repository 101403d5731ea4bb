"""Middleware that checks the host, API key, size, duration and content type of every request, and adds security headers
to every response.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from litgpt_core.serving.errors import error_body

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from litgpt_core.serving.settings import ServerSettings

OPEN_PATHS = ("/", "/health", "/favicon.ico")
OPEN_PREFIX = "/static/"
"""Paths that need no API key: the page itself, and the health check."""

SECURITY_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

BODY_S = 30.0
"""Seconds from the headers of a request to the end of its body."""


class Guard:
    """ASGI middleware; see the module docstring."""

    def __init__(self, app: ASGIApp, *, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings
        self._key = None if settings.api_key is None else settings.api_key.encode()
        self._hosts = {"localhost", "127.0.0.1", "[::1]", settings.host.lower(), *(h.lower() for h in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if problem := self._problem(scope):
            await _refuse(send, *problem)
            return
        left, complete = self._settings.max_body_bytes, False
        deadline = asyncio.get_running_loop().time() + BODY_S

        async def receive_bounded() -> Message:
            nonlocal left, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The body did not arrive within {BODY_S:g} s.") from None
            if message["type"] == "http.request":
                complete = not message.get("more_body", False)
                left -= len(message.get("body", b""))
                if left < 0:
                    raise HTTPException(413, self._too_large()[1])  # FastAPI does not wrap this exception
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *SECURITY_HEADERS]
            await send(message)

        await self._app(scope, receive_bounded, send_with_headers)

    def _problem(self, scope: Scope) -> tuple[int, str, str, str] | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._settings.is_private and name not in self._hosts:
            # DNS rebinding: a page on the internet whose name resolves to this machine must not reach the server
            return 403, "This server accepts requests to its own address only.", "permission_error", "wrong_host"
        path = scope["path"]
        is_open = path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
        if self._key is not None and not is_open:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
                return 401, "The API key is missing or wrong.", "authentication_error", "invalid_api_key"
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":  # also refuses everything that forms of other sites can send
                return 415, "The body must be application/json.", "invalid_request_error", "wrong_content_type"
            length = headers.get(b"content-length", b"0")
            if not length.isdigit() or int(length) > self._settings.max_body_bytes:
                return self._too_large()
        return None

    def _too_large(self) -> tuple[int, str, str, str]:
        limit = f"{self._settings.max_body_bytes:,}"
        return 413, f"The body is larger than {limit} bytes.", "invalid_request_error", "body_too_large"


async def _refuse(send: Send, status: int, message: str, kind: str, code: str) -> None:
    body = json.dumps(error_body(message, kind=kind, code=code)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *SECURITY_HEADERS]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
