"""Runs in a process of its own, in a folder with a copy of the user's nanoGPT that has just trained: what it reached.

nanoGPT's own evaluation draws random batches. Here its checkpoint is read over the whole validation split, in windows
that do not overlap, as our closing validation does.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.child import carry_out

WINDOWS = 64
"""Of one forward pass."""


def evaluate(job: dict[str, Any]) -> dict[str, Any]:
    """Loss of `out/ckpt.pt` in nats per token, the tokens counted, and the model's parameters."""
    import numpy as np
    import torch

    sys.path.insert(0, str(Path.cwd()))
    nanogpt = importlib.import_module("model")
    saved = torch.load(Path("out") / "ckpt.pt", map_location="cpu", weights_only=True)
    model = nanogpt.GPT(nanogpt.GPTConfig(**saved["model_args"]))
    model.load_state_dict({name.removeprefix("_orig_mod."): value for name, value in saved["model"].items()})
    model.eval()
    ids = torch.from_numpy(np.fromfile(job["val"], dtype=np.uint16).astype(np.int64))
    width = saved["model_args"]["block_size"]
    starts = list(range(0, len(ids) - 1, width))
    total, count = 0.0, 0
    with torch.no_grad():
        full = [start for start in starts if start + width < len(ids)]
        groups = [full[i : i + WINDOWS] for i in range(0, len(full), WINDOWS)] + [[s] for s in starts[len(full) :]]
        for group in groups:
            length = min(width, len(ids) - 1 - group[-1])
            inputs = torch.stack([ids[start : start + length] for start in group])  # (B, T)
            targets = torch.stack([ids[start + 1 : start + 1 + length] for start in group])
            total += float(model(inputs, targets)[1]) * targets.numel()
            count += targets.numel()
    return {
        "val_loss": total / count,
        "tokens": count,
        "iteration": saved["iter_num"],
        "n_params": sum(parameter.numel() for parameter in model.parameters()),
    }


if __name__ == "__main__":
    carry_out(evaluate)
