"""The runs that the server shows: listed with their models, in curves; hidden where anybody could read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A running run without a checkpoint, and `chatty`, whose model the server offers."""
    for name, losses in (("growing", [5.0, 4.0]), ("chatty", [3.0])):
        run = tmp_path / "models" / name
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(json.dumps({"trainer": {"max_steps": 30}, "data": {"path": "my.txt"}}))
        rows = [{"step": 10 * n, "tokens": n, "elapsed_s": n, "val_loss": loss} for n, loss in enumerate(losses, 1)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "models"


@pytest.fixture
def here(client, folder):
    return client(runs=folder)


def test_runs_are_listed_with_the_model_that_lies_in_their_folder(here):
    body = here.get("/v1/runs").json()
    runs = {run["name"]: run for run in body["runs"]}
    assert set(runs) == {"growing", "chatty"}
    assert (runs["growing"]["state"], runs["growing"]["step"], runs["growing"]["model"]) == ("running", 20, None)
    assert here.get("/v1/settings").json()["runs"] is True
    model = runs["chatty"]["model"]
    assert model in [each["id"] for each in here.get("/v1/models").json()["data"]]


def test_nothing_is_sent_twice(here, folder):
    version = here.get("/v1/runs").json()["version"]
    assert here.get("/v1/runs", params={"since": version}).json() == {"version": version, "unchanged": True}
    params = {"run": "growing", "key": "val_loss"}
    curves = here.get("/v1/runs/curves", params=params).json()
    assert curves["curves"] == [{"name": "growing", "key": "val_loss", "points": [[10.0, 5.0], [20.0, 4.0]]}]
    params["since"] = curves["version"]
    assert here.get("/v1/runs/curves", params=params).json()["unchanged"] is True
    with (folder / "growing" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 30, "tokens": 3, "elapsed_s": 3, "val_loss": 3.5}) + "\n")
    assert here.get("/v1/runs/curves", params=params).json()["curves"][0]["points"][-1] == [30.0, 3.5]
    assert here.get("/v1/runs", params={"since": version}).json()["runs"]


def test_one_run_has_its_settings(here):
    told = here.get("/v1/runs/one", params={"run": "chatty"}).json()
    assert told["config"]["data"] == {"path": "my.txt"} and told["samples"] == "" and told["model"]


@pytest.mark.parametrize(
    ("path", "params", "status", "said"),
    [
        ("one", {"run": "nothing"}, 404, "there is no run 'nothing'"),
        ("one", {"run": "../models/chatty"}, 404, "there is no run"),
        ("one", {}, 400, "run: Field required"),
        ("curves", {}, 400, "run: Field required"),
        ("curves", {"run": "growing", "x": "epochs"}, 400, "there is no x axis 'epochs'"),
        ("curves", {"run": "growing", "points": "0"}, 400, "points: Input should be greater than or equal to 1"),
        ("curves", {"run": ["growing"] * 60}, 400, "run: List should have at most"),
    ],
)
def test_odd_questions_are_answered_with_the_reason(here, path, params, status, said):
    response = here.get(f"/v1/runs/{path}", params=params)
    assert response.status_code == status and said in response.json()["error"]["message"]


def test_runs_are_hidden_where_anybody_could_read_them(client, settings, folder):
    assert settings(host="0.0.0.0", open_to_all=True).shown_runs is None
    assert settings(host="0.0.0.0", api_key="long-enough").shown_runs == Path("runs")
    here = client(runs=None)
    assert here.get("/v1/settings").json()["runs"] is False
    response = here.get("/v1/runs")
    assert response.status_code == 404 and response.json()["error"]["code"] == "runs_hidden"
