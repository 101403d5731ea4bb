"""The kernel is built once and cached, rebuilt when corrupted, and a failed build is reported."""

import logging
import os
import subprocess
from pathlib import Path

import pytest
import torch

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.generation import kernel_build
from litgpt_core.generation.choice import choose_decoder
from litgpt_core.generation.kernel import KernelDecoder
from litgpt_core.generation.torch_decoder import TorchDecoder


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache folder of its own, and no library that this process has loaded before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    kernel_build.load_kernel.cache_clear()
    monkeypatch.setattr(kernel_build, "_background_build", None)
    yield kernel_build.cache_folder()
    kernel_build.load_kernel.cache_clear()


@pytest.fixture
def short_source(fresh, monkeypatch, tmp_path):
    """One function in place of the kernel, which takes ten seconds to compile."""
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / kernel_build.MAIN).write_text('extern "C" int lc_lanes() { return 8; }\n')
    monkeypatch.setattr(kernel_build, "SOURCES", tmp_path / "short")
    return fresh


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)


def test_packed_weights_accept_zero_rows(tmp_path, kernel):
    """A chunk of a prompt needs no logits. Compiled without -O3, which may optimise a division by 0 away."""
    (tmp_path / "none.cpp").write_text(
        '#include "packed_weights.hpp"\n'
        "int main(int n, char**) {\n"
        "    float weights[4096] = {}, line[64] = {}, out[64] = {};\n"
        "    multiply_packed<float>(weights, 64, 0, 32, line, size_t(n - 1), Output{out, 32, nullptr, false});\n"
        "}\n"
    )
    program = tmp_path / "none"
    flags = [flag for flag in (*kernel_build.FLAGS, "-march=native") if flag not in ("-O3", "-shared", "-fPIC")]
    command = [kernel_build.find_compiler(), *flags, "-O1", f"-I{kernel_build.SOURCES}", "-o", str(program)]
    subprocess.run([*command, str(tmp_path / "none.cpp")], check=True, timeout=120)
    assert subprocess.run([str(program)], timeout=60).returncode == 0


def test_built_once_and_loaded_again_without_a_compiler(kernel, short_source, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="litgpt_core")
    assert kernel_build.load_kernel().lc_lanes() == 8
    assert [record.message[:19] for record in caplog.records] == ["CPU kernel built in"]
    assert [path.name for path in short_source.iterdir()] == [kernel_build.cached_library().name]
    kernel_build.load_kernel.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert kernel_build.load_kernel().lc_lanes() == 8
    assert len(caplog.records) == 1


def test_a_corrupted_library_is_rebuilt(kernel, short_source, caplog):
    short_source.mkdir(parents=True)
    kernel_build.cached_library().write_bytes(b"not a library")
    assert kernel_build.load_kernel().lc_lanes() == 8
    assert "corrupted" in caplog.text


def test_other_sources_are_another_library(fresh, monkeypatch, tmp_path):
    before = kernel_build.cached_library()
    copies = tmp_path / "kernels"
    copies.mkdir()
    for source in kernel_build.SOURCES.iterdir():
        (copies / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(kernel_build, "SOURCES", copies)
    assert kernel_build.cached_library() == before
    with (copies / "vector.hpp").open("a") as file:
        file.write("// another line\n")
    assert kernel_build.cached_library() != before


def test_a_missing_compiler_is_reported_and_plain_pytorch_decodes(build, fresh, no_compiler, caplog):
    caplog.set_level(logging.INFO, logger="litgpt_core")
    with pytest.raises(EnvironmentProblem, match=r"No C\+\+ compiler") as caught:
        kernel_build.load_kernel()
    assert "--compile false" in caught.value.fix
    assert isinstance(choose_decoder(build()), TorchDecoder)
    assert "plain PyTorch; not by the CPU kernel: No C++ compiler was found" in caplog.text


def test_a_compiler_error_is_quoted(fresh, monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'decode.cpp:1: error: too new' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(EnvironmentProblem, match="error: too new"):
        kernel_build.load_kernel()
    assert list(fresh.iterdir()) == [], "nothing half-built stays behind"


def test_a_cache_that_cannot_be_written_is_reported(fresh, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem, match="cannot be written") as caught:
        kernel_build.load_kernel()
    assert "XDG_CACHE_HOME" in caught.value.fix or "compiler" in caught.value.fix


def test_the_cache_is_in_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_build.cache_folder() == tmp_path / "light_compute_project" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert str(kernel_build.cache_folder()).startswith(str(tmp_path / "home" / ".cache"))


@pytest.mark.usefixtures("kernel")
def test_the_library_is_private_to_the_user_and_loaded_once(fresh, build):
    decoder = choose_decoder(build())
    assert isinstance(decoder, KernelDecoder)
    assert kernel_build.cached_library().stat().st_mode & 0o077 == 0
    assert kernel_build.cached_library().stat().st_uid == os.getuid()
    assert kernel_build.load_kernel() is kernel_build.load_kernel()
    assert torch.get_num_threads() == 1


def test_load_waits_for_a_background_build(kernel, short_source, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="litgpt_core")
    kernel_build.begin_build(device="cpu", compile="auto")
    assert kernel_build.load_kernel().lc_lanes() == 8
    assert [record.message[:19] for record in caplog.records] == ["CPU kernel built in"]
    kernel_build.begin_build(device="cpu", compile="auto")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("device", "compile"), [("cuda", "auto"), ("cpu", "false"), ("cpu", "true")])
def test_no_background_build_where_the_kernel_is_not_used(fresh, device, compile):
    kernel_build.begin_build(device=device, compile=compile)
    assert kernel_build._background_build is None and not fresh.exists()


def test_load_reports_a_failed_background_build(fresh, no_compiler):
    kernel_build.begin_build(device="cpu", compile="auto")
    with pytest.raises(EnvironmentProblem, match="compiler"):
        kernel_build.load_kernel()


def test_a_cache_folder_that_others_may_write_to_is_not_used(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built = []

    def build(library: Path, source: object) -> None:
        built.append(library)
        library.write_bytes(b"no library")
        library.chmod(0o700)

    monkeypatch.setattr(kernel_build, "build", build)
    kernel_build._private_folder.cache_clear()
    fresh.mkdir(parents=True)
    hostile = kernel_build.cached_library()
    hostile.write_bytes(b"hostile")
    fresh.chmod(0o777)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(OSError, match=r"decode-.*\.so"),
    ):  # what `build` left is no library
        kernel_build.load_kernel()
    assert built and built[0].parent != hostile.parent
    assert built[0].parent.stat().st_mode & 0o077 == 0
    assert "others may write to" in caplog.text
    assert hostile.read_bytes() == b"hostile"


def test_a_library_that_others_may_write_is_rebuilt(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def build(library: Path, source: object) -> None:
        raise EnvironmentProblem("built anew")

    monkeypatch.setattr(kernel_build, "build", build)
    fresh.mkdir(parents=True, mode=0o700)
    library = kernel_build.cached_library()
    library.write_bytes(b"hostile")
    library.chmod(0o666)
    with caplog.at_level(logging.WARNING), pytest.raises(EnvironmentProblem, match="built anew"):
        kernel_build.load_kernel()
    assert "another user may have written it" in caplog.text
