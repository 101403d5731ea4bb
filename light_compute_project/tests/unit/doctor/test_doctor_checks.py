"""The doctor's checks: each trouble gives a line of the right level with something to type."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from litgpt_core.core.machine import compile_obstacle
from litgpt_core.doctor import checks as doctor
from litgpt_core.doctor import kernel_rate
from litgpt_core.doctor import machine as doctor_machine
from litgpt_core.doctor.machine import Finding, check_packages, check_python, check_runs, check_torch
from litgpt_core.upstream.git import Git
from litgpt_core.upstream.verify import FileDifference, Verification

ROOT = Path(__file__).resolve().parents[4]


def process(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(**facts: object) -> str:
    usual = {"version": "2", "threads": 1, "cuda_build": None, "cpu": "AVX2", "mps": False, "gpus": [], "sum": 64.0**3}
    return f"import json; print(json.dumps({ ({**usual, **facts})!r}))"


# ---- the CPU kernel ----


@pytest.mark.parametrize(
    ("printed", "level", "said"),
    [
        (
            '{"instructions": "AVX2", "threads": 2, "one": 1784.2, "many": 4321.0}',
            "ok",
            "AVX2, 2 threads: about 1,800 ",
        ),
        (
            '{"obstacle": "The CPU kernel requires Linux; this is Darwin.", "fix": "x"}',
            "warn",
            "Darwin; generation, chat",
        ),
        ("Illegal instruction", "warn", "could not be tried; generation"),
        ("", "warn", "several times slower"),
    ],
)
def test_the_kernel_and_its_rate_or_what_is_lost(monkeypatch, printed, level, said) -> None:
    done = subprocess.CompletedProcess([], 0, stdout=printed, stderr="")
    monkeypatch.setattr(kernel_rate.subprocess, "run", lambda *given, **options: done)
    [found] = kernel_rate.check_kernel()
    assert found.level == level and said in found.found and bool(found.fix) == (level != "ok")


def test_the_kernel_is_measured(monkeypatch) -> None:
    if compile_obstacle("cpu"):
        pytest.skip("needs a compiler")
    monkeypatch.setitem(kernel_rate.SHAPE, "n_embd", 96)
    facts = kernel_rate.measure()
    assert facts["instructions"] and float(str(facts["one"])) > 0 and float(str(facts["many"])) > 0


# ---- torch and devices ----


@pytest.mark.parametrize(
    ("code", "timeout", "says"),
    [
        ("raise ImportError('libcudart is missing')", 60, "libcudart is missing"),
        ("import os; os._exit(139)", 60, "code 139"),
        ("import time; time.sleep(60)", 0.2, "did not finish"),
        (answer(sum=1.0), 60, "products are wrong"),
    ],
    ids=["import error", "crash", "hang", "wrong sum"],
)
def test_a_torch_that_does_not_work_is_one_failing_line(code: str, timeout: float, says: str) -> None:
    [found] = check_torch(process(code), timeout=timeout)
    assert found.level == "fail" and says in found.found and "--reinstall-package torch" in found.fix


def device(monkeypatch: pytest.MonkeyPatch, *, driver: str | None, **facts: object) -> Finding:
    monkeypatch.setattr(doctor_machine, "_gpu_of_the_driver", lambda: driver)
    torch, found = check_torch(process(answer(**facts)))
    assert torch.level == "ok"
    return found


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device(monkeypatch, driver=None).found.startswith("none")
    assert device(monkeypatch, driver="H100", gpus=["H100", "H100"], cuda_build="13.2").found == "2 x H100, CUDA 13.2"
    assert device(monkeypatch, driver=None, mps=True).found == "Apple MPS"
    unused = device(monkeypatch, driver="H100")
    assert unused.level == "warn" and "CPU-only build" in unused.found and unused.fix
    assert "driver" in device(monkeypatch, driver="H100", cuda_build="13.2").fix
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device(monkeypatch, driver="H100", cuda_build="13.2").fix == "unset CUDA_VISIBLE_DEVICES"


# ---- packages, Python, folders ----


def test_packages_are_compared_with_pyproject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"lightning": "2.6.3", "numpy": "1.0", "wandb": "1.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor_machine.importlib.metadata, "version", version)
    lines = ["lightning>=2.6", "numpy>=2.0", "absent==1.0", "wandb>=0.1", "odd; python_version < '3'"]
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {lines}\n")
    [found] = check_packages(tmp_path)
    assert found.level == "fail" and found.fix == "uv sync"
    assert "lightning 2.6.3 is a malicious upload" in found.found
    assert "numpy 1.0, needed >=2.0" in found.found and "absent is not installed" in found.found
    assert "wandb" not in found.found and "odd" not in found.found
    versions |= {"lightning": "2.6.6", "numpy": "2.1", "absent": "1.0"}
    assert next(iter(check_packages(tmp_path))) == Finding(
        level="ok", name="packages", found="4 of 4 within the bounds of pyproject.toml"
    )
    [found] = check_packages(tmp_path / "nowhere")
    assert found.level == "fail" and found.name == "pyproject.toml"


def test_versions_other_than_the_pinned_ones_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.15.0+cpu", "numpy": "2.1", "rich": "14.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor_machine.importlib.metadata, "version", version)
    pins = ["torch==2.15.0", "numpy==2.4.6 ; python_version >= '3'", "numpy==1.0 ; python_version < '3'", "absent==1"]
    page = tmp_path / "pyproject.toml"
    page.write_text(f"[project]\ndependencies = ['numpy>=2']\n[tool.uv]\nconstraint-dependencies = {pins}\n")
    bounds, exact = check_packages(tmp_path)
    assert bounds.level == "ok" and exact.level == "warn" and exact.fix.startswith("uv sync")
    assert exact.found == "1 of 2 differ: numpy 2.1 (pinned 2.4.6)"
    versions["numpy"] = "2.4.6"
    assert [item.level for item in check_packages(tmp_path)] == ["ok", "ok"]


def test_another_checkout_and_another_python_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = {item.name: item for item in check_python(ROOT)}
    assert by_name["Python"].level == by_name["litgpt_core"].level == "ok"
    by_name = {item.name: item for item in check_python(tmp_path)}
    assert by_name["litgpt_core"].level == "fail" and "uv sync" in by_name["litgpt_core"].fix
    monkeypatch.setattr(doctor_machine, "FIRST_UNSUPPORTED_PYTHON", sys.version_info[:2])
    assert {item.name: item.level for item in check_python(ROOT)}["Python"] == "fail"


def test_a_runs_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_runs(tmp_path / "not" / "yet").level == "ok"
    assert list(tmp_path.iterdir()) == []

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor_machine.tempfile, "TemporaryFile", refuse)
    found = check_runs(tmp_path)
    assert found.level == "fail" and "Permission denied" in found.found and "run.dir=" in found.fix


def test_a_full_disk_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1e8})
    memory = type("Memory", (), {"available": 1e9, "total": 8e9})
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(doctor_machine.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(doctor_machine, "compile_obstacle", lambda _: "no C++ compiler found (g++)")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    levels = {item.name: item for item in doctor_machine.check_machine(ROOT)}
    assert levels["disk"].level == "fail" and levels["disk"].found == "0.1 GB free"
    assert levels["memory"].level == levels["compiler"].level == levels["OMP_NUM_THREADS"].level == "warn"
    assert all(item.fix for item in levels.values() if item.level != "ok")


# ---- LitGPT, W&B, configs, git ----


def test_a_changed_package_is_a_failing_line(monkeypatch: pytest.MonkeyPatch) -> None:
    difference = FileDifference(kind="changed", path="litgpt/model.py")
    result = Verification(subject="installed litgpt", files=60, differences=(difference,), fix="uv sync")
    monkeypatch.setattr(doctor, "verify", lambda _: [result])
    first = next(iter(doctor.check_litgpt(ROOT)))
    assert first.level == "fail" and "litgpt/model.py" in first.found and first.fix == "uv sync"


def test_an_import_that_takes_another_litgpt_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "import_folder", lambda: tmp_path)
    found = list(doctor.check_litgpt(ROOT))[-1]
    assert found.level == "warn" and str(tmp_path) in found.found and "PYTHONPATH" in found.fix


def test_wandb_is_fine_with_and_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert "offline" in doctor.check_wandb().found
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password 0123\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert doctor.check_wandb() == Finding(level="ok", name="W&B", found="key in .netrc: runs are logged online")
    (tmp_path / ".netrc").write_text("machine\n")
    assert doctor.check_wandb().level == "warn"
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert "WANDB_API_KEY" in doctor.check_wandb().found and "0123" not in doctor.check_wandb().found


def test_configs_compose_and_a_broken_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from litgpt_core.config import compose as config
    from litgpt_core.core.errors import ConfigError

    assert doctor.check_configs().level == "ok"

    def load(overrides: list[str]) -> None:
        if overrides == ["+experiment=smoke"]:
            raise ConfigError("model.n_layr is unknown")

    monkeypatch.setattr(config, "load", load)
    found = doctor.check_configs()
    assert found.level == "fail" and found.found == "smoke: model.n_layr is unknown"


def test_a_rule_that_hides_a_file_of_ours_is_named_with_its_place(tmp_path: Path) -> None:
    files = tmp_path / "light_compute_project" / "src" / "data"
    files.mkdir(parents=True)
    (files / "order.py").write_text("x = 1\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    git = Git(root=tmp_path)
    assert doctor.hidden_files(git) == []
    (tmp_path / ".gitignore").write_text("out\ndata\n")
    assert doctor.hidden_files(git) == ["light_compute_project/src/data/order.py (.gitignore:2: data)"]
    (tmp_path / "light_compute_project/.gitignore").write_text("!data/\n")
    assert doctor.hidden_files(git) == []
    [*_, ignored] = doctor.check_git(tmp_path)
    assert ignored.level == "ok"


def test_a_folder_without_git_is_a_warning(tmp_path: Path) -> None:
    [found] = doctor.check_git(tmp_path)
    assert found.level == "warn" and found.name == "git" and found.fix


def test_a_line_says_what_to_type() -> None:
    assert doctor.render(doctor_machine.finding("disk", "full", level="fail", fix="free room")).splitlines() == [
        "fail  disk             full",
        "                       try: free room",
    ]
    assert doctor.render(doctor_machine.finding("disk", "fine", fix="free room")) == "ok    disk             fine"


# ---- without a checkout ----


def test_an_installed_package_is_checked_against_its_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    [found] = check_packages(None)
    assert found.level == "ok" and "the package's metadata" in found.found
    assert [each.level for each in check_python(None) if each.name == "litgpt_core"] == ["ok"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch>=999", "absent; extra == 'other'"])
    [found] = check_packages(None)
    assert found.level == "fail" and "needed >=999" in found.found and "pip install" in found.fix
