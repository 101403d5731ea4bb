"""SkyPilot as a target: the tasks that are generated, and the command lines, which a program in its place records."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.deploy.rental.node_script import NodeWork, arming, node_script
from litgpt_core.deploy.rental.provider import Launch, NoCapacity, ProviderProblem, RentedMachine
from litgpt_core.deploy.rental.request import Place, RentalRequest
from litgpt_core.deploy.rental.sky_task import VERSION, render, task
from litgpt_core.deploy.rental.skypilot import SkyPilot, sky_program

SECRET = "s3cr3t-of-the-run"

SKY = """#!/bin/bash
here={folder}
printf '%s\\n' "$*" >> $here/calls
env | grep -E '^(SKYPILOT|PYTHONDONT|WANDB)' | sort > $here/env
case "$1" in
    launch) cat $here/launch_said; exit $(cat $here/launch_code) ;;
    status) echo "Clusters"; cat $here/status.json ;;
    down)   exit $(cat $here/down_code) ;;
esac
"""


@pytest.fixture
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a recording `sky`."""
    folder = tmp_path / "sky"
    folder.mkdir()
    (folder / "sky").write_text(SKY.format(folder=folder))
    (folder / "sky").chmod(0o755)
    for name, text in (("launch_said", "ok"), ("launch_code", "0"), ("down_code", "0"), ("status.json", "[]")):
        (folder / name).write_text(text)
    monkeypatch.setenv("LIGHT_COMPUTE_SKY", str(folder / "sky"))
    monkeypatch.setenv("LIGHT_COMPUTE_RENTALS", str(tmp_path / "rentals"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return folder


def launch(**changes: Any) -> Launch:
    place = Place(
        provider="runpod",
        gpu="A100",
        count=2,
        accelerator="A100-80GB",
        hourly=2.8,
        regions=("US/US-TX-1", "RO/EU-RO-1"),
    )
    mine = RentalRequest(
        name="r",
        rental_id="0a0a0a",
        engine="sky",
        places=(place,),
        overrides=(),
        run_dir="/nowhere",
        parcel="/nowhere",
        budget=20.0,
        max_hourly_cost=5.0,
    )
    values: dict[str, Any] = {
        "request": mine,
        "name": mine.machine_name(1),
        "place": place,
        "ceiling": 2.94,
        "parcel": Path("/parcel"),
        "arming": arming(deadline=2e9, now=2e9 - 7200),
        "deadline": 2e9,
        "secrets": {"WANDB_API_KEY": SECRET},
    }
    return Launch(**{**values, **changes})


def test_a_task_names_regions_a_price_ceiling_autodown_and_runs_the_script_that_arms_the_deadline() -> None:
    text = render(launch())
    found = yaml.safe_load(text)
    assert found == task(launch())
    assert found["resources"] == {
        "accelerators": "A100-80GB:2",
        "use_spot": False,
        "disk_size": 50,
        "max_hourly_cost": 2.94,
        "autostop": {"idle_minutes": 10, "down": True},
        "any_of": [{"infra": "runpod/US/US-TX-1"}, {"infra": "runpod/RO/EU-RO-1"}],
    }
    assert found["secrets"] == {"WANDB_API_KEY": None} and SECRET not in text
    assert found["run"] == "exec /bin/bash node.sh"
    assert "setup" not in found, "what it starts in the background would block it, or be killed with it"
    single = Place(
        provider="lambda", gpu="A10", count=1, accelerator="A10", hourly=1.29, regions=("us-east-1",), spot=True
    )
    one = task(launch(place=single))["resources"]
    assert one["infra"] == "lambda/us-east-1" and one["use_spot"] and "any_of" not in one


def test_a_machine_is_launched_listed_and_ended_by_these_commands(sky: Path, tmp_path: Path) -> None:
    mine, noted = SkyPilot(), []
    machine = mine.launch(launch(), created=noted.append)
    assert machine == RentedMachine(number="lcp-0a0a0a-r-1", name="lcp-0a0a0a-r-1", runs=True) and noted == [machine]
    file = tmp_path / "rentals" / "r-0a0a0a" / "lcp-0a0a0a-r-1.yaml"
    assert yaml.safe_load(file.read_text())["name"] == machine.name
    rows = [
        {"name": machine.name, "status": "ClusterStatus.UP", "region": "US"},
        {"name": "somebody-elses", "status": "UP"},
        {"name": "lcp-0a0a0a-r-2", "status": "STOPPED"},
    ]
    (sky / "status.json").write_text(json.dumps(rows, indent=1))
    assert [(m.name, m.runs) for m in mine.machines("lcp-0a0a0a-")] == [(machine.name, True), ("lcp-0a0a0a-r-2", False)]
    mine.end(machine)
    assert (sky / "calls").read_text().splitlines() == [
        f"launch --yes --detach-run --cluster {machine.name} --secret WANDB_API_KEY {file}",
        "status --refresh --output json",
        f"down --yes {machine.name}",
    ]
    assert SECRET not in "".join(
        path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.name != "env"
    )


def test_secrets_go_through_the_environment_and_byte_code_is_kept(sky: Path) -> None:
    SkyPilot().launch(launch(), created=lambda machine: None)
    said = (sky / "env").read_text()
    assert f"WANDB_API_KEY={SECRET}" in said and "SKYPILOT_DISABLE_USAGE_COLLECTION=1" in said
    assert "PYTHONDONTWRITEBYTECODE" not in said, "fifteen processes would compile everything anew"


def test_capacity_is_told_from_other_failures(sky: Path) -> None:
    (sky / "launch_code").write_text("1")
    (sky / "launch_said").write_text(
        "sky.exceptions.ResourcesUnavailableError: Failed to provision all possible launchable resources."
    )
    with pytest.raises(NoCapacity):
        SkyPilot().launch(launch(), created=lambda machine: None)
    (sky / "launch_said").write_text("rsync: connection unexpectedly closed")
    with pytest.raises(ProviderProblem, match="rsync") as problem:
        SkyPilot().launch(launch(), created=lambda machine: None)
    assert not isinstance(problem.value, NoCapacity)
    (sky / "down_code").write_text("1")
    with pytest.raises(ProviderProblem, match="sky down"):
        SkyPilot().end(RentedMachine(number="x", name="x", runs=True))
    for odd in ("", "no clusters", '{"a": 1}', "[1, "):
        (sky / "status.json").write_text(odd)
        with pytest.raises(ProviderProblem, match="not understood"):
            SkyPilot().machines("lcp-")


def test_a_machine_is_reached_through_the_entry_and_the_key_that_skypilot_made_for_it(
    sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    machine = RentedMachine(number="lcp-x", name="lcp-x", runs=True)
    bare = SkyPilot().shell(machine, launch().request).command("true")
    assert bare[-2] == "lcp-x" and "-F" not in bare
    made = tmp_path / ".sky" / "generated"
    for file in (made / "ssh" / "lcp-x", made / "ssh-keys" / "lcp-x.key"):
        file.parent.mkdir(parents=True)
        file.touch()
    words = SkyPilot().shell(machine, launch().request).command("true")
    assert words[words.index("-F") + 1] == str(made / "ssh" / "lcp-x")
    assert words[words.index("-i") + 1] == str(made / "ssh-keys" / "lcp-x.key")


def test_the_folder_of_the_task_is_found_whether_or_not_the_node_has_changed_its_home(
    sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "account"
    own = home / ".sky_clusters" / "lcp-x-1234" / "sky_workdir"
    own.mkdir(parents=True)
    script = (
        SkyPilot().shell(RentedMachine(number="lcp-x", name="lcp-x", runs=True), launch().request).command("pwd")[-1]
    )

    def folder(**environment: str) -> str:
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout.strip()

    named = {"SKY_CLUSTER_NAME": "lcp-x-1234"}
    assert folder(HOME=str(home), **named) == str(own), "SLURM, and a start-up file that returns early"
    assert folder(HOME=str(own.parent), **named) == str(own), "SLURM, with SkyPilot's line reached"
    assert folder(HOME=str(home)) == str(home / "sky_workdir"), "a virtual machine; the folder is made"


def test_sky_is_kept_in_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIGHT_COMPUTE_SKY", raising=False)
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = sky_program(["runpod", "aws", "runpod"])
    assert program == [str(tmp_path / "uv"), "tool", "run", "--from", f"skypilot[aws,runpod]=={VERSION}", "sky"]
    monkeypatch.setattr("litgpt_core.core.uv.PROJECT_DIR", tmp_path / "no" / "where")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvironmentProblem, match="there is no uv"):
        sky_program()
    monkeypatch.setenv("LIGHT_COMPUTE_SKY", "uvx sky")
    assert sky_program() == ["uvx", "sky"]


def test_arming_comes_before_setup_and_training_in_the_script() -> None:
    work = NodeWork(setup=["make it"], command=["train"], stop_at=2e9, now=2e9 - 100, linger_s=1, run_folder="runs/r")
    text = node_script(work, arming_lines="arm_it_first")
    assert text.index("arm_it_first") < text.index("make it") < text.index("train ")
    assert all(not line.strip() or line[0] in "#Le" for line in text.partition("arm_it_first")[0].splitlines()[:6])


def test_a_failed_set_up_is_still_there_at_the_next_look() -> None:
    work = NodeWork(
        setup=["false"], command=["train"], stop_at=2e9, now=2e9, linger_s=1, run_folder="runs/r", failed_linger_s=1800
    )
    assert node_script(work, arming_lines="").count("lcp_linger 1800") == 2, (
        "a folder that is missing, a set-up that fails"
    )


def test_the_deadline_is_never_later_than_planned_and_at_once_if_it_is_past() -> None:
    text = arming(deadline=time.time() + 3600.7, now=time.time())
    assert "-gt 3600 ]; then lcp_left=3600" in text or "-gt 3600 ]; then" in text
    assert (
        'lcp_left" -lt 1' in text and "runpodctl remove pod" in text and "scancel" in text and "shutdown -h now" in text
    )
    here = arming(deadline=10.0, now=5.0, local=True)
    assert "shutdown" not in here and "scancel" not in here, "a rehearsal must not switch off this computer"
