"""`samples.txt`: what the finished model says, through the same engine that `scripts/generate.py` uses."""

from __future__ import annotations

import logging

import torch

from litgpt_core import tokenizers
from litgpt_core.core.errors import TokenizerError
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.sampling import SamplingSettings
from litgpt_core.model.gpt import GPT
from litgpt_core.training.plan import Plan
from litgpt_core.training.run_folder import write_text

logger = logging.getLogger(__name__)

SAMPLING = SamplingSettings(temperature=0.8, top_k=50)


def write_samples(plan: Plan, *, model: GPT) -> list[tuple[str, str]]:
    """Continue every prompt of `trainer.sample_prompts`; write `samples.txt` and return prompts and continuations."""
    settings, seed = plan.resolved.config.trainer.evaluation, plan.resolved.config.seed
    if not settings.sample_tokens or not settings.sample_prompts:
        return []
    was_training, random_state = model.training, torch.get_rng_state()
    tokenizer = tokenizers.load(plan.data.tokenizer_dir)
    engine = Engine(model.eval(), tokenizer, add_bos=tokenizer.use_bos)
    samples = []
    parts = [
        f"temperature {SAMPLING.temperature}, top_k {SAMPLING.top_k}, seed {seed}, "
        f"{settings.sample_tokens} new tokens each\n"
    ]
    for prompt in settings.sample_prompts:
        try:
            text = engine.generate_text(prompt, max_new_tokens=settings.sample_tokens, sampling=SAMPLING, seed=seed)
        except TokenizerError as error:
            logger.warning("no sample for the prompt %r: %s", prompt, error.given)
            continue
        samples.append((prompt, text))
        parts.append(f"\n===== prompt: {prompt!r}\n{prompt}{text}\n")
    model.clear_kv_cache()
    model.train(was_training)
    torch.set_rng_state(random_state)
    write_text(plan.folder.samples, "".join(parts))
    return samples
