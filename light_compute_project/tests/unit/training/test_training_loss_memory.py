"""With `loss_chunk_size`, logits of a whole batch exist at no moment: not in training, not in validation."""

from __future__ import annotations

import pytest
import torch
from benchmarks.live_memory import LiveMemory
from torch import Tensor

from litgpt_core.config.trainer import BatchSettings, HardwareSettings
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.optim.settings import AdamWSettings
from litgpt_core.training.hardware import choose_hardware, look_at_machine
from litgpt_core.training.module import TrainingModule

BATCH, LENGTH, VOCABULARY, WIDTH, CHUNK = 4, 128, 16_384, 16, 32
WHOLE, CHUNK_SIZE, TABLE = BATCH * LENGTH * VOCABULARY, CHUNK * VOCABULARY, VOCABULARY * WIDTH


def module(*, chunk: int) -> TrainingModule:
    settings = HardwareSettings(accelerator="cpu", precision="32-true", compile=False)
    loss = BatchSettings(loss_chunk_size=chunk, z_loss=1e-4, label_smoothing=0.1)
    shape = GPTConfig(n_layer=1, n_head=2, n_embd=WIDTH, block_size=LENGTH, vocab_size=VOCABULARY)
    hardware = choose_hardware(settings, look_at_machine(settings.accelerator), total_flops=1.0, width=WIDTH)
    return TrainingModule(GPT(shape), optim=AdamWSettings(), batch=loss, max_steps=1000, hardware=hardware)


def batch() -> tuple[Tensor, Tensor]:
    idx = torch.randint(VOCABULARY, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    return idx[:, :-1], idx[:, 1:]


def step(trained: TrainingModule) -> LiveMemory:
    """Forward and backward; also counts what autograd itself keeps."""
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with LiveMemory() as watched, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trained.training_step(batch(), 0).backward()
    assert kept
    watched.largest = max(watched.largest, *kept)
    return watched


def test_training_holds_no_more_than_a_chunk_of_logits() -> None:
    whole, chunks = step(module(chunk=0)), step(module(chunk=CHUNK))
    assert whole.largest == WHOLE, "the measure sees logits of a whole batch where they exist"
    assert chunks.largest == max(CHUNK_SIZE, TABLE) < WHOLE / 8
    assert chunks.peak < whole.peak / 8


@pytest.mark.parametrize(("chunk", "largest"), [(0, WHOLE), (CHUNK, CHUNK_SIZE)])
def test_validation_likewise(chunk: int, largest: int) -> None:
    trained = module(chunk=chunk)
    trained.on_validation_epoch_start()
    with LiveMemory() as watched, torch.no_grad():
        trained.validation_step(batch(), 0)
    assert watched.largest == largest


def test_live_memory_counts_what_is_held_and_forgets_what_is_not() -> None:
    outside = torch.ones(1000)
    with LiveMemory() as watched:
        view = outside[:10].view(5, 2)
        assert (watched.live, watched.peak) == (0, 0), "what comes from outside, and its views, cost nothing"
        first = view + 1
        second = first.clone()
        assert watched.live == 80
        del first
        assert (watched.live, watched.peak) == (40, 80)
        second.add_(1)
        assert (watched.live, watched.largest) == (40, 10)
