"""The first compilation on a CPU, made shorter, mostly by what TorchInductor does before its first kernel.

It probes each vector instruction set by building and loading a test library, seconds each, although the processor and
the compiler can simply be asked. And it precompiles its C++ headers, which a second process can do while this one still
imports and prepares. Both are kept on disk, so only the first run on a machine gains. Every run gains by not loading
what only GPUs need.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import importlib.metadata
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from litgpt_core.config.trainer import HardwareSettings
from litgpt_core.core import machine
from litgpt_core.core.ownership import shared_with

GPUS = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")
"""One of these is there where torch may find a GPU: NVIDIA's driver, Windows' subsystem for Linux, AMD's driver."""
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
PROBE_SWITCH = "TORCHINDUCTOR_VEC_ISA_OK"
FLAGS = {
    "avx512f": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
}
"""What TorchInductor asks of the compiler, by the processor's own name for the instruction set."""
FOR_PROFILERS = ("AOT_INDUCTOR_ENABLE_LINE_TABLES", "AOT_INDUCTOR_ENABLE_FRAME_POINTER")
"""Switches of TorchInductor's whose default makes every kernel's compilation longer, for profiling tools."""
TRIVIAL = "import torch; torch.compile(torch.nn.functional.gelu)(torch.zeros(64))"


def prepare_compiler(settings: HardwareSettings) -> None:
    """Begin before torch is imported. On a CPU triton is left out; all else is for runs that compile, on Linux.

    Args:
        settings: With `compile=auto`, which is decided later, and with training kernels only the probes are saved.
    """
    on_cpu = settings.accelerator == "cpu" or (settings.accelerator == "auto" and not any(map(os.path.exists, GPUS)))
    if on_cpu:
        leave_triton_out()
    if sys.platform != "linux" or settings.compile is False or not on_cpu or machine.compile_obstacle("cpu"):
        return
    leave_shared_cache()
    for name in FOR_PROFILERS:
        os.environ.setdefault(name, "0")
    trust_instruction_set()
    if settings.compile is True and settings.cpu_kernels is False:  # they mostly take the place of the compiler
        precompile_headers()


def leave_shared_cache() -> None:
    """Give TorchInductor a private cache folder if another user may have written the usual one: it runs what is there.

    The usual one has a known name in the folder for temporary files. A choice in the environment stands.
    """
    if CACHE_VARIABLE in os.environ:
        return
    try:
        reason = shared_with(_usual_cache())
    except (KeyError, OSError):  # not there yet: torch makes it
        return
    if reason:
        folder = tempfile.mkdtemp(prefix="light-compute-inductor-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[CACHE_VARIABLE] = folder
        logging.getLogger(__name__).warning(
            "kernels are compiled for this process alone, because %s; %s=FOLDER keeps them", reason, CACHE_VARIABLE
        )


def _usual_cache() -> Path:
    return Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"


def leave_triton_out() -> None:
    """Have `import triton` fail, as where it is not installed. It makes kernels for GPUs, but torch and Lightning load
    it wherever they find it: 55 MB.
    """
    if "triton" not in sys.modules:
        sys.modules["triton"] = None  # type: ignore[assignment]
        logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # it would say that triton is missing


def let_triton_in() -> None:
    """Undo `leave_triton_out`: a GPU was found after all."""
    if sys.modules.get("triton", ...) is None:
        del sys.modules["triton"]


def trust_instruction_set() -> bool:
    """Tell TorchInductor not to probe, if the compiler knows the flags of what the processor has.

    A choice that the user made in the environment stands.

    Returns:
        Whether the switch is set now.
    """
    if PROBE_SWITCH in os.environ:
        return True
    if platform.machine() != "x86_64":
        return False
    known = _processor_flags()
    wanted = [flag for name, flags in FLAGS.items() if name in known for flag in flags]
    compiler = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if not wanted or shutil.which(compiler[0]) is None:
        return False
    empty = [*compiler, *wanted, "-fsyntax-only", "-x", "c++", os.devnull]
    try:
        done = subprocess.run(empty, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode == 0:
        os.environ[PROBE_SWITCH] = "1"
    return done.returncode == 0


def precompile_headers() -> subprocess.Popen[bytes] | None:
    """Have another process compile something trivial, which leaves the precompiled headers where this one looks.

    Returns:
        The process, which is ended with this one at the latest; None where it was done before.
    """
    marker = headers_marker()
    if marker.exists():
        return None
    quiet = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    leave = f"; import pathlib; pathlib.Path({str(marker)!r}).touch()"
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", TRIVIAL + leave],
            env={**os.environ, **quiet},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that the compiler it runs can be ended with it
        )
    except OSError:
        return None
    atexit.register(_end, process)
    return process


def headers_marker() -> Path:
    """A file beside TorchInductor's precompiled headers that says they are there for this version of torch."""
    with contextlib.suppress(KeyError, OSError):
        chosen = os.environ.get(CACHE_VARIABLE)
        folder = (Path(chosen) if chosen else _usual_cache()) / "precompiled_headers"
        return folder / f"made-for-torch-{importlib.metadata.version('torch')}"
    return Path(os.devnull)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=5)


def _processor_flags() -> set[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore").splitlines():
            if line.startswith("flags"):
                return set(line.split(":", 1)[1].split())
    return set()
