"""What may be asked of a queue, in which notation, and what is said about the rest, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.deploy.job_request import JobRequest, seconds_of, slurm_memory, slurm_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90 * 60),
        ("90:30", 90 * 60 + 30),
        ("12:00:05", 12 * 3600 + 5),
        ("2-12", 60 * 3600),
        ("2-12:30", 60 * 3600 + 30 * 60),
        ("2-12:30:05", 60 * 3600 + 30 * 60 + 5),
        ("90m", 90 * 60),
        ("12h", 12 * 3600),
        ("1d12h30m", 36 * 3600 + 1800),
    ],
)
def test_times_are_slurms_or_have_units(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds
    assert seconds_of(slurm_time(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "0", "0:00", "1x", "12h90", "1-", "-5", "1:2:3:4", "12:345", "1.5h", "infinite"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="12h"):
        seconds_of(text)


def test_slurm_time_is_its_longest_notation() -> None:
    assert slurm_time(93_784) == "1-02:03:04"


def test_memory_loses_its_b() -> None:
    assert [slurm_memory(text) for text in ("64G", "64gb", "500m", "0")] == ["64G", "64G", "500M", "0"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"nodes": 0}, "--nodes=0"),
        ({"tasks_per_node": 0}, "--tasks-per-node=0"),
        ({"cpus_per_task": 0}, "--cpus-per-task=0"),
        ({"mem": "64.5G"}, "--mem="),
        ({"mem": "much"}, "--mem="),
        ({"time": "soon"}, "--time="),
        ({"time": "3m"}, "leaves no time to train"),
        ({"signal_grace": 0}, "from 1 to 65535"),
        ({"signal_grace": 70_000}, "from 1 to 65535"),
        ({"partition": "a b"}, "--partition="),
        ({"account": "x; rm"}, "--account="),
        ({"qos": "long\n"}, "--qos="),
        ({"constraint": "a100 h100"}, "--constraint="),
        ({"gpus_per_node": "none"}, "--gpus-per-node="),
        ({"gpus_per_node": "4", "tasks_per_node": 2}, "one task for each GPU"),
        ({"setup": ["module load cuda\nrm x"]}, "--setup="),
        ({"sbatch": ["exclusive"]}, "long option"),
        ({"sbatch": ["--signal=TERM@9"]}, "slurm.py's own options"),
        ({"max_requeues": -1}, "--max-requeues=-1"),
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
