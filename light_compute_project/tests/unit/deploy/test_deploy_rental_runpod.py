"""RunPod's own API against a server on this machine that keeps pods, counts what they cost, and fails as told.

SSH is a program that runs the command here, in a folder of the pod's.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.deploy.rental import runpod
from litgpt_core.deploy.rental.ledger import Ledger
from litgpt_core.deploy.rental.provider import Launch, NoCapacity, ProviderProblem
from litgpt_core.deploy.rental.request import Place, RentalRequest
from litgpt_core.deploy.rental.runpod import RunPod, pod_body
from litgpt_core.deploy.rental.runpod_api import RunPodAPI
from litgpt_core.deploy.rental.session import RentalSession

KEY = "rpa_" + "K3y" * 12
SECRET = "s3cr3t-of-the-run"


@dataclass
class Account:
    """What the server knows and how it behaves."""

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    failures: list[int | str] = field(default_factory=list)
    """Taken one by one: a status, `drop` (the connection breaks before anything happens), or `half` (it breaks after a
    pod was made).
    """
    price: float = 1.39
    made: int = 0
    appears_after: int = 0
    """Lists that do not show a fresh pod yet."""

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        self.made += 1
        pod = {
            "id": f"pod{self.made}",
            "name": body["name"],
            "desiredStatus": "RUNNING",
            "costPerHr": str(self.price),
            "publicIp": "127.0.0.1",
            "portMappings": {"22": 2222},
            "machine": {"dataCenterId": (body.get("dataCenterIds") or ["?"])[0]},
            "env": body["env"],
        }
        self.pods[pod["id"]] = pod
        return pod


class Handler(BaseHTTPRequestHandler):
    account: Account

    def log_message(self, *given: object) -> None:
        pass

    def _answer(self, status: int, content: Any = None) -> None:
        data = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _any(self) -> None:
        account = self.account
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        account.requests.append((self.command, self.path, body))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._answer(401, {"error": "unauthorized"})
        failure = account.failures.pop(0) if account.failures else None
        if failure == "drop":
            self.connection.close()
            return None
        if failure == "half":
            account.create(body)
            self.connection.close()
            return None
        if isinstance(failure, int):
            return self._answer(
                failure,
                {
                    "error": "create pod: There are no instances currently available"
                    if failure == 599
                    else f"problem {failure}"
                },
            )
        return self._carry_out(body)

    def _carry_out(self, body: dict[str, Any]) -> None:
        account, path = self.account, urllib.parse.urlsplit(self.path).path.split("/")[1:]
        if self.command == "POST":
            return self._answer(201, account.create(body))
        if path == ["pods"]:
            account.appears_after -= 1
            return self._answer(200, [] if account.appears_after >= 0 else list(account.pods.values()))
        if path[1] not in account.pods:
            return self._answer(404, {"error": "not found"})
        if self.command == "DELETE":
            del account.pods[path[1]]
            return self._answer(204)
        return self._answer(200, account.pods[path[1]])

    do_GET = do_POST = do_DELETE = _any


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    mine = Account()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"account": mine}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("LIGHT_COMPUTE_RUNPOD_ADDRESS", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    yield mine
    server.shutdown()
    server.server_close()
    thread.join()


def request(**changes: Any) -> RentalRequest:
    place = Place(
        provider="runpod", gpu="A100", count=2, accelerator="A100-80GB", hourly=1.40, storage_hourly=0.007,
        regions=("US/US-TX-1", "RO/EU-RO-1"),
    )  # fmt: skip
    values: dict[str, Any] = {
        "name": "r",
        "rental_id": "0a0a0a",
        "engine": "runpod",
        "places": (place,),
        "overrides": (),
        "run_dir": "/nowhere",
        "parcel": "/nowhere",
        "budget": 20.0,
        "max_hourly_cost": 5.0,
        "secret_names": ("WANDB_API_KEY",),
    }
    return RentalRequest(**{**values, **changes})


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.setenv("LIGHT_COMPUTE_RENTALS", str(tmp_path / "rentals"))
    monkeypatch.setattr(runpod, "FOLDER", str(tmp_path / "pod"))
    parcel = tmp_path / "parcel"
    (parcel / "code").mkdir(parents=True)
    (parcel / "code" / "a.txt").write_text("hello")
    (parcel / "node.sh").write_text('echo "$WANDB_API_KEY" > seen; cat code/a.txt >> seen; touch done\n')
    mine = request()
    return Launch(
        request=mine,
        name=mine.machine_name(1),
        place=mine.places[0],
        ceiling=1.46,
        parcel=parcel,
        arming="arm_it_first",
        deadline=time.time() + 3600,
        secrets={"WANDB_API_KEY": SECRET},
    )


def fake_ssh(folder: Path) -> tuple[str, ...]:
    """An SSH client that runs its last word here and notes how it was called."""
    program = folder / "ssh"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {folder}/calls\nfor last; do :; done\nexec /bin/sh -c "$last"\n'
    )
    program.chmod(0o755)
    return (str(program),)


def provider(folder: Path) -> RunPod:
    return RunPod(RunPodAPI(pause=lambda _: None), pause=lambda _: time.sleep(0.002), ssh=fake_ssh(folder))


def wait_for(path: Path) -> None:
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def test_a_pod_is_made_gets_the_parcel_and_is_ended(account: Account, launch: Launch, tmp_path: Path) -> None:
    mine, noted = provider(tmp_path), []
    machine = mine.launch(launch, created=noted.append)
    assert noted == [machine] and machine.hourly == 1.39 and machine.region == "US-TX-1"
    wait_for(tmp_path / "pod" / "done")
    assert (tmp_path / "pod" / "seen").read_text() == f"{SECRET}\nhello"
    assert mine.machines("lcp-0a0a0a-") == [machine] and mine.machines("lcp-other") == []
    mine.end(machine)
    mine.end(machine)
    assert mine.machines("lcp-") == [] and not account.pods


def test_the_request_arms_the_deadline_first_and_holds_no_secret(
    account: Account, launch: Launch, tmp_path: Path
) -> None:
    body = pod_body(launch)
    assert body["dockerStartCmd"] == ["/bin/bash", "-c", "arm_it_first\nexec /start.sh"]
    assert body["gpuTypeIds"] == ["NVIDIA A100 80GB PCIe"] and body["gpuCount"] == 2 and not body["interruptible"]
    assert body["volumeInGb"] == 0, "a volume would go on costing money"
    assert body["dataCenterIds"] == ["US-TX-1", "EU-RO-1"]
    provider(tmp_path).launch(launch, created=lambda machine: None)
    wait_for(tmp_path / "pod" / "done")
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.name != "seen")
    sent = json.dumps(account.requests)
    for hidden in (SECRET, KEY):
        assert hidden not in written and hidden not in sent
    assert "accept-new" in (tmp_path / "calls").read_text() and "-p 2222" in (tmp_path / "calls").read_text()


def test_a_dearer_pod_is_ended_and_refused(
    account: Account, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.price = 2.80
    ledger, mine = Ledger(), request(secret_names=())

    class Bare(RentalSession):
        def _prepared(self, place: Place, **given: Any) -> Launch:
            return launch

    ledger.opened(mine, time=time.time())
    session = Bare(mine, provider=provider(tmp_path), ledger=ledger)
    with pytest.raises(NoCapacity, match=r"it costs \$2\.81 an hour, more than the ceiling of \$1\.47"):
        session.launch()
    assert account.made == 1 and not account.pods and not session.state.open_machines
    assert not (tmp_path / "pod").exists(), "nothing was sent there"


def test_a_request_that_was_not_answered_is_looked_for_by_its_name(
    account: Account, launch: Launch, tmp_path: Path
) -> None:
    account.failures, account.appears_after = ["half"], 3
    noted: list[Any] = []
    machine = provider(tmp_path).launch(launch, created=noted.append)
    assert machine.number == "pod1" and noted == [machine] and account.made == 1
    assert [method for method, _, _ in account.requests].count("POST") == 1, "it was not requested twice"


@pytest.mark.parametrize("failure", ["drop", 500, 503])
def test_an_unanswered_request_without_a_pod_is_no_capacity(
    account: Account, launch: Launch, tmp_path: Path, failure: int | str
) -> None:
    account.failures = [failure]
    with pytest.raises(NoCapacity, match="no pod of the name lcp-0a0a0a-r-1"):
        provider(tmp_path).launch(launch, created=lambda machine: None)
    assert account.made == 0


def test_reading_and_ending_are_repeated_after_server_errors(account: Account, launch: Launch, tmp_path: Path) -> None:
    mine = provider(tmp_path)
    machine = mine.launch(launch, created=lambda machine: None)
    account.failures = [429, 500, "drop", 502]
    assert mine.machines("lcp-") == [machine]
    account.failures = [500, 429]
    mine.end(machine)
    assert not account.pods
    account.failures = [500] * 5
    with pytest.raises(ProviderProblem, match="refused the request"):
        mine.machines("lcp-")


def test_a_pod_that_never_answers_over_ssh_is_reported_with_what_to_do(
    account: Account, launch: Launch, tmp_path: Path
) -> None:
    account.create({"name": "x", "env": {}})
    ticks = iter(range(0, 10_000, 300))
    mine = RunPod(RunPodAPI(), pause=lambda _: None, clock=lambda: float(next(ticks)), ssh=("/bin/false",))
    with pytest.raises(ProviderProblem, match="did not answer over SSH") as problem:
        mine.launch(launch, created=lambda machine: None)
    assert "--ssh_key" in str(problem.value)


def test_a_refused_key_is_said_and_not_repeated(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "rpa_" + "Wr0ng" * 8
    with pytest.raises(ProviderProblem, match="refused the key in RUNPOD_API_KEY") as problem:
        RunPodAPI(wrong).pods()
    assert wrong not in str(problem.value)
    monkeypatch.delenv("RUNPOD_API_KEY")
    with pytest.raises(EnvironmentProblem, match="RUNPOD_API_KEY is not set"):
        RunPodAPI()
    with pytest.raises(EnvironmentProblem, match="not encrypted"):
        RunPodAPI("k", address="http://elsewhere.example/v1")


def test_no_capacity_is_told_from_a_refusal(account: Account, launch: Launch, tmp_path: Path) -> None:
    account.failures = [599]
    with pytest.raises(NoCapacity, match="no instances"):
        provider(tmp_path).launch(launch, created=lambda machine: None)
    account.failures = [400]
    with pytest.raises(ProviderProblem, match="problem 400") as problem:
        provider(tmp_path).launch(launch, created=lambda machine: None)
    assert not isinstance(problem.value, NoCapacity)
    odd = Place(provider="runpod", gpu="A10", count=1, accelerator="A10", hourly=1.0)
    with pytest.raises(ConfigError, match="RunPod has no A10"):
        pod_body(Launch(**{**vars(launch), "place": odd}))
