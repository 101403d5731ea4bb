"""Runs inside a process of its own: trains transformers' GPT-2 with its Trainer and writes the time of every step.

transformers is imported inside the function, so that this module can be looked at where it is not installed.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from benchmarks.child import carry_out


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train as the job says; `seconds` of each step but the first, and the mean `train_loss`."""
    import numpy as np
    import torch
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

    torch.manual_seed(1337)
    ids = np.memmap(job["corpus"], dtype=np.uint16, mode="r")
    length = int(job["block_size"])
    starts = np.random.default_rng(1337).integers(0, len(ids) - length, size=100_000)

    class Windows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return len(starts)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            window = torch.from_numpy(ids[starts[index] : starts[index] + length].astype(np.int64))
            return {"input_ids": window, "labels": window}

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            if not job["cpu"]:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    model = GPT2LMHeadModel(  # type: ignore[no-untyped-call]
        GPT2Config(  # type: ignore[no-untyped-call]
            vocab_size=job["vocabulary"],
            n_positions=length,
            n_embd=job["n_embd"],
            n_layer=job["n_layer"],
            n_head=job["n_head"],
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
    )
    arguments = TrainingArguments(
        output_dir="out",
        max_steps=job["steps"],
        per_device_train_batch_size=job["batch_size"],
        gradient_accumulation_steps=job["accumulate"],
        learning_rate=job["lr"],
        adam_beta1=job["betas"][0],
        adam_beta2=job["betas"][1],
        weight_decay=job["weight_decay"],
        max_grad_norm=job["max_norm"],
        lr_scheduler_type="cosine",
        warmup_steps=min(100, job["steps"] // 2),
        bf16=job["bf16"],
        torch_compile=job["compile"],
        use_cpu=job["cpu"],
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=1337,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Windows(), callbacks=[Clock()])
    outcome = trainer.train()
    trainer.save_model()
    seconds = [end - begin for begin, end in pairwise(ends)]
    return {"seconds": seconds, "train_loss": outcome.training_loss}


if __name__ == "__main__":
    carry_out(train)
