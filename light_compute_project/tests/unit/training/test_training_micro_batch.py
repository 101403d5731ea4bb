"""`trainer.micro_batch_size=auto` becomes a number once, and the number fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from litgpt_core.config import compose as configuration
from litgpt_core.config.compose import TrainConfig, dump
from litgpt_core.config.trainer import BatchSettings
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.model.config import GPTConfig
from litgpt_core.planning.memory import SHARE, memory
from litgpt_core.planning.recipe import DeviceLayout, recipe_of
from litgpt_core.training import micro_batch
from litgpt_core.training.hardware import Hardware

SHAPE = GPTConfig(n_layer=4, n_head=4, n_embd=64, block_size=64, vocab_size=64, parallel_residual=False)


def hardware(*, precision: str = "32-true", flat: bool = True, device: str = "cpu") -> Hardware:
    return Hardware(device=device, precision=precision, compile=False, compile_reason="", fast_bf16=False, flat=flat)


def auto(*overrides: str) -> TrainConfig:
    return configuration.load(["trainer.micro_batch_size=auto", "trainer.global_batch_size=24", *overrides])


def test_divisors_come_largest_first() -> None:
    assert micro_batch.divisors(12) == [12, 6, 4, 3, 2, 1]


def estimate(shape: GPTConfig, batch: int, *overrides: str, where: Hardware | None = None) -> float:
    """Bytes that `auto` reckons with for so many sequences at once."""
    sized = auto(f"trainer.global_batch_size={batch}", *overrides)
    precision = (where or hardware()).precision
    recipe = recipe_of(sized, model=shape, precision=precision, device="cpu")  # type: ignore[arg-type]
    return memory(dataclasses.replace(recipe, micro_batch=batch), DeviceLayout()).peak


@pytest.mark.parametrize("precision", ["32-true", "bf16-master", "bf16-mixed"])
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_larger_batches_need_more_and_never_less_per_sequence(checkpointing: str, precision: str) -> None:
    where, mode = hardware(precision=precision), f"trainer.activation_checkpointing={checkpointing}"
    needs = [estimate(SHAPE, n, mode, where=where) for n in (1, 16, 32, 64)]
    steps = [(b - a) / n for a, b, n in zip(needs, needs[1:], (15, 16, 32), strict=False)]
    assert 0 < steps[0] <= steps[1] * 1.01 and steps[2] == pytest.approx(steps[1], rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_can_be_estimated(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, where = build(kind).config, hardware(flat=kind != "mixture of experts")
    assert 0 < estimate(shape, 1) < estimate(shape, 4)
    monkeypatch.setattr(micro_batch, "available_memory", lambda: 10**12)
    before = torch.get_rng_state()
    assert micro_batch.decide(auto(), model=shape, hardware=where).trainer.batch.micro_batch_size == 24
    assert torch.equal(torch.get_rng_state(), before)


def test_a_cpu_takes_the_largest_divisor_within_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for sequences in (6, 8, 23, 24):
        config = auto("trainer.global_batch_size=552")  # both 23 and 24 divide it
        recipe = recipe_of(config, model=SHAPE, precision="32-true", device="cpu")
        need = memory(dataclasses.replace(recipe, micro_batch=sequences), DeviceLayout()).peak
        enough = need / SHARE["cpu"] + 1
        monkeypatch.setattr(micro_batch, "available_memory", lambda enough=enough: int(enough))
        decided = micro_batch.decide(auto(), model=SHAPE, hardware=hardware())
        found[sequences] = decided.trainer.batch.micro_batch_size
        assert decided.trainer.batch.global_batch_size == 24
    assert found == {6: 6, 8: 8, 23: 12, 24: 24}


def test_the_decision_is_logged_with_its_reason_and_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(micro_batch, "available_memory", lambda: 10**12)
    with caplog.at_level("INFO", logger="litgpt_core"):
        decided = micro_batch.decide(auto(), model=SHAPE, hardware=hardware())
    assert "micro-batch: 24 of 24" in caplog.text and "75% of what is available" in caplog.text
    assert yaml.safe_load(dump(decided.plain))["trainer"]["micro_batch_size"] == 24
    assert decided.trainer.batch.micro_batch == 24


def test_too_little_for_one_sequence_is_one_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(micro_batch, "available_memory", lambda: 1000)
    assert micro_batch.decide(auto(), model=SHAPE, hardware=hardware()).trainer.batch.micro_batch_size == 1
    assert "trainer.activation_checkpointing=full" in caplog.text


def test_a_given_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    given = auto("trainer.micro_batch_size=6")
    assert micro_batch.decide(given, model=SHAPE, hardware=hardware()) is given
    assert micro_batch.recorded(given) is given


@pytest.mark.parametrize(("room", "expected"), [(100, 24), (12, 12), (7, 6), (1, 1)])
def test_a_gpu_goes_down_until_memory_suffices(room: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def trial(size: int) -> None:
        tried.append(size)
        if size > room:
            raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(micro_batch, "_cuda_trial", lambda *_, **__: trial)
    monkeypatch.setattr(micro_batch, "device_memory", lambda: 80 * 10**9)
    decided = micro_batch.decide(auto(), model=SHAPE, hardware=hardware(device="cuda", flat=False))
    assert decided.trainer.batch.micro_batch_size == expected
    assert tried == [n for n in micro_batch.divisors(24) if n >= expected], "largest first, and no further than needed"


def test_a_gpu_does_not_try_what_the_estimate_says_it_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    config = auto()
    recipe = recipe_of(config, model=SHAPE, precision="32-true", device="cuda")
    eight = memory(dataclasses.replace(recipe, micro_batch=8), DeviceLayout()).peak
    monkeypatch.setattr(micro_batch, "_cuda_trial", lambda *_, **__: tried.append)
    monkeypatch.setattr(micro_batch, "device_memory", lambda: int(eight) + 1)
    decided = micro_batch.decide(config, model=SHAPE, hardware=hardware(device="cuda", flat=False))
    assert tried == [8] and decided.trainer.batch.micro_batch_size == 8


def test_a_sharded_model_is_estimated_not_tried_whole_on_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a trial builds the whole model on one device")

    monkeypatch.setattr(micro_batch, "_cuda_trial", never)
    monkeypatch.setattr(micro_batch, "device_memory", lambda: 80 * 10**9)
    config = auto("trainer.strategy=fsdp")
    shared = dataclasses.replace(hardware(device="cuda", flat=False), sharded=True)
    decided = micro_batch.decide(config, model=SHAPE, hardware=shared, world_size=4, neighbours=4)
    assert decided.trainer.batch.micro_batch_size == 6, "a quarter of the global batch: it all fits"


def test_the_trial_of_a_chat_run_has_the_mask_of_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    class Network:
        config = SHAPE

        def parameters(self) -> Iterator[torch.Tensor]:
            yield torch.zeros(1)

        def hidden(self, ids: torch.Tensor, *, segments: torch.Tensor | None) -> torch.Tensor:
            seen.append(segments is not None)
            return torch.zeros(*ids.shape, 4, requires_grad=True)

        head = torch.zeros(64, 4)

    for segments in (False, True):
        micro_batch._micro_batch(
            Network(),  # type: ignore[arg-type]
            BatchSettings(global_batch_size=1),
            hardware=hardware(),
            batch=1,
            segments=segments,
        )
    assert seen == [False, True]
    chats = configuration.load(["+experiment=finetune_chat", "init_from=x"])
    assert recipe_of(chats, model=SHAPE, precision="32-true", device="cuda").segments


def test_a_gpu_too_small_for_one_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(size: int) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(micro_batch, "_cuda_trial", lambda *_, **__: trial)
    monkeypatch.setattr(micro_batch, "device_memory", lambda: 80 * 10**9)
    with pytest.raises(EnvironmentProblem, match="activation_checkpointing=full"):
        micro_batch.decide(auto(), model=SHAPE, hardware=hardware(device="cuda", flat=False))


def test_other_failures_of_a_trial_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(size: int) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr(micro_batch, "_cuda_trial", lambda *_, **__: trial)
    monkeypatch.setattr(micro_batch, "device_memory", lambda: 80 * 10**9)
    with pytest.raises(ValueError, match="a mistake"):
        micro_batch.decide(auto(), model=SHAPE, hardware=hardware(device="cuda", flat=False))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_finds_room_for_a_small_model() -> None:
    decided = micro_batch.decide(auto(), model=SHAPE, hardware=hardware(device="cuda", flat=False))
    assert decided.trainer.batch.micro_batch_size == 24


def test_a_resumed_run_takes_the_number_of_its_start(tmp_path: Path) -> None:
    here = (f"run.dir={tmp_path}", "run.name=r")
    decided = configuration.load([*here, "trainer.micro_batch_size=8", "trainer.global_batch_size=24"])
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.yaml").write_text(dump(decided.plain))
    resumed = micro_batch.recorded(auto(*here, "run.resume=true"))
    assert resumed.trainer.batch.micro_batch_size == resumed.plain["trainer"]["micro_batch_size"] == 8
    assert micro_batch.recorded(auto(*here)).trainer.batch.micro_batch_size == "auto", "a new run decides anew"
    other = auto(*here, "run.resume=true", "trainer.global_batch_size=20")
    assert micro_batch.recorded(other).trainer.batch.micro_batch_size == "auto", "the run folder refuses it by name"


def test_settings_know_auto_and_nothing_else_that_is_no_number() -> None:
    settings = BatchSettings(micro_batch_size="auto")
    with pytest.raises(ConfigError, match=r"trainer\.micro_batch_size=32"):
        _ = settings.micro_batch
    with pytest.raises(ConfigError, match="micro_batch_size"):
        configuration.load(["trainer.micro_batch_size=automatic"])


def test_available_memory_is_that_of_the_tightest_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"memory.max": "5000", "memory.current": "1000"}
    monkeypatch.setattr(Path, "read_text", lambda self: texts.get(self.name, "max"))
    assert micro_batch.available_memory() == 4000
    texts["memory.max"] = "max"
    assert micro_batch.available_memory() > 4000
