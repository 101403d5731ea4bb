"""Builds C++ kernels as shared libraries: once per machine, with its compiler, cached for the user. Here those of
generation (`kernels/`); those of training are another `KernelSource`, in `training/cpu_kernels`.

    sources + flags + processor --sha256--> NAME.so in the cache folder --yes--> load
                                                       '--no--> g++ (seconds) --atomic rename--> load

The folder is `$XDG_CACHE_HOME/light_compute_project/kernels`, by default below `~/.cache`. Loading a library runs it:
one that another user may have written is not loaded, and where others may write to the folder, the process builds into
a private one. The use of the library is in `kernel`. Linux only; elsewhere generation runs on plain PyTorch.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.ownership import shared_with

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("kernels")
MAIN = "decode.cpp"
COMPILERS = ("g++", "clang++", "c++")
FLAGS = (
    *("-std=c++17", "-O3", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi"),
    "--param=avoid-fma-max-bits=0",
)
"""The last one, which Clang ignores: tuned for AMD's Zen, GCC fuses multiplication and addition in some loops only, and
the bits of a sequence would depend on its batch."""
TUNING = {"x86_64": "-march=native", "AMD64": "-march=native", "aarch64": "-mcpu=native"}
BUILD_LIMIT_S = 120
WITHOUT = "--compile false, which needs no compiler"


@dataclass(frozen=True, kw_only=True)
class KernelSource:
    """The C++ of one library."""

    name: str
    """Begins the library's file name."""
    main: str
    """The file that is compiled, in the first folder."""
    folders: tuple[Path, ...]
    """All that it may include; a change of any file makes another library."""
    without: str
    """How to do without the library, for errors."""


def decode_source() -> KernelSource:
    """The kernel of generation."""
    return KernelSource(name="decode", main=MAIN, folders=(SOURCES,), without=WITHOUT)


@functools.cache
def load_kernel() -> ctypes.CDLL:
    """The kernel of generation, built first if it is not cached; later calls return the same object.

    Raises:
        EnvironmentProblem: Not Linux, no compiler, a compiler error, or no writable folder.
    """
    if _background_build is not None:
        _background_build.join()
    return load_library(decode_source())


def load_library(source: KernelSource) -> ctypes.CDLL:
    """The library, built first if it is not cached. Raises EnvironmentProblem, as `load_kernel` does."""
    library = cached_library(source)
    if os.path.lexists(library):
        try:
            if not (reason := shared_with(library)):
                return ctypes.CDLL(str(library))
            logger.warning("the CPU kernel is rebuilt, because another user may have written it: %s", reason)
        except OSError as problem:
            logger.warning("%s is corrupted and will be rebuilt: %s", library, problem)
    build(library, source)
    if reason := shared_with(library):
        raise EnvironmentProblem(
            f"The CPU kernel is not loaded, because another user may have replaced it: {reason}.",
            needed="a cache folder of your own",
            fix=f"XDG_CACHE_HOME=<a folder of yours>, or {source.without}",
        )
    return ctypes.CDLL(str(library))


_background_build: threading.Thread | None = None


def begin_build(*, device: str, compile: str) -> None:
    """Start building the library in the background if it is not cached, while this process imports torch.

    A failure is reported by `load_kernel`, which tries again. Does nothing where the kernel is unlikely to be used.

    Args:
        device: As in `Engine.from_directory`.
        compile: As in `Engine.from_directory`.
    """
    global _background_build
    if compile != "auto" or device not in ("auto", "cpu") or (device == "auto" and Path("/dev/nvidiactl").exists()):
        return
    with contextlib.suppress(EnvironmentProblem):
        library = cached_library()
        if not library.is_file():
            _background_build = threading.Thread(target=_build_quietly, args=(library,), daemon=True)
            _background_build.start()


def _build_quietly(library: Path) -> None:
    with contextlib.suppress(EnvironmentProblem):
        build(library)


def cached_library(source: KernelSource | None = None) -> Path:
    """Path of the library for these sources on this machine, built or not. Raises EnvironmentProblem outside Linux.

    Args:
        source: None: the kernel of generation.
    """
    source = source or decode_source()
    if sys.platform != "linux" or sys.byteorder != "little":
        raise EnvironmentProblem(f"The CPU kernel requires Linux; this is {platform.system()}.", fix=source.without)
    digest = hashlib.sha256()
    for part in (*_flags(), platform.machine(), _processor()):
        digest.update(part.encode() + b"\0")
    for file in (file for folder in source.folders for file in sorted(folder.iterdir())):
        if file.suffix in (".cpp", ".hpp"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return cache_folder() / f"{source.name}-{digest.hexdigest()[:20]}.so"


def cache_folder() -> Path:
    """The user's cache folder for built kernels; it may not exist yet. A private one where others may write to it."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "light_compute_project" / "kernels"
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        reason = shared_with(nearest)
    except OSError as problem:
        reason = str(problem)
    return _private_folder(reason) if reason else folder


@functools.cache
def _private_folder(reason: str) -> Path:
    """A folder for this process alone, removed at its end."""
    folder = tempfile.mkdtemp(prefix="light-compute-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    logger.warning("the CPU kernel is built for this process alone: %s", reason)
    return Path(folder)


def build(library: Path, source: KernelSource | None = None) -> None:
    """Compile to `library`, atomically, as other processes may build it concurrently. Raises EnvironmentProblem.

    Args:
        library: From `cached_library`.
        source: None: the kernel of generation.
    """
    source = source or decode_source()
    compiler = find_compiler(without=source.without)
    began = time.perf_counter()
    try:
        library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=library.parent, suffix=".building")
    except OSError as problem:
        raise EnvironmentProblem(
            f"{library.parent} cannot be written: {problem}.",
            needed="a cache folder for the CPU kernel",
            fix=f"XDG_CACHE_HOME=<a writable folder>, or {source.without}",
        ) from problem
    os.close(handle)
    temporary = Path(name)
    includes = [f"-I{folder}" for folder in source.folders]
    try:
        done = subprocess.run(
            [compiler, *_flags(), *includes, "-o", name, str(source.folders[0] / source.main)],
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT_S,
        )
        if done.returncode != 0:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise EnvironmentProblem(f"{compiler} could not build the CPU kernel: {first}", fix=source.without)
        temporary.chmod(0o700)
        temporary.replace(library)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise EnvironmentProblem(
            f"{compiler} could not build the CPU kernel: {problem}", fix=source.without
        ) from problem
    finally:
        temporary.unlink(missing_ok=True)
    logger.info("CPU kernel built in %.1f s, cached in %s", time.perf_counter() - began, library.parent)


def find_compiler(*, without: str = WITHOUT) -> str:
    """Path of the C++ compiler: `$CXX`, else g++, clang++ or c++. Raises EnvironmentProblem if none exists."""
    named = os.environ.get("CXX", "").split()
    for name in (*named[:1], *COMPILERS):
        if path := shutil.which(name):
            return path
    raise EnvironmentProblem(
        f"No C++ compiler was found ({', '.join(COMPILERS)}).",
        needed="a C++ compiler to build the CPU kernel",
        fix=f"apt-get install g++, or {without}",
    )


def _flags() -> tuple[str, ...]:
    return (*FLAGS, *filter(None, [TUNING.get(platform.machine())]))


def _processor() -> str:
    """The processor features that `-march=native` depends on: unequal machines may share a home directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(kinds)))
