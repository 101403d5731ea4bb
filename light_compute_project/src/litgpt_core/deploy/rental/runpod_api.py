"""RunPod's REST API, as far as a rental needs it: list, make, look at and delete pods. Standard library only.

https://rest.runpod.io/v1, docs.runpod.io/api-reference. Reading and deleting are repeated after 429 and server errors.
Making is not: a request that was not answered may have made a pod, so the caller looks for it by its name.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.parsing import ParsingError, parse_json
from litgpt_core.deploy.rental.provider import ProviderProblem, Refused

ADDRESS = "https://rest.runpod.io/v1"
ADDRESS_VARIABLE = "LIGHT_COMPUTE_RUNPOD_ADDRESS"
"""Environment variable: another address of the API, such as a server on this machine."""
KEY_VARIABLE = "RUNPOD_API_KEY"
TRIES = 5
TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 20_000_000
_AGAIN = {429, 500, 502, 503, 504}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key goes to one address only."""

    def redirect_request(self, *given: Any) -> None:
        """Never: the answer counts as an error."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class UnansweredRequest(ProviderProblem):
    """The request was sent, and nobody knows whether it was carried out."""


class RunPodAPI:
    """Requests with one key.

    Args:
        key: Of the account; never logged.
        address: Of the API.
        pause: Waits between tries, seconds.

    Raises:
        EnvironmentProblem: There is no key, or it would be sent unencrypted to another machine.
    """

    def __init__(
        self, key: str | None = None, *, address: str | None = None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._key = key or os.environ.get(KEY_VARIABLE, "")
        self._address = (address or os.environ.get(ADDRESS_VARIABLE) or ADDRESS).rstrip("/")
        self._pause = pause
        parts = urllib.parse.urlsplit(self._address)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise EnvironmentProblem(
                f"{self._address} is not encrypted", needed="an https:// address", fix=f"unset {ADDRESS_VARIABLE}"
            )
        if not self._key:
            raise EnvironmentProblem(
                f"{KEY_VARIABLE} is not set",
                needed="a key of your RunPod account, in the environment",
                fix=f"export {KEY_VARIABLE}",
            )

    def pods(self) -> list[dict[str, Any]]:
        """All pods of the account, stopped ones included."""
        found = self._repeated("GET", "/pods")
        if not isinstance(found, list) or not all(isinstance(pod, dict) and "id" in pod for pod in found):
            raise ProviderProblem("RunPod's list of pods is not understood", needed="a list of objects with `id`")
        return found

    def pod(self, number: str) -> dict[str, Any] | None:
        """One pod; None if there is none of this number."""
        found = self._repeated("GET", f"/pods/{urllib.parse.quote(number, safe='')}", absent_is_none=True)
        return found if isinstance(found, dict) else None

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a pod.

        Raises:
            UnansweredRequest: It may have been made.
            Refused: There is no such machine now.
            ProviderProblem: It was refused.
        """
        status, answer = self._once("POST", "/pods", body)
        if status in (200, 201) and isinstance(answer, dict) and answer.get("id"):
            return answer
        said = _said(answer)
        if status in _AGAIN - {429}:
            if _is_capacity(said):
                raise Refused(f"RunPod has no such machine now: {said}")
            raise UnansweredRequest(f"RunPod answered {status} to the request for a pod: {said}")
        if 200 <= status < 300:
            raise UnansweredRequest("RunPod's answer to the request for a pod is not understood")
        if _is_capacity(said):
            raise Refused(f"RunPod has no such machine now: {said}")
        raise self._refusal(status, said)

    def delete(self, number: str) -> None:
        """Delete a pod with its disk; one that is gone already is fine."""
        self._repeated("DELETE", f"/pods/{urllib.parse.quote(number, safe='')}", absent_is_none=True)

    # ---- one request, and several tries

    def _repeated(self, method: str, path: str, *, absent_is_none: bool = False) -> Any:
        wait = 1.0
        for left in reversed(range(TRIES)):
            try:
                status, answer = self._once(method, path, None)
            except UnansweredRequest:
                if not left:
                    raise
            else:
                if status == 404 and absent_is_none:
                    return None
                if 200 <= status < 300:
                    return answer
                if status not in _AGAIN or not left:
                    raise self._refusal(status, _said(answer))
            self._pause(wait)
            wait *= 2
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        request = urllib.request.Request(
            self._address + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            try:
                with _OPENER.open(request, timeout=TIMEOUT_S) as response:
                    status, data = response.status, response.read(MAX_ANSWER_BYTES)
            except urllib.error.HTTPError as refused:
                with refused:
                    status, data = refused.code, refused.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as problem:
            raise UnansweredRequest(f"RunPod did not answer: {problem}") from None
        try:
            return status, parse_json(data) if data.strip() else None
        except ParsingError:
            return status, data.decode("utf-8", "replace")[:500]

    def _refusal(self, status: int, said: str) -> ProviderProblem:
        if status in (401, 403):
            return ProviderProblem(
                f"RunPod refused the key in {KEY_VARIABLE} ({status})",
                needed="a key with the right to read and write pods",
                fix="make one in the console under Settings, API Keys",
            )
        return ProviderProblem(f"RunPod refused the request ({status}): {said}".replace(self._key, "..."))


def _said(answer: Any) -> str:
    """The message of an error's answer, as far as there is one."""
    if isinstance(answer, dict):
        answer = answer.get("error") or answer.get("message") or answer.get("detail") or answer
    return str(answer)[:500] if answer is not None else "no reason given"


def _is_capacity(said: str) -> bool:
    words = said.lower()
    return "no instances" in words or "no longer any instances" in words or "no available" in words
