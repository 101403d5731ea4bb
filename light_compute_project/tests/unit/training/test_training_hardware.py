"""The `auto` settings resolve to something that works here, with a reason; impossible wishes are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from litgpt_core.config.trainer import HardwareSettings
from litgpt_core.core import machine, rates
from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.rates import known_part, number_kind, peak_flops
from litgpt_core.training import hardware

LONG, SHORT = 1e18, 1e9


def choose(settings: HardwareSettings, **model: Any) -> hardware.Hardware:
    """For this machine."""
    return hardware.choose_hardware(settings, hardware.look_at_machine(settings.accelerator), **model)


def test_auto_finds_a_device_and_a_precision() -> None:
    chosen = choose(HardwareSettings(), total_flops=SHORT, width=512)
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert chosen.device == best
    fast = "bf16-master" if best == "cpu" else "bf16-mixed"
    assert chosen.precision == (fast if chosen.fast_bf16 else "32-true")


def test_short_runs_are_not_compiled_and_long_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "compile_obstacle", lambda device: None)
    settings = HardwareSettings(accelerator="cpu", cpu_kernels=False)
    assert not choose(settings, total_flops=SHORT, width=512).compile
    assert choose(settings, total_flops=LONG, width=512).compile


def test_without_a_compiler_auto_runs_eagerly_and_true_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "compile_obstacle", lambda device: "no C++ compiler found")
    chosen = choose(HardwareSettings(accelerator="cpu"), total_flops=LONG, width=512)
    assert not chosen.compile and "no C++ compiler" in chosen.compile_reason
    with pytest.raises(EnvironmentProblem, match=r"trainer\.compile=auto"):
        choose(HardwareSettings(accelerator="cpu", compile=True), total_flops=LONG, width=512)


def test_absent_devices_and_float16_on_a_cpu_are_refused() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentProblem, match="accelerator=auto"):
            choose(HardwareSettings(accelerator="cuda"), total_flops=SHORT, width=512)
    with pytest.raises(EnvironmentProblem, match="precision=auto"):
        choose(HardwareSettings(accelerator="cpu", precision="16-mixed"), total_flops=SHORT, width=512)


def test_compile_obstacle_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert "compiler" in str(machine.compile_obstacle("cpu"))
    assert machine.compile_obstacle("mps") is not None


@pytest.mark.parametrize(
    ("precision", "kind"), [("bf16-mixed", "bf16"), ("bf16-true", "bf16"), ("16-mixed", "fp16"), ("32-true", "fp32")]
)
def test_number_kinds(precision: str, kind: str) -> None:
    assert number_kind(precision) == kind


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", None),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA RTX A1000 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA T400 4GB", None),
        ("Tesla T4", "T4"),
    ],
)
def test_gpu_names_match_whole_words(name: str, part: str | None) -> None:
    assert known_part(name) == part


def test_a_cpu_s_peak_is_the_fastest_product_s(monkeypatch: pytest.MonkeyPatch) -> None:
    # the clock is asked once for the deadline, then before, at the beginning and at the end of each product
    moments = iter([0.0, *(0.01, 0.02, 0.05), *(0.06, 0.07, 0.08), *(0.10, 0.11, 0.15), 0.31])
    monkeypatch.setattr(rates.time, "perf_counter", lambda: next(moments))
    rate, source = peak_flops("cpu", precision="32-true")
    assert rate == pytest.approx(2 * 1024**3 / 0.01), "the second product"
    assert "measured" in source


def test_narrow_uncompiled_models_stay_in_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_has_fast_bf16", lambda: True)
    monkeypatch.setattr(machine, "compile_obstacle", lambda device: None)
    settings = HardwareSettings(accelerator="cpu", cpu_kernels=False)
    precisions = [
        choose(settings, total_flops=flops, width=width).precision
        for flops, width in ((SHORT, 64), (SHORT, 512), (LONG, 64))
    ]
    assert precisions == ["32-true", "bf16-master", "bf16-master"]


def test_a_mixture_of_experts_keeps_its_weights_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_has_fast_bf16", lambda: True)
    auto = choose(HardwareSettings(accelerator="cpu"), total_flops=SHORT, width=512, experts=True)
    assert (auto.precision, auto.flat) == ("bf16-mixed", False)
    asked = HardwareSettings(accelerator="cpu", precision="bf16-master")
    assert choose(asked, total_flops=SHORT, width=64).lightning_precision == "32-true"
    with pytest.raises(EnvironmentProblem, match="mixture of experts"):
        choose(asked, total_flops=SHORT, width=512, experts=True)


def test_an_optimizer_of_another_class_has_no_flat_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_has_fast_bf16", lambda: True)
    settings = HardwareSettings(accelerator="cpu", compile=False)
    auto = choose(settings, total_flops=SHORT, width=512, custom_optimizer=True)
    assert (auto.precision, auto.flat) == ("bf16-mixed", False)
    with pytest.raises(EnvironmentProblem, match="with optim=custom"):
        asked = HardwareSettings(accelerator="cpu", precision="bf16-master")
        choose(asked, total_flops=SHORT, width=512, custom_optimizer=True)


def test_the_choice_is_a_function_of_what_was_found_not_of_this_machine() -> None:
    found = hardware.Machine(device="cuda", fast_bf16=True, compile_obstacle="no compiler")
    chosen = hardware.choose_hardware(HardwareSettings(), found, total_flops=LONG, width=64, processes=4)
    assert (chosen.device, chosen.precision, chosen.compile, chosen.flat) == ("cuda", "bf16-mixed", False, False)
    assert chosen.compile_reason == "no compiler"


def test_training_kernels_take_the_place_of_the_compiler() -> None:
    """In the number type that they are fastest in, unless something else is faster."""
    plain, avx512, other = (
        hardware.Machine(device="cpu", fast_bf16=bf16, compile_obstacle=None, kernel_bf16=kernel)
        for bf16, kernel in ((False, False), (True, True), (True, False))
    )
    amx = replace(avx512, amx=True)

    def chosen(
        found: hardware.Machine, *, flops: float = LONG, width: int = 64, **settings: Any
    ) -> tuple[bool, bool, str]:
        more = {"kernel_obstacle": settings.pop("obstacle", None), "processes": settings.pop("processes", 1)}
        one = hardware.choose_hardware(HardwareSettings(**settings), found, total_flops=flops, width=width, **more)
        return one.cpu_kernels, one.compile, one.precision

    assert chosen(plain) == (True, False, "32-true")
    assert chosen(avx512) == (True, False, "bf16-mixed")
    assert chosen(avx512, width=512) == (True, False, "bf16-mixed")
    assert chosen(amx) == (True, False, "bf16-mixed")
    assert chosen(amx, width=512) == (False, True, "bf16-master")
    assert chosen(amx, width=512, cpu_kernels=True) == (True, False, "bf16-mixed")
    assert chosen(other) == (False, True, "bf16-master")
    assert chosen(other, precision="32-true") == (True, False, "32-true")
    assert chosen(avx512, precision="bf16-master") == (False, True, "bf16-master")
    assert chosen(plain, precision="bf16-mixed") == (False, True, "bf16-mixed")
    assert chosen(replace(plain, builds_kernels=False))[:2] == (False, True)
    for found in (plain, avx512):
        assert not chosen(found, flops=SHORT)[0] and not chosen(found, compile=False)[0]
        assert chosen(found, flops=SHORT, compile=True)[:2] == (True, False)
        assert chosen(found, obstacle="dropout")[:2] == (False, True)
        assert chosen(found, cpu_kernels=False)[:2] == (False, True)
        assert chosen(found, cpu_kernels=True, flops=SHORT)[0]
        assert chosen(found, processes=2, strategy="ddp")[0] and not chosen(found, processes=2, strategy="fsdp")[0]


def test_training_kernels_that_are_asked_for_need_a_cpu_and_their_number_types() -> None:
    slow, fast = (hardware.Machine(device="cpu", fast_bf16=fast, compile_obstacle=None) for fast in (False, True))

    def kernels(found: hardware.Machine, **settings: Any) -> bool:
        return hardware.choose_hardware(HardwareSettings(**settings), found, total_flops=SHORT, width=512).cpu_kernels

    assert kernels(slow, cpu_kernels=True) and kernels(fast, cpu_kernels=True)
    with pytest.raises(EnvironmentProblem, match=r"trainer\.cpu_kernels=true with bf16-master on cpu"):
        kernels(fast, cpu_kernels=True, precision="bf16-master")
    with pytest.raises(EnvironmentProblem, match=r"trainer\.cpu_kernels=true with bf16-mixed on cpu"):
        kernels(slow, cpu_kernels=True, precision="bf16-mixed")
