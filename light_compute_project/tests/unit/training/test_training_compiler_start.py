"""Sparing TorchInductor's probes, and precompiling its headers during the start of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from litgpt_core.config.trainer import HardwareSettings
from litgpt_core.core import machine
from litgpt_core.training import compiler_start

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or machine.compile_obstacle("cpu") is not None, reason="nothing compiles here"
)


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(compiler_start.PROBE_SWITCH, raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(compiler_start.CACHE_VARIABLE, raising=False)  # torch sets it when something compiles
    monkeypatch.setattr(compiler_start, "leave_triton_out", lambda: None)  # it would be for this whole process
    monkeypatch.setattr(compiler_start.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(compiler_start.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(compiler_start, "_processor_flags", lambda: set())


def test_a_compiler_that_lacks_the_flags_is_probed_as_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler_start, "_processor_flags", lambda: {"avx2", "avx512f"})
    old = tmp_path / "old-compiler"
    old.write_text('#!/bin/sh\ncase "$*" in *avx512*) exit 1;; esac\n')
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    assert not compiler_start.trust_instruction_set()
    assert compiler_start.PROBE_SWITCH not in os.environ


def test_a_compiler_that_knows_them_is_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler_start, "_processor_flags", lambda: {"avx2"})
    asked = tmp_path / "asked"
    new = tmp_path / "new-compiler"
    new.write_text(f'#!/bin/sh\necho "$*" > {asked}\n')
    new.chmod(0o755)
    monkeypatch.setenv("CXX", str(new))
    assert compiler_start.trust_instruction_set()
    assert os.environ[compiler_start.PROBE_SWITCH] == "1"
    assert "-mavx2" in asked.read_text() and "avx512" not in asked.read_text()


def test_the_users_choice_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiler_start.PROBE_SWITCH, "0")
    compiler_start.trust_instruction_set()
    assert os.environ[compiler_start.PROBE_SWITCH] == "0"


def test_a_processor_without_vectors_is_not_vouched_for() -> None:
    assert not compiler_start.trust_instruction_set()


def test_the_helper_is_started_once_and_ended_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_start, "TRIVIAL", "import time; time.sleep(60)")
    kept = []
    monkeypatch.setattr(compiler_start.atexit, "register", lambda function, process: kept.append((function, process)))
    process = compiler_start.precompile_headers()
    assert process is not None and process.poll() is None
    end, same = kept[0]
    end(same)
    assert process.wait(timeout=5) < 0
    marker = compiler_start.headers_marker()
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert compiler_start.precompile_headers() is None


def test_the_helper_leaves_the_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_start, "TRIVIAL", "pass")
    compiler_start.headers_marker().parent.mkdir(parents=True)
    process = compiler_start.precompile_headers()
    assert process is not None and process.wait(timeout=60) == 0
    assert compiler_start.headers_marker().exists()


@pytest.mark.parametrize(
    "settings",
    [HardwareSettings(compile=False), HardwareSettings(compile=True, accelerator="cuda")],
    ids=["not compiled", "not on a CPU"],
)
def test_nothing_is_begun_in_vain(monkeypatch: pytest.MonkeyPatch, settings: HardwareSettings) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("started a process")

    monkeypatch.setattr(subprocess, "Popen", fail)
    monkeypatch.setattr(subprocess, "run", fail)
    compiler_start.prepare_compiler(settings)


def test_debug_tables_are_left_out_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = compiler_start.FOR_PROFILERS
    monkeypatch.setenv(first, "1")
    monkeypatch.setenv(second, "1")
    monkeypatch.delenv(second)
    compiler_start.prepare_compiler(HardwareSettings(accelerator="cpu"))
    assert (os.environ[first], os.environ[second]) == ("1", "0")


WITHOUT_TRITON = """
import sys
from litgpt_core.training.compiler_start import prepare_compiler
from litgpt_core.config.trainer import HardwareSettings
prepare_compiler(HardwareSettings(accelerator="cpu", compile=False))
from litgpt_core.training.lean_import import import_lightning_lean
import_lightning_lean()
import torch.utils.flop_counter
import torch
assert torch.equal(torch.compile(lambda x: x + 1)(torch.zeros(3)), torch.ones(3))
print([name for name, module in sys.modules.items() if name.split(".")[0] == "triton" and module is not None])
"""


TRITON_BACK = """
import sys
from litgpt_core.training.compiler_start import leave_triton_out, let_triton_in
leave_triton_out()
import torch
let_triton_in()
from torch.utils._triton import has_triton_package
import importlib.util
assert has_triton_package() == (importlib.util.find_spec("triton") is not None)
let_triton_in()
"""


def test_a_gpu_that_is_found_later_gets_triton_back() -> None:
    subprocess.run([sys.executable, "-c", TRITON_BACK], check=True)


@pytest.mark.nightly
def test_on_a_cpu_triton_is_neither_loaded_nor_missed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert "triton" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="files have no owners there")
def test_a_cache_folder_that_others_may_write_to_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(compiler_start.CACHE_VARIABLE, "x")  # restored afterwards
    monkeypatch.delenv(compiler_start.CACHE_VARIABLE)
    monkeypatch.setattr(compiler_start.tempfile, "gettempdir", lambda: str(tmp_path))
    usual = compiler_start._usual_cache()
    compiler_start.leave_shared_cache()
    assert compiler_start.CACHE_VARIABLE not in os.environ, "it is not there yet"
    usual.mkdir(mode=0o755)
    usual.chmod(0o755)
    compiler_start.leave_shared_cache()
    assert compiler_start.CACHE_VARIABLE not in os.environ, "this user's own"
    usual.chmod(0o777)
    compiler_start.leave_shared_cache()
    chosen = Path(os.environ[compiler_start.CACHE_VARIABLE])
    assert chosen != usual and chosen.stat().st_mode & 0o077 == 0
    assert "others may write to" in caplog.text
    assert compiler_start.headers_marker().is_relative_to(chosen)
    chosen.rmdir()
