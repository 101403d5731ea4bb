"""The same seed gives the same bits: forward, backward and three optimizer steps, in one process and in another."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from litgpt_core.doctor.model_checks import KINDS, build
from litgpt_core.model.loss import cross_entropy
from litgpt_core.optim.build import build_optimizer
from litgpt_core.optim.settings import AdamWSettings, MuonSettings, OptimSettings

OPTIMIZERS: dict[str, OptimSettings] = {
    "adamw": AdamWSettings(weight_decay=0.1),
    "muon": MuonSettings(weight_decay=0.1),
}
STEPS = 3


def trace(kind: str, optimizer: str, *, seed: int = 0) -> dict[str, Tensor]:
    """Everything that three training steps with dropout compute: losses, gradients, weights, optimizer state."""
    torch.manual_seed(seed)
    model = build(kind, seed=seed, dropout=0.1)
    stepper = build_optimizer(model, OPTIMIZERS[optimizer])
    names = {p: name for name, p in model.named_parameters()}
    seen: dict[str, Tensor] = {}
    for step in range(STEPS):
        idx = torch.randint(61, (4, 16))
        loss = cross_entropy(model.hidden(idx[:, :-1]), model.head, idx[:, 1:], chunk_size=20 * (step % 2), z_loss=1e-4)
        stepper.zero_grad()
        loss.backward()
        seen[f"{step} loss"] = loss.detach().clone()
        for p, name in names.items():
            assert p.grad is not None
            seen[f"{step} gradient of {name}"] = p.grad.clone()
        stepper.step()
        seen |= {f"{step} {name}": p.detach().clone() for p, name in names.items()}
    for p, state in stepper.state.items():
        seen |= {f"{key} of {names[p]}": torch.as_tensor(value).clone() for key, value in state.items()}
    return seen


def digest(kind: str, optimizer: str) -> str:
    """One hash over all of it, for comparison across processes."""
    content = hashlib.sha256()
    for name, tensor in sorted(trace(kind, optimizer).items()):
        content.update(name.encode())
        content.update(tensor.numpy().tobytes())
    return content.hexdigest()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_has_the_same_bits(kind: str, optimizer: str) -> None:
    first, second = trace(kind, optimizer), trace(kind, optimizer)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert not torch.equal(first["0 loss"], first["2 loss"]), "the steps do something"


def test_another_seed_has_other_bits() -> None:
    first, second = trace("MHA", "adamw"), trace("MHA", "adamw", seed=1)
    assert not torch.equal(first["2 loss"], second["2 loss"])


def test_another_process_has_the_same_bits() -> None:
    """With another hash seed, so that no order of a set or a dictionary of objects matters."""
    cases = [("mixture of experts", "muon"), ("GQA + QK-norm", "adamw")]
    code = (
        f"import runpy, torch; torch.set_num_threads(1); digest = runpy.run_path({str(Path(__file__))!r})['digest'];"
        f"print(*(digest(*case) for case in {cases!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest(*case) for case in cases]
