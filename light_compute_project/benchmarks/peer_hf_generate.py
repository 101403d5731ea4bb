"""Runs in a process of its own: transformers' GPT2LMHeadModel and its `generate`, greedy, with its KV cache."""

from __future__ import annotations

from typing import Any

from benchmarks.child import carry_out, time_generations


def generate(job: dict[str, Any]) -> dict[str, Any]:
    """Build with random weights, generate, time."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    shape, device = job["model"], job["device"]
    torch.manual_seed(1337)
    model: Any = GPT2LMHeadModel(  # type: ignore[no-untyped-call]
        GPT2Config(  # type: ignore[no-untyped-call]
            vocab_size=shape["padded_vocab_size"],
            n_positions=shape["block_size"],
            n_embd=shape["n_embd"],
            n_layer=shape["n_layer"],
            n_head=shape["n_head"],
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )
    model = model.to(device, torch.bfloat16 if job["bf16"] else torch.float32).eval()
    prompt = torch.tensor([job["prompt_ids"]], device=device)

    def tokens(count: int) -> int:
        made = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
        )
        return int(made.size(1) - prompt.size(1))

    return time_generations(tokens, new_tokens=job["new_tokens"], repeats=job["repeats"], spawned_at=job["spawned_at"])


if __name__ == "__main__":
    carry_out(generate)
