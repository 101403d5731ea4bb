"""Prices, candidates, the request, and `lcp deploy plan`: without an account, a cloud library or torch."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from litgpt_core.config.compose import load
from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.rental.candidates import Conditions, candidates, choose
from litgpt_core.deploy.rental.command import ACTIONS, carry_out, parse
from litgpt_core.deploy.rental.planning import make_plan
from litgpt_core.deploy.rental.prices import OFFERS, Offer, read_offers, select
from litgpt_core.deploy.rental.report import plan_text
from litgpt_core.deploy.rental.request import Place, RentalRequest, new_id

PLAN = """
import json, sys
from litgpt_core import cli
code = cli.main(sys.argv[1:])
print("MODULES", json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def request(**changes: object) -> RentalRequest:
    place = Place(provider="runpod", gpu="A100", count=1, accelerator="A100-80GB", hourly=1.4)
    values: dict[str, object] = {
        "name": "mine",
        "rental_id": "abcdef",
        "engine": "sky",
        "places": (place,),
        "overrides": ("+experiment=smoke",),
        "run_dir": "/runs",
        "parcel": "/parcel",
        "budget": 20.0,
        "max_hourly_cost": 5.0,
    }
    return RentalRequest(**{**values, **changes})  # type: ignore[arg-type]


# ---- the whole command


def test_a_plan_needs_no_account_no_cloud_library_and_no_torch(tmp_path: Path) -> None:
    words = ["deploy", "plan", "+experiment=reference", "--gpu", "A100,H100,RTX4090", "--region", "US,eu-north*"]
    words += ["--budget", "12", "--secret", "WANDB_API_KEY", "--dirty"]
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("RUNPOD", "AWS", "WANDB"))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PLAN, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **bare,
            "LIGHT_COMPUTE_RENTALS": str(tmp_path / "rentals"),
            "HOME": str(tmp_path),
            "WANDB_API_KEY": "s3cr3t-value",
        },
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    text, _, modules = done.stdout.partition("MODULES ")
    loaded = set(json.loads(modules))
    assert not loaded & {"torch", "lightning", "sky", "runpod", "boto3", "transformers", "wandb"}
    assert (
        "->  runpod    1 x RTX 4090" in text
        and "nebius    1 x H100" in text
        and "lambda" not in text.split("Prices")[0][:900]
    )
    assert "the training saves and ends at $10.92" in text and "this computer ends it at       $12.00" in text
    assert "files that git tracks" in text and "stays            .git, .venv" in text
    assert "secrets          by name: WANDB_API_KEY" in text and "s3cr3t" not in done.stdout + done.stderr
    assert "infra: runpod/US/US-TX-1" in text and "EU-RO-1" not in text
    assert not (tmp_path / "rentals").exists(), "a plan writes nothing"
    task = yaml.safe_load(
        "\n".join(line[4:] for line in text.partition("The first task for SkyPilot:\n")[2].splitlines())
    )
    assert task["resources"]["max_hourly_cost"] <= 5 and task["resources"]["autostop"] == {
        "idle_minutes": 10,
        "down": True,
    }
    assert task["secrets"] == {"WANDB_API_KEY": None}
    assert task["run"] == "exec /bin/bash node.sh" and "setup" not in task


# ---- prices


def test_every_price_has_a_date_and_a_source_and_a_gpu_that_the_planner_knows() -> None:
    assert len({(offer.provider, offer.gpu, offer.spot, offer.counts) for offer in OFFERS}) == len(OFFERS)
    for offer in OFFERS:
        assert offer.as_of.startswith("2026-") and offer.source and offer.regions


def test_regions_are_chosen_by_pattern_zone_or_provider() -> None:
    def regions(*patterns: str) -> set[str]:
        return {f"{offer.provider}/{region}" for offer in select(OFFERS, regions=patterns) for region in offer.regions}

    assert {name.split("/")[0] for name in regions("eu-north1")} == {"nebius"}
    assert regions("EU-RO-1") == {"runpod/RO/EU-RO-1"}
    assert all(name.startswith("runpod/US/") for name in regions("runpod/US"))
    assert {name.split("/")[0] for name in regions("us*")} == {"runpod", "lambda", "nebius"}


def test_what_nobody_offers_is_answered_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="H100 at nebius"):
        select(OFFERS, gpus=["T4"])
    with pytest.raises(ConfigError, match="unknown GPU"):
        select(OFFERS, gpus=["H1000"])


def test_a_table_of_the_users_is_read_and_its_mistakes_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "offers:\n- {provider: vast, gpu: RTX 4090, price: 0.31, regions: [EU], as_of: 2026-11-01, spot: true}\n"
    )
    (offer,) = read_offers(file)
    assert (offer.price, offer.regions, offer.spot, offer.as_of) == (0.31, ("EU",), True, "2026-11-01")
    file.write_text(
        "offers:\n- {provider: vast, gpu: RTX 4090, price: 0}\n- {provider: x, gpu: H100, cost: 1, price: 1}\n"
    )
    with pytest.raises(ConfigError) as problem:
        read_offers(file)
    assert "offer 1" in str(problem.value) and "offer 2" in str(problem.value) and "cost" in str(problem.value)
    for text in ("", "offers: 3", "offers: [3]", "a: [", "offers: []"):
        file.write_text(text)
        with pytest.raises(ConfigError):
            read_offers(file)


# ---- candidates


def test_dollars_are_hours_with_setup_at_the_price_with_the_disk() -> None:
    offer = Offer(provider="p", gpu="H100", price=2.0, storage=0.73)
    conditions = Conditions(disk_gb=100, setup_minutes=30)
    (found,) = candidates(load(["+experiment=smoke"]), [offer], conditions=conditions, counts={"H100": 2})
    assert found.hourly == pytest.approx(2 * 2.0 + 100 * 0.73 / 730)
    assert found.hours == pytest.approx(found.train_hours + 0.5)
    assert found.dollars == pytest.approx(found.hours * found.hourly)
    assert not found.obstacle and found.overrides[0] in ("trainer=ddp", "trainer=fsdp")


def test_the_cheapest_run_is_first_and_what_is_too_dear_is_never_taken() -> None:
    offers = [
        Offer(provider="dear", gpu="H100", price=6.0),
        Offer(provider="cheap", gpu="H100", price=2.0),
        Offer(provider="middle", gpu="H100", price=3.0),
        Offer(provider="eight", gpu="H100", price=0.5, counts=(8,)),
    ]
    config = load(["+experiment=smoke"])
    found = candidates(config, offers, conditions=Conditions(max_hourly_cost=3.5), counts={"H100": 1})
    assert [each.offer.provider for each in choose(found)] == ["cheap", "middle"]
    reasons = {each.offer.provider: each.obstacle for each in found}
    assert "above --max_hourly_cost" in reasons["dear"] and "machines have 8" in reasons["eight"]
    poor = candidates(config, offers, conditions=Conditions(budget=0.01), counts={})
    with pytest.raises(ConfigError, match=r"above --budget=0\.01"):
        choose(poor)


def test_a_run_that_fits_nowhere_is_said_to() -> None:
    config = load(["+experiment=bench_gpu_1b"])
    found = candidates(config, [Offer(provider="p", gpu="T4", price=0.2)], conditions=Conditions(), counts={})
    assert found[0].obstacle == "the run does not fit into 16 GB" and found[0].train_hours != found[0].train_hours


# ---- the request


def test_a_request_survives_the_ledger_and_refuses_what_is_above_the_ceiling() -> None:
    mine = request(secret_names=("WANDB_API_KEY",), setup=("make x",))
    assert RentalRequest.of_plain(json.loads(json.dumps(mine.to_plain()))) == mine
    with pytest.raises(ConfigError, match=r"\$1\.40 an hour is above --max_hourly_cost=1"):
        request(max_hourly_cost=1.0)
    with pytest.raises(ConfigError) as problem:
        request(engine="aws", name="../x", budget=0, secret_names=("KEY=abc",))
    for part in ("--engine=aws", "run.name", "budget=0", "--secret KEY=..."):
        assert part in str(problem.value)
    assert "abc" not in str(problem.value).replace("abcdef", ""), "the value of a secret is not repeated"
    for broken in ({}, {**mine.to_plain(), "places": [{}]}, {**mine.to_plain(), "odd": 1}):
        with pytest.raises(ConfigError):
            RentalRequest.of_plain(broken)


def test_a_secret_among_the_settings_is_refused_and_not_repeated() -> None:
    key = "hf_" + "a1" * 15
    with pytest.raises(ConfigError, match="--secret NAME") as problem:
        request(overrides=("+experiment=smoke", f"logger.api_key={key}"))
    assert key not in str(problem.value)


def test_names_of_machines_are_found_by_their_prefix_and_differ_by_rental_and_attempt() -> None:
    mine, other = request(), request(rental_id="123456", name="Mine_2.b")
    assert mine.machine_name(1) == "lcp-abcdef-mine-1" and other.machine_name(12) == "lcp-123456-mine-2-b-12"
    assert mine.machine_name(3).startswith(mine.prefix) and not other.machine_name(3).startswith(mine.prefix)
    assert len(request(name="x" * 61).machine_name(100)) < 45, "clusters of some clouds have short names"
    assert len(new_id()) == 6
    assert dataclasses.replace(mine, rental_id="000000").key == "mine-000000"


# ---- the page


def test_every_command_of_the_guide_is_understood_and_its_plans_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHT_COMPUTE_RENTALS", str(tmp_path / "rentals"))
    page = (Path(__file__).resolve().parents[3] / "docs" / "deployment_guide.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("uv run lcp ")]
    assert len(lines) >= 8
    for line in lines:
        _, _, _, verb, *words = shlex.split(line, comments=True)
        options = parse(words, description="", verb=verb, engine={"deploy": "sky", "runpod": "runpod"}[verb])
        assert options.action in ACTIONS, line
        if options.action in ("plan", "up"):
            options.dirty = True
            plan = make_plan(options, poll_s=60.0, pull_every_s=300.0)
            assert plan.request.engine == options.engine and "Three stops" in plan_text(plan), line


def test_a_wrong_action_or_name_is_answered_with_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHT_COMPUTE_RENTALS", str(tmp_path))
    for words, said in (
        (["lanch"], "did you mean"),
        (["down"], "needs the name of one rental"),
        (["watch", "nobody"], "there is no rental 'nobody'"),
        (["plan", "+experiment=smoke", "--engine", "gcp", "--dirty"], "--engine=gcp"),
        (["plan", "+experiment=smoke", "--gpu", "H100:x", "--dirty"], "KIND:NUMBER"),
        (["plan", "+experiment=smoke", "--spot", "--no_spot"], "exclude each other"),
        (["plan", "+experiment=smoke", "--budget", "0"], "--budget=0"),
    ):
        with pytest.raises(ConfigError, match=said):
            carry_out(parse(words, description=""))
    assert carry_out(parse(["ledger"], description="")) == 0
    assert carry_out(parse(["down", "--all"], description="")) == 0


def test_money_is_not_spent_without_a_confirmation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHT_COMPUTE_RENTALS", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO("3\n"))
    words = ["up", "+experiment=smoke", "--gpu", "A100", "--budget", "5", "--dirty"]
    with pytest.raises(ConfigError, match="nobody is here to confirm it"):
        carry_out(parse(words, description=""))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with pytest.raises(ConfigError, match="not confirmed: nothing was rented"):
        carry_out(parse(words, description=""))
    assert list(tmp_path.iterdir()) == []
