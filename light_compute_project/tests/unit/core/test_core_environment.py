from __future__ import annotations

from pathlib import Path

import pytest
import torch

from litgpt_core.core import environment

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Some Processor
stepping\t: 8
flags\t\t: fpu avx2 avx512f

processor\t: 1
vendor_id\t: Another
flags\t\t: fpu
"""


def test_the_processor_is_told_from_its_first_core(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(CPUINFO)
    found = environment.processor(file)
    assert [found[key] for key in ("vendor", "family", "model", "stepping")] == ["GenuineIntel", "6", "143", "8"]
    file.write_text(CPUINFO.replace("fpu avx2 avx512f", "avx512f fpu avx2"))
    assert environment.processor(file) == found, "the order of flags says nothing"
    file.write_text(CPUINFO.replace("avx512f", ""))
    assert environment.processor(file)["flags_sha256"] != found["flags_sha256"]
    assert set(environment.processor(tmp_path / "absent").values()) == {None}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 2024\nGCC version: 12.3.0",
            "535.183.01",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build", "580.95.05"),
        ("something else", None),
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path: Path, text: str, version: str | None) -> None:
    (tmp_path / "version").write_text(text)
    assert environment.nvidia_driver(tmp_path / "version") == version
    assert environment.nvidia_driver(tmp_path / "absent") is None


def test_only_variables_that_can_change_a_result_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    monkeypatch.delenv("KMP_AFFINITY", raising=False)
    found = environment.recorded_variables()
    assert found["MKL_CBWR"] == "AVX2" and "KMP_AFFINITY" not in found and "WANDB_API_KEY" not in found


def test_switches_are_read_as_they_stand() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        assert environment.determinism()["deterministic_algorithms"] is True
        torch.use_deterministic_algorithms(False)
        assert environment.determinism()["deterministic_algorithms"] is False
    finally:
        torch.use_deterministic_algorithms(before)


def test_the_builds_hash_leaves_the_machine_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(text: str) -> str:
        monkeypatch.setattr(torch.__config__, "show", lambda: text)
        return str(environment.torch_build()["config_sha256"])

    one = build("PyTorch built with:\n  - GCC 13.3\n  - CPU capability usage: AVX512\n")
    assert one == build("PyTorch built with:\n  - GCC 13.3\n  - CPU capability usage: AVX2\n")
    assert one != build("PyTorch built with:\n  - GCC 13.4\n  - CPU capability usage: AVX512\n")


def test_facts_keep_the_names_that_older_records_have() -> None:
    facts = environment.machine_facts(device="cpu")
    assert facts["torch_threads"] == facts["threads"]["torch"] == torch.get_num_threads()
    assert facts["versions"]["torch"] == facts["packages"]["torch"]["version"]
    assert {"platform", "cpu", "device_name", "git", "cpu_capability"} <= facts.keys()
