"""Whole steps under fake CUDA tensors, in a process that believes in a GPU: see on_fake_cuda.py, no_gpu_runtime.c."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs Linux and gcc")
@pytest.mark.skipif(torch.version.cuda is None, reason="torch is not built for CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_whole_steps_under_fake_cuda_tensors(tmp_path: Path) -> None:
    library = tmp_path / "libcuda.so.1"
    source = str(HERE / "no_gpu_runtime.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), source], check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-rP", str(HERE / "on_fake_cuda.py")]
    done = subprocess.run(
        command, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=500
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\b11 passed", done.stdout)
