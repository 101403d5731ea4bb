"""nanoGPT, from a copy of the user's files in the working directory: its `generate`, and the loss of its checkpoint."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.children.timing import time_generations

WINDOWS = 64
"""Sequences of one forward pass of `evaluate`."""


def _nanogpt() -> Any:
    sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module("model")


def generate(job: dict[str, Any]) -> dict[str, Any]:
    """Build with random weights, generate, time.

    Its sample.py prints no times, so the model is called here: float32, which is its choice on a CPU, no KV cache,
    `top_k=1`.
    """
    import torch

    nanogpt = _nanogpt()
    shape = job["model"]
    torch.manual_seed(1337)
    config = nanogpt.GPTConfig(
        block_size=shape["block_size"],
        vocab_size=shape["padded_vocab_size"],
        n_layer=shape["n_layer"],
        n_head=shape["n_head"],
        n_embd=shape["n_embd"],
        dropout=0.0,
        bias=shape["bias"],
    )
    device = job["device"]
    model = nanogpt.GPT(config).to(device).eval()
    prompt = torch.tensor([job["prompt_ids"]], device=device)

    def tokens(count: int) -> int:
        with torch.no_grad():
            generated: int = model.generate(prompt, count, top_k=1).size(1) - prompt.size(1)
        return generated

    return time_generations(tokens, new_tokens=job["new_tokens"], repeats=job["repeats"], spawned_at=job["spawned_at"])


def evaluate(job: dict[str, Any]) -> dict[str, Any]:
    """Loss of `out/ckpt.pt` in nats per token, the number of tokens, and the model's parameters.

    nanoGPT's own evaluation samples random batches. Here its checkpoint is evaluated on the whole validation split, in
    windows that do not overlap, as our final validation does.
    """
    import numpy as np
    import torch

    nanogpt = _nanogpt()
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
