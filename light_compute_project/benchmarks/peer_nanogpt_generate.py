"""Runs in a process of its own, in a folder with a copy of the user's nanoGPT: its model, its `generate`.

Its sample.py prints no times, so the model is called here: float32 as on any CPU there, no KV cache, `top_k=1`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.child import carry_out, time_generations


def generate(job: dict[str, Any]) -> dict[str, Any]:
    """Build with random weights, generate, time."""
    import torch

    sys.path.insert(0, str(Path.cwd()))
    nanogpt = importlib.import_module("model")
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
            made: int = model.generate(prompt, count, top_k=1).size(1) - prompt.size(1)
        return made

    return time_generations(tokens, new_tokens=job["new_tokens"], repeats=job["repeats"], spawned_at=job["spawned_at"])


if __name__ == "__main__":
    carry_out(generate)
