"""Several processes train one model: the same trajectory as one process has, exact resume whoever kills the run, and
nobody left behind. On a CPU over gloo; what differs on GPUs is the wire.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch

from litgpt_core import checkpoint

STEPS, SAVED = 12, 4
EXACT = [
    "+experiment=smoke",
    "trainer=deterministic",
    f"trainer.max_steps={STEPS}",
    "trainer.log_interval=1",
    f"trainer.eval_interval={SAVED}",
    "trainer.eval_tokens=2048",
    f"trainer.save_interval={SAVED}",
    "trainer.global_batch_size=8",
    "trainer.sample_tokens=0",
    "optim.schedule.lr_warmup_steps=4",
    "logger=none",
]
LONG = 40
LONGER = [*EXACT, f"trainer.max_steps={LONG}", "model.dropout=0.1"]
"""For runs that are stopped in the middle: signals must find them running."""
DROPOUT = "model.dropout=0.1"
KEYS = ("step", "tokens", "train_loss", "val_loss", "val_bpb", "lr", "grad_norm")
REDUCTION_ERROR = 1e-4
"""Sums in another order: relative error of losses and gradient norms over twelve steps in float32."""

CELLS = {
    "ddp": ["trainer.devices=2"],
    "ddp, accumulation, workers": ["trainer.devices=2", "trainer.micro_batch_size=1", "trainer.num_workers=2"],
    "fsdp, whole": ["trainer.devices=2", "trainer.strategy=fsdp", "trainer.sharded_checkpoints=false"],
    "fsdp, parts": [
        "trainer.devices=2",
        "trainer.strategy=fsdp",
        "trainer.sharded_checkpoints=true",
        "trainer.micro_batch_size=1",
        "trainer.num_workers=2",
    ],
    "tensor": ["trainer.devices=4", "trainer.strategy=fsdp", "trainer.tensor_parallel_size=2"],
}


def trace(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in KEYS) for row in rows]


def close(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Equal steps, tokens and rates; losses and norms within the stated error."""
    assert [row["step"] for row in rows] == [row["step"] for row in others] == list(range(1, STEPS + 1))
    for a, b in zip(rows, others, strict=True):
        assert (a["tokens"], a["lr"]) == (b["tokens"], b["lr"])
        for key in ("train_loss", "val_loss", "grad_norm"):
            assert a[key] == (None if b[key] is None else pytest.approx(b[key], rel=REDUCTION_ERROR)), (a["step"], key)


def of_run(name: str) -> list[psutil.Process]:
    """Every living process that was started for the run of that name."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if f"run.name={name}" in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def gone(name: str, *, timeout: float = 30) -> bool:
    deadline = time.monotonic() + timeout
    while of_run(name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def ranks(name: str) -> dict[int, psutil.Process]:
    """Rank -> its process; the launcher and loader workers are not among them."""
    found = {}
    for process in sorted(of_run(name), key=lambda p: p.create_time(), reverse=True):
        try:
            rank = process.environ().get("RANK")
        except psutil.Error:
            continue
        if rank is not None:
            found[int(rank)] = process  # the oldest wins: workers come later
    return found


def saved(shell: Any, name: str, step: int) -> Callable[[], bool]:
    return lambda: (shell.folder / "runs" / name / "checkpoints" / f"step-{step:08d}").exists()


def weights_of(shell: Any, name: str) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(shell.folder / "runs" / name / "final")


@pytest.fixture(scope="module")
def one(module_shell: Any) -> list[dict[str, Any]]:
    """One process, no dropout: what every number of processes must follow."""
    module_shell.train(*EXACT, "run.name=one")
    rows: list[dict[str, Any]] = module_shell.rows("one")
    return rows


@pytest.mark.parametrize(
    "settings",
    [
        ["trainer.devices=2"],
        pytest.param(["trainer.devices=4"], marks=pytest.mark.nightly),
        ["trainer.devices=2", "trainer.strategy=fsdp"],
        pytest.param(
            ["trainer.devices=4", "trainer.strategy=fsdp", "trainer.activation_checkpointing=selective"],
            marks=pytest.mark.nightly,
        ),
        ["trainer.devices=2", "trainer.strategy=fsdp", "trainer.tensor_parallel_size=2"],
        pytest.param(
            [
                "trainer.devices=4",
                "trainer.strategy=fsdp",
                "trainer.tensor_parallel_size=2",
                "trainer.micro_batch_size=2",
                "trainer.activation_checkpointing=full",
                "trainer.gradient_sync=step",
            ],
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            ["trainer.devices=4", "trainer.strategy=fsdp_hybrid", "trainer.shard_size=2"], marks=pytest.mark.nightly
        ),
        pytest.param(
            ["trainer.devices=2", "trainer.strategy=fsdp", "trainer.micro_batch_size=2", "trainer.gradient_sync=step"],
            marks=pytest.mark.nightly,
        ),
    ],
    ids=lambda settings: " ".join(settings),
)
def test_any_number_of_processes_follows_one(module_shell: Any, one: list[dict[str, Any]], settings: list[str]) -> None:
    name = "-".join(s.split("=")[1] for s in settings)
    module_shell.train(*EXACT, *settings, f"run.name={name}")
    close(module_shell.rows(name), one)
    ours, whole = weights_of(module_shell, name), weights_of(module_shell, "one")
    assert ours.keys() == whole.keys()
    assert ours["lm_head.weight"].data_ptr() == ours["transformer.wte.weight"].data_ptr(), "tied as one process ties it"
    assert gone(name)
    summary = module_shell.summary(name)
    assert summary["n_params"] == module_shell.summary("one")["n_params"]


@pytest.mark.nightly
@pytest.mark.parametrize(
    "recipe", [["optim=muon"], ["init_from=runs/one", "lora=default", "lora.dropout=0"]], ids=["Muon", "adapters"]
)
def test_divided_work_and_adapters_follow_one_process(
    module_shell: Any, one: list[dict[str, Any]], recipe: list[str]
) -> None:
    """Muon's matrices are divided among processes; adapters and frozen weights are sharded; both resume exactly."""
    name = recipe[0].split("=")[0]
    module_shell.train(*EXACT, *recipe, f"run.name={name}-1")
    alone = module_shell.rows(f"{name}-1")
    for label, settings in (
        ("ddp", ["trainer.devices=2"]),
        ("fsdp", ["trainer.devices=2", "trainer.strategy=fsdp"]),
        ("fsdp4", ["trainer.devices=4", "trainer.strategy=fsdp"]),
    ):
        module_shell.train(*EXACT, *recipe, *settings, f"run.name={name}-{label}")
        close(module_shell.rows(f"{name}-{label}"), alone)
    settings = [
        *EXACT,
        *recipe,
        "trainer.devices=2",
        "trainer.strategy=fsdp",
        f"run.name={name}-again",
        "run.resume=auto",
    ]
    module_shell.train(*settings, "trainer.stop_after=6")
    module_shell.train(*settings)
    assert trace(module_shell.rows(f"{name}-again")) == trace(module_shell.rows(f"{name}-fsdp"))
    ours, whole = weights_of(module_shell, f"{name}-fsdp"), weights_of(module_shell, f"{name}-1")
    assert ours.keys() == whole.keys() and not any("lora_" in key for key in ours)
    for key, weight in whole.items():
        torch.testing.assert_close(ours[key], weight, rtol=0, atol=5e-3)


@pytest.mark.nightly
@pytest.mark.parametrize("recipe", ["ddp", "fsdp", "fsdp_hybrid", "fsdp_tensor"])
def test_the_recipes_run_as_they_are(module_shell: Any, recipe: str) -> None:
    short = ["trainer.max_steps=2", "trainer.eval_tokens=2048", "trainer.sample_tokens=4", "trainer.compile=false"]
    arguments = ["+experiment=smoke", f"trainer={recipe}", *short, "logger=none", f"run.name=recipe-{recipe}"]
    done = module_shell.train(*arguments, "trainer.devices=2", "trainer.micro_batch_size=auto")
    assert f"x 2 ({recipe.removesuffix('_tensor')}" in done.stderr and "micro-batch: " in done.stderr
    assert (module_shell.folder / "runs" / f"recipe-{recipe}" / "samples.txt").is_file()


@pytest.mark.nightly
def test_torchrun_and_plain_python_give_the_same_bits(module_shell: Any) -> None:
    module_shell.train(*EXACT, DROPOUT, "trainer.devices=2", "run.name=plain", "logger=wandb", "logger.mode=offline")
    command = module_shell.train_command(*EXACT, DROPOUT, "run.name=torchrun")
    module_shell.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", *command[1:]])
    assert trace(module_shell.rows("plain")) == trace(module_shell.rows("torchrun"))
    runs = list((module_shell.folder / "runs" / "plain" / "wandb").glob("offline-run-*"))
    assert len(runs) == 1, "one dashboard run, whatever the number of processes"


class Undisturbed(dict[str, list[tuple[Any, ...]]]):
    """Cell -> the rows of its run, which is made when it is first asked for."""

    def __init__(self, shell: Any) -> None:
        super().__init__()
        self.shell = shell

    def __missing__(self, cell: str) -> list[tuple[Any, ...]]:
        name = f"whole-{list(CELLS).index(cell)}"
        self.shell.train(*LONGER, *CELLS[cell], f"run.name={name}")
        self[cell] = trace(self.shell.rows(name))
        return self[cell]


@pytest.fixture(scope="module")
def undisturbed(module_shell: Any) -> Undisturbed:
    return Undisturbed(module_shell)


@pytest.mark.serial
@pytest.mark.parametrize(
    ("cell", "who", "number", "exit_code"),
    [
        pytest.param("ddp", "launcher", signal.SIGTERM, 143, marks=pytest.mark.nightly),
        pytest.param("ddp, accumulation, workers", "rank 1", signal.SIGKILL, 137, marks=pytest.mark.nightly),
        pytest.param("fsdp, whole", "launcher", signal.SIGKILL, -9, marks=pytest.mark.nightly),
        ("fsdp, parts", "everybody", signal.SIGUSR1, 143),
        pytest.param("tensor", "rank 1", signal.SIGKILL, 137, marks=pytest.mark.nightly),
    ],
)
def test_killed_and_resumed_equals_undisturbed(
    module_shell: Any,
    undisturbed: dict[str, list[tuple[Any, ...]]],
    cell: str,
    who: str,
    number: signal.Signals,
    exit_code: int,
) -> None:
    name = f"killed-{list(CELLS).index(cell)}"
    arguments = [*LONGER, *CELLS[cell], f"run.name={name}", "run.resume=auto"]
    process = subprocess.Popen(
        module_shell.train_command(*arguments),
        cwd=module_shell.folder,
        env=module_shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not saved(module_shell, name, SAVED)():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    if who == "everybody":  # as queues do: loader workers get it, too
        assert len(of_run(name)) > 4
        for each in of_run(name):
            each.send_signal(number)
    else:
        (process if who == "launcher" else ranks(name)[1]).send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == exit_code, output
    assert gone(name), "no process of the run is left"
    if number in (signal.SIGTERM, signal.SIGUSR1):
        assert output.count("everything is saved in") == 1, output
    if who == "rank 1":
        assert "rank 0 lost the others" in output and "[rank0]: Traceback" not in output
    assert len(module_shell.rows(name)) < LONG, "the run was over before the signal came"
    module_shell.train(*arguments)
    assert trace(module_shell.rows(name)) == undisturbed[cell]


@pytest.mark.nightly
def test_the_number_of_processes_may_change(module_shell: Any, one: list[dict[str, Any]]) -> None:
    settings = [*EXACT, "run.name=changing", "run.resume=auto"]
    two = ["trainer.devices=2", "trainer.strategy=fsdp", "trainer.sharded_checkpoints=true"]
    module_shell.train(*settings, *two, "trainer.stop_after=4")
    parts = module_shell.folder / "runs" / "changing" / "checkpoints" / "step-00000004"
    assert len(list(parts.glob("*.distcp"))) == 2 and not (parts / "lit_model.pth").exists()
    module_shell.train(*settings, "trainer.stop_after=8", "trainer.micro_batch_size=2")
    module_shell.train(*settings, "trainer.devices=4", "trainer.strategy=fsdp", "trainer.micro_batch_size=1")
    close(module_shell.rows("changing"), one)

    target = module_shell.folder / "gathered"
    said = module_shell.run(module_shell.command("consolidate.py", str(parts), str(target))).stderr
    assert "is a LitGPT directory now" in said
    whole = checkpoint.load_weights(target)
    directly = checkpoint.load_weights(parts)
    assert all(torch.equal(whole[name], directly[name]) for name in weights_of(module_shell, "one"))
    again = module_shell.run(module_shell.command("consolidate.py", str(parts), str(target)), expect=2).stderr
    assert "exists" in again


@pytest.mark.nightly
def test_any_recipe_continues_from_the_checkpoint_of_any_other(module_shell: Any, one: list[dict[str, Any]]) -> None:
    """Two steps under each, one after the other; the run is that of one process, within the error of summation."""
    fsdp = ["trainer.strategy=fsdp", "trainer.sharded_checkpoints"]
    sessions = [
        ["trainer.devices=2"],
        ["trainer.devices=4", fsdp[0], f"{fsdp[1]}=true"],
        ["trainer.devices=4", fsdp[0], "trainer.tensor_parallel_size=2"],
        ["trainer.devices=2", fsdp[0], f"{fsdp[1]}=false"],
        ["trainer.devices=2", fsdp[0], "trainer.tensor_parallel_size=2", "trainer.micro_batch_size=4"],
        ["trainer.devices=4", "trainer.strategy=fsdp_hybrid", "trainer.shard_size=2", f"{fsdp[1]}=true"],
    ]
    settings = [*EXACT, "run.name=any", "run.resume=auto"]
    for number, session in enumerate(sessions[:-1]):
        module_shell.train(*settings, *session, f"trainer.stop_after={2 * number + 2}")
        step = module_shell.folder / "runs" / "any" / "checkpoints" / f"step-{2 * number + 2:08d}"
        assert bool(list(step.glob("*.distcp"))) == (number == 1) == (not (step / "lit_model.pth").exists())
    module_shell.train(*settings, *sessions[-1])
    close(module_shell.rows("any"), one)


@pytest.mark.nightly
def test_a_corrupted_shard_is_named_and_skipped(
    module_shell: Any, undisturbed: dict[str, list[tuple[Any, ...]]]
) -> None:
    cell = "fsdp, parts"
    settings = [*LONGER, *CELLS[cell], "run.name=broken", "run.resume=auto"]
    module_shell.train(*settings, "trainer.stop_after=8")
    part = next((module_shell.folder / "runs" / "broken" / "checkpoints" / "step-00000008").glob("__1_*.distcp"))
    part.write_bytes(part.read_bytes()[:-100])
    done = module_shell.train(*settings)
    assert part.name in done.stderr and "continuing from runs/broken/checkpoints/step-00000004" in done.stderr
    assert trace(module_shell.rows("broken")) == undisturbed[cell]
    kept = module_shell.folder / "runs" / "broken" / "checkpoints"
    assert checkpoint.newest_valid(kept) == kept / f"step-{LONG:08d}"


@pytest.mark.serial
def test_a_signal_during_the_start_leaves_nobody(shell: Any) -> None:
    process = subprocess.Popen(
        shell.train_command(*EXACT, "trainer.devices=2", "run.name=early"),
        cwd=shell.folder,
        env=shell.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(ranks("early")) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "before the first step" in said
    assert gone("early")
    assert not (shell.folder / "runs" / "early" / "checkpoints").exists()


@pytest.mark.nightly
@pytest.mark.serial
def test_a_process_that_hangs_is_noticed_with_its_stack(shell: Any) -> None:
    name = "hung"
    settings = [
        "trainer.devices=2",
        "trainer.hang_timeout=8",
        "trainer.max_steps=100000",
        "trainer.eval_interval=50000",
    ]
    process = subprocess.Popen(
        shell.train_command(*EXACT, *settings, "trainer.save_interval=50000", f"run.name={name}"),
        cwd=shell.folder,
        env=shell.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    metrics = shell.folder / "runs" / name / "metrics.jsonl"
    while not metrics.exists() or not metrics.stat().st_size:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(ranks(name)[1].pid, signal.SIGSTOP)
    process.communicate(timeout=90)
    assert process.returncode == 1
    assert gone(name)
    stacks = (shell.folder / "runs" / name / "hang-rank0.txt").read_text(encoding="utf-8")
    assert "nothing moved for 8 s" in stacks and "training/runner.py" in stacks


def test_mistakes_are_told_once(shell: Any) -> None:
    done = shell.train(*EXACT, "trainer.devices=3", "run.name=three", expect=2)
    assert done.stderr.count("ConfigError") == 1
    assert "global_batch_size=8 cannot be shared by 3 processes" in done.stderr
    assert "trainer.micro_batch_size=null" in done.stderr and "trainer.global_batch_size=9" in done.stderr
    assert not (shell.folder / "runs" / "three" / "config.yaml").exists()
    shell.environment |= {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    done = shell.train(*EXACT, "run.name=half", expect=2)
    assert "MASTER_PORT" in done.stderr
    shell.environment["MASTER_PORT"] = "29999"
    done = shell.train(*EXACT, "run.name=lonely", "trainer.collective_timeout=3", expect=2)
    assert "rank 0 of 2" in done.stderr and "127.0.0.1:29999" in done.stderr


def test_a_problem_of_rank_0_alone_is_told_once(shell: Any) -> None:
    """It happens after everybody has agreed on the plan, where only rank 0 works: at the dashboard."""
    wall = shell.folder / "no_tensorboard"
    wall.mkdir()
    (wall / "sitecustomize.py").write_text(
        "import importlib.util as u\n_find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'tensorboard' else _find(name, *rest)\n"
    )
    shell.environment["PYTHONPATH"] = str(wall)
    arguments = [*EXACT, "logger=tensorboard", "trainer.devices=2", "trainer.micro_batch_size=auto", "run.name=board"]
    said = shell.train(*arguments, expect=2).stderr
    assert said.count("tensorboard package is not installed") == 1 and "lost the others" not in said
    done = shell.train(*EXACT, "trainer.global_batch_size=1", *arguments[-4:-1], "run.name=few", expect=2).stderr
    assert "global_batch_size=1 cannot be shared by 2 processes" in done and "Traceback" not in done


@pytest.mark.nightly
def test_a_finished_run_says_so_once_and_auto_fits_another_number_of_processes(shell: Any) -> None:
    auto = [*EXACT, "trainer.micro_batch_size=auto", "run.name=auto", "run.resume=auto", "trainer.max_steps=6"]
    shell.train(*auto, "trainer.stop_after=3")
    done = shell.train(*auto, "trainer.devices=2")
    assert done.stdout.count("continue a prompt") == 1
    again = shell.train(*auto, "trainer.devices=2")
    assert again.stdout.count("continue a prompt") == 1 and "finished already" in again.stderr


@pytest.mark.serial
@pytest.mark.nightly
def test_time_and_money_end_a_run_with_a_checkpoint(module_shell: Any) -> None:
    long = [*EXACT, "trainer.max_steps=100000", "trainer.eval_interval=50000", "trainer.save_interval=50000"]
    settings = [*long, "run.name=budget", "run.resume=auto"]
    done = module_shell.train(*settings, "trainer.devices=2", "trainer.max_session_time=8s")
    assert "trainer.max_session_time=8s is used up" in done.stderr and "run.resume=true" in done.stderr
    first = len(module_shell.rows("budget"))
    assert first and checkpoint.newest_valid(module_shell.folder / "runs" / "budget" / "checkpoints") is not None
    done = module_shell.train(*settings, "trainer.max_cost=0.02", "trainer.cost_per_hour=3.6")
    assert "trainer.max_cost=0.02 is used up" in done.stderr
    rows = module_shell.rows("budget")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) >= first
    assert not (module_shell.folder / "runs" / "budget" / "final").exists()
    assert json.loads((module_shell.folder / "runs" / "budget" / "environment.json").read_text())["sessions"]
