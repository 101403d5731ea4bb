"""A stand-in for the W&B server on the loopback address: what the client asks for, and failures on request.

GraphQL (`/graphql`): whether a run is known, creating or changing it, places for its files. `/files/.../file_stream`:
rows of history and the summary. `/storage/...`: the files. It keeps everything, per run.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class StoredRun:
    """What the server knows of one run."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    """Variables of every creation or change."""
    streams: dict[str, dict[int, str]] = field(default_factory=dict)
    """File name -> line number -> line."""
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    def about(self, key: str) -> Any:
        """The last value that was given for a variable, such as `displayName`."""
        return next((variables[key] for variables in reversed(self.asked) if variables.get(key) is not None), None)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows in order."""
        lines = self.streams.get("wandb-history.jsonl", {})
        return [json.loads(lines[number]) for number in sorted(lines)]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.streams.get("wandb-summary.json", {})
        return json.loads(lines[max(lines)]) if lines else {}

    def curve(self, key: str) -> list[Any]:
        return [row[key] for row in self.history if key in row]


class WandbStub:
    """The server. `refuse(pattern, status)` makes requests fail; `down()` takes it off the network."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.requests: list[tuple[str, str]] = []
        """(what, user) of every request; what is a path, or `graphql NAME`."""
        self._refusals: list[tuple[re.Pattern[str], int]] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def down(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    @contextmanager
    def refuse(self, pattern: str, status: int) -> Iterator[None]:
        """Requests whose description matches get this status."""
        refusal = (re.compile(pattern), status)
        self._refusals.append(refusal)
        try:
            yield
        finally:
            self._refusals.remove(refusal)

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, what)) for what, _ in self.requests)

    # ---- answers

    def status_of(self, what: str) -> int:
        return next((status for pattern, status in self._refusals if pattern.search(what)), 200)

    def graphql(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        answer = getattr(self, f"_{name}", None)
        return answer(variables) if answer is not None else {}

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": "us"}}]}
        return {"viewer": {"id": "v", "entity": "us", "username": "me", "email": "", "flags": "{}", "teams": teams}}

    def _ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _ServerInfo(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "latestLocalVersionInfo": None}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        known = variables["name"] in self.runs
        run = self.runs.setdefault(variables["name"], StoredRun())
        run.asked.append(variables)
        return {"upsertBucket": {"bucket": self._bucket(variables["name"], run), "inserted": not known}}

    def _RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(variables["name"])
        bucket = None if run is None else self._bucket(variables["name"], run) | self._tails(run)
        entity = {"id": "e", "name": "us"}
        return {"model": {"id": "p", "name": variables.get("project"), "entity": entity, "bucket": bucket}}

    def _bucket(self, name: str, run: StoredRun) -> dict[str, Any]:
        project = {"id": "p", "name": run.about("project"), "entity": {"id": "e", "name": "us"}}
        return {
            "id": f"id-{name}",
            "name": name,
            "displayName": run.about("displayName"),
            "description": None,
            "config": run.about("config"),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.streams.get("wandb-history.jsonl", {})),
        }

    def _tails(self, run: StoredRun) -> dict[str, Any]:
        def tail(name: str) -> str:
            lines = run.streams.get(name, {})
            return json.dumps([lines[max(lines)]] if lines else [])

        return {
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "eventsLineCount": len(run.streams.get("wandb-events.jsonl", {})),
            "historyTail": tail("wandb-history.jsonl"),
            "eventsTail": tail("wandb-events.jsonl"),
            "tags": run.about("tags") or [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        places = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{variables['run']}/{name}"} for name in variables["files"]
        ]
        return {"createRunFiles": {"runID": f"id-{variables['run']}", "uploadHeaders": [], "files": places}}

    def _ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, _: dict[str, Any]) -> dict[str, Any]:
        sequence = {"latestArtifact": {"id": "a"}}  # known already: its files are not asked for
        return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}}}

    def stream(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[name]
        for file, lines in (body.get("files") or {}).items():
            kept = run.streams.setdefault(file, {})
            kept |= {lines["offset"] + number: line for number, line in enumerate(lines["content"])}
        if body.get("complete"):
            run.exit_code = body.get("exitcode")
        return {"exitcode": None, "limits": {}}


class _Handler(BaseHTTPRequestHandler):
    stub: WandbStub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.path == "/graphql":
            found = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
            name = found[1] if found else "unnamed"
            self._answer(f"graphql {name}", lambda: {"data": self.stub.graphql(name, body.get("variables") or {})})
        else:
            parts = self.path.strip("/").split("/")  # files/ENTITY/PROJECT/RUN/file_stream
            self._answer(self.path, lambda: self.stub.stream(parts[3], body))

    def do_PUT(self) -> None:
        data = self._body()

        def keep() -> dict[str, Any]:
            _, run, name = self.path.strip("/").split("/", 2)
            self.stub.runs[run].files[name] = data
            return {}

        self._answer(self.path, keep)

    def do_GET(self) -> None:
        self._answer(self.path, dict)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, what: str, made: Any) -> None:
        self.stub.requests.append((what, self.headers.get("Authorization") or ""))
        status = self.stub.status_of(what)
        answer = made() if status == 200 else {"errors": [{"message": f"refused with {status}"}]}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""
