"""One forward and backward pass of the loss head, and its peak memory."""

from __future__ import annotations

import time
from typing import Any


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Returns `peak_mb` of the process (on CUDA the device), `rise_mb` over the peak before, `seconds` and `loss`."""
    import torch

    from litgpt_core.core.environment import describe_environment
    from litgpt_core.core.machine import peak_memory_mb
    from litgpt_core.model.loss import cross_entropy

    device = job["device"]
    torch.set_num_threads(job["threads"])
    generator = torch.Generator().manual_seed(1337)
    hidden = torch.randn(1, job["tokens"], job["width"], generator=generator).to(device).requires_grad_()
    weight = torch.empty(job["vocabulary"], job["width"]).normal_(std=0.02, generator=generator)
    weight = torch.nn.Parameter(weight.to(device))
    targets = torch.randint(job["vocabulary"], (1, job["tokens"]), generator=generator).to(device)
    head_loss = _training_loss(weight) if device == "cpu" else cross_entropy
    few = torch.zeros(1, 1, 2, device=device, requires_grad=True)  # imports and allocations that come once
    cross_entropy(few, few.detach()[0], targets[:, :1] * 0, chunk_size=1).backward()  # type: ignore[no-untyped-call]
    before = peak_memory_mb(device)
    started = time.perf_counter()
    loss = head_loss(hidden, weight, targets, chunk_size=job["chunk_size"])
    loss.backward()
    value = loss.item()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = peak_memory_mb(device)
    return {
        "peak_mb": peak,
        "rise_mb": peak - before,
        "seconds": seconds,
        "loss": value,
        "environment": describe_environment(device=device),
    }


def _training_loss(weight: Any) -> Any:
    """What a training on a CPU computes it with: the training kernels, or `cross_entropy` where there are none."""
    from litgpt_core.core.errors import EnvironmentProblem
    from litgpt_core.model import GPT
    from litgpt_core.model.config import GPTConfig
    from litgpt_core.model.loss import cross_entropy
    from litgpt_core.training.cpu_kernels import use_kernels

    vocabulary, width = weight.shape
    config = GPTConfig(
        n_layer=1, n_head=1, n_embd=width, block_size=8, vocab_size=vocabulary, padding_multiple=1, bias=False,
        mlp_class_name="GptNeoxMLP", norm_class_name="RMSNorm", parallel_residual=False,
    )  # fmt: skip
    model = GPT(config)
    model.lm_head.weight = weight
    try:
        return use_kernels(model)
    except EnvironmentProblem:
        return cross_entropy
