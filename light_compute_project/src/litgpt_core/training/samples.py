"""`samples.txt`: what the finished model says, through the same engine that `scripts/generate.py` uses."""

from __future__ import annotations

from pathlib import Path

import torch

from litgpt_core import tokenizers
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.sampling import SamplingSettings
from litgpt_core.model.gpt import GPT
from litgpt_core.training.run_folder import RunFolder, write_text
from litgpt_core.training.settings import TrainerSettings

SAMPLING = SamplingSettings(temperature=0.8, top_k=50)


def write_samples(folder: RunFolder, *, model: GPT, tokenizer_dir: Path, settings: TrainerSettings, seed: int) -> str:
    """Continue every prompt of `trainer.sample_prompts`, write `samples.txt` and return its text; empty if none was
    asked for.
    """
    if not settings.sample_tokens or not settings.sample_prompts:
        return ""
    was_training, random_state = model.training, torch.get_rng_state()
    engine = Engine(model.eval(), tokenizers.load(tokenizer_dir))
    pieces = [
        f"temperature {SAMPLING.temperature}, top_k {SAMPLING.top_k}, seed {seed}, "
        f"{settings.sample_tokens} new tokens each\n"
    ]
    for prompt in settings.sample_prompts:
        text = engine.generate_text(prompt, max_new_tokens=settings.sample_tokens, sampling=SAMPLING, seed=seed)
        pieces.append(f"\n===== prompt: {prompt!r}\n{prompt}{text}\n")
    model.clear_kv_cache()
    model.train(was_training)
    torch.set_rng_state(random_state)
    text = "".join(pieces)
    write_text(folder.samples, text)
    return text
