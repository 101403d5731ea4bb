"""What may be asked of a queue, in which notation, and what is said about the rest, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.job_request import JobRequest, slurm_memory, slurm_time


@pytest.mark.parametrize(
    ("time", "seconds"), [("1h", 3600), ("1.5h", 5400), ("2-12", 216_000), ("600", 600), ("300.5s", 301)]
)
def test_the_time_limit_is_a_duration_in_whole_seconds(time: str, seconds: int) -> None:
    request = JobRequest(time=time, signal_grace="1.5m")
    assert (request.seconds, request.grace_s) == (seconds, 90)
    assert JobRequest(time=slurm_time(seconds)).seconds == seconds


@pytest.mark.parametrize("text", ["", "0", "90:30", "1x", "12h90", "1-", "-5", "12:345", "infinite"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--time=.*is no duration"):
        JobRequest(time=text)


def test_slurm_time_is_its_longest_notation() -> None:
    assert slurm_time(93_784) == "1-02:03:04"


def test_memory_loses_its_b() -> None:
    assert [slurm_memory(text) for text in ("64G", "64gb", "500m", "0")] == ["64G", "64G", "500M", "0"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"nodes": 0}, "--nodes=0"),
        ({"tasks_per_node": 0}, "--tasks_per_node=0"),
        ({"cpus_per_task": 0}, "--cpus_per_task=0"),
        ({"mem": "64.5G"}, "--mem="),
        ({"mem": "much"}, "--mem="),
        ({"time": "soon"}, "--time="),
        ({"time": "3m"}, "leaves no time to train"),
        ({"signal_grace": 0}, "--signal_grace=0 is no duration"),
        ({"signal_grace": 70_000}, "at most 65535 seconds"),
        ({"array_parallelism": 0}, "--array_parallelism=0"),
        ({"partition": "a b"}, "--partition="),
        ({"account": "x; rm"}, "--account="),
        ({"qos": "long\n"}, "--qos="),
        ({"constraint": "a100 h100"}, "--constraint="),
        ({"gpus_per_node": "none"}, "--gpus_per_node="),
        ({"gpus_per_node": "4", "tasks_per_node": 2}, "one task for each GPU"),
        ({"setup": ["module load cuda\nrm x"]}, "--setup="),
        ({"sbatch": ["exclusive"]}, "long option"),
        ({"sbatch": ["--signal=TERM@9"]}, "lcp slurm's own options"),
        ({"max_requeues": -1}, "--max_requeues=-1"),
    ],
)
def test_a_slip_is_refused_with_what_was_given(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as problem:
        JobRequest(**asked)
    assert said in str(problem.value)


def test_all_slips_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as problem:
        JobRequest(nodes=0, mem="x", time="y", partition="a b", sbatch=["z"])
    assert all(word in str(problem.value) for word in ("--nodes", "--mem", "--time", "--partition", "--sbatch"))


def test_what_clusters_want_is_taken() -> None:
    request = JobRequest(
        nodes=2,
        tasks_per_node=4,
        gpus_per_node="a100:4",
        mem="0",
        time="2-00",
        partition="gpu,gpu-long",
        constraint="[rack1*2&rack2*4]|h100",
        sbatch=["--exclusive", "--mail-type=END"],
    )
    assert (request.world_size, request.seconds) == (8, 172_800)
