"""transformers' GPT-2: training with its Trainer, and generation with its KV cache."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from benchmarks.children.timing import time_generations


def _gpt2(shape: dict[str, Any], *, vocab_size: int, **settings: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(  # type: ignore[no-untyped-call]
        vocab_size=vocab_size,
        n_positions=shape["block_size"],
        n_embd=shape["n_embd"],
        n_layer=shape["n_layer"],
        n_head=shape["n_head"],
        **settings,
    )
    return GPT2LMHeadModel(config)  # type: ignore[no-untyped-call]


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train; returns `seconds` of each step but the first, and the mean `train_loss`."""
    import numpy as np
    import torch
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    torch.manual_seed(1337)
    ids = np.memmap(job["ids"], dtype=np.uint16, mode="r")
    length, cpu = int(job["block_size"]), job["device"] == "cpu"
    starts = np.random.default_rng(1337).integers(0, len(ids) - length, size=100_000)

    class Windows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return len(starts)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            window = torch.from_numpy(ids[starts[index] : starts[index] + length].astype(np.int64))
            return {"input_ids": window, "labels": window}

    ends: list[float] = []

    class StepTimes(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            if not cpu:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = _gpt2(job, vocab_size=job["vocabulary"], activation_function="gelu", use_cache=False, **dropout)
    arguments = TrainingArguments(
        output_dir="out",
        max_steps=job["steps"],
        per_device_train_batch_size=job["micro_batch_size"],
        gradient_accumulation_steps=job["batch_size"] // job["micro_batch_size"],
        learning_rate=job["lr"],
        adam_beta1=job["betas"][0],
        adam_beta2=job["betas"][1],
        weight_decay=job["weight_decay"],
        max_grad_norm=job["max_norm"],
        lr_scheduler_type="cosine",
        warmup_steps=min(100, job["steps"] // 2),
        bf16=job["bf16"],
        torch_compile=job["compile"],
        use_cpu=cpu,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=1337,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Windows(), callbacks=[StepTimes()])
    outcome = trainer.train()
    trainer.save_model()
    return {"seconds": [end - begin for begin, end in pairwise(ends)], "train_loss": outcome.training_loss}


def generate(job: dict[str, Any]) -> dict[str, Any]:
    """Build with random weights, generate greedily, time."""
    import torch

    shape, device = job["model"], job["device"]
    torch.manual_seed(1337)
    no_tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    model = _gpt2(shape, vocab_size=shape["padded_vocab_size"], **no_tokens)
    model = model.to(device, torch.bfloat16 if job["bf16"] else torch.float32).eval()
    prompt = torch.tensor([job["prompt_ids"]], device=device)
    mask = torch.ones_like(prompt)

    def tokens(count: int) -> int:
        generated = model.generate(
            prompt, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False
        )
        return int(generated.size(1) - prompt.size(1))

    return time_generations(tokens, new_tokens=job["new_tokens"], repeats=job["repeats"], spawned_at=job["spawned_at"])
