"""Does this GPU compute what the CPU computes? Small models, seconds; `lcp doctor --gpu` runs all checks.

Every check takes the device, so that the same code runs on a CPU, where it is compared with itself: a rehearsal for
tests. Nothing is written.

    numbers      logits and gradients of every kind of model, in float32 and by bfloat16 products
    steps        a batch is memorised by AdamW and by Muon
    resume       steps from a saved state equal the undisturbed ones, dropout included
    decoding     tokens of the engine's decoder equal the CPU's, one by one and many at once
    compilation  the compiled loss equals the eager one; one graph, nothing compiled twice
    memory       the peak of a step against the planner's estimate
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from litgpt_core.core import machine
from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.doctor.model_checks import KINDS, VOCABULARY, build
from litgpt_core.doctor.results import CheckFailed, CheckResult, run_check
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.sampling import sample
from litgpt_core.generation.sampling_settings import SamplingSettings
from litgpt_core.generation.torch_decoder import TorchDecoder
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.loss import cross_entropy
from litgpt_core.optim.build import build_optimizer, set_learning_rate
from litgpt_core.optim.settings import AdamWSettings, MuonSettings
from litgpt_core.planning.memory import memory
from litgpt_core.planning.recipe import DeviceLayout, Recipe
from litgpt_core.training.random_state import random_state, set_random_state

FLOAT32_BOUND, BFLOAT16_BOUND, RESUME_BOUND, MEMORY_BOUND = 1e-4, 3e-2, 1e-5, 0.10
"""Relative to the largest value; resumed losses: sums on a GPU may come in another order."""
PLANNED = GPTConfig(
    n_layer=6, n_head=8, n_embd=512, block_size=1024, vocab_size=8192, padding_multiple=64, parallel_residual=False,
    norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", intermediate_size=1408, bias=False, rotary_percentage=1.0,
)  # fmt: skip
"""Large enough for its tensors to outweigh the allocator's rounding."""

Check = Callable[[str], str]


def gpu_to_check(name: str) -> str:
    """The device that is meant; `auto` is CUDA, else MPS.

    Raises:
        EnvironmentProblem: It is not here.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next((each for each in ("cuda", "mps") if present[each]), "cuda")
    if not present[name]:
        raise EnvironmentProblem(
            f"torch {torch.__version__} finds no {name} device",
            needed="a GPU, its driver, and a build of torch for it: lcp doctor says which is missing",
            fix="lcp doctor --gpu --device cpu rehearses the checks",
        )
    return name


def run_gpu_checks(device: str) -> Iterator[CheckResult]:
    """Run all checks on `device` (`cuda`, `mps`, or `cpu` as a rehearsal), one result after the other."""
    checks: dict[str, Check] = {
        "device": check_device,
        "numbers in float32": partial(check_numbers, dtype=torch.float32),
        "numbers in bfloat16": partial(check_numbers, dtype=torch.bfloat16),
        "steps": check_steps,
        "resume": check_resume,
        "decoding": check_decoding,
        "compilation": check_compilation,
        "memory": check_memory,
    }
    for name, check in checks.items():
        yield run_check(name, partial(check, device))


def check_device(device: str) -> str:
    """Name, memory and what its arithmetic units can."""
    if device != "cuda":
        return machine.device_name(device)
    facts = torch.cuda.get_device_properties()
    bf16 = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bfloat16 hardware"
    return (
        f"{torch.cuda.device_count()} x {facts.name}, {facts.total_memory / 1e9:.0f} GB, compute capability "
        f"{facts.major}.{facts.minor}, {bf16}, torch {torch.__version__}"
    )


def check_numbers(device: str, *, dtype: torch.dtype) -> str:
    """Logits and gradients of every kind of model against the CPU in float32."""
    worst, where = 0.0, ""
    bound = FLOAT32_BOUND if dtype == torch.float32 else BFLOAT16_BOUND
    for kind in KINDS:
        expected = _logits_and_gradients(build(kind), "cpu", torch.float32)
        found = _logits_and_gradients(build(kind), device, dtype)
        compared = [n for n in expected if dtype == torch.float32 or not n.startswith("gradient of")]
        for name in compared:  # single small gradients are noise in bfloat16, their norm is not
            value = expected[name]
            difference = float((found[name] - value).abs().max() / value.abs().max().clamp(min=1e-6))
            if not difference <= bound:
                raise CheckFailed(f"{kind}: {name} differs by {difference:.1e} of its largest value, bound {bound:.0e}")
            worst, where = max((worst, where), (difference, f"{kind}, {name}"))
    return f"{len(KINDS)} kinds, largest difference {worst:.0e} of the largest value ({where})"


def _logits_and_gradients(model: GPT, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """As float32 on the CPU; under autocast where `dtype` is narrower."""
    model, idx = model.to(device), _tokens(4, 16).to(device)
    narrow = dtype != torch.float32
    with torch.autocast(device, dtype=dtype if narrow else torch.bfloat16, enabled=narrow):
        logits = model(idx[:, :-1])
        loss = cross_entropy(model.hidden(idx[:, :-1]), model.head, idx[:, 1:], chunk_size=7)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.nn.utils.get_total_norm(list(gradients.values()))
    found = {"logits": logits.detach(), "loss": loss.detach(), "norm of the gradients": norm, **gradients}
    return {name: value.float().cpu() for name, value in found.items()}


def check_steps(device: str) -> str:
    """A batch is memorised, with the optimizers' kernels of this device."""
    said = []
    for settings in (AdamWSettings(lr=1e-2, weight_decay=0.0), MuonSettings(matrix_lr=0.02, lr=1e-2)):
        losses = _train(build("GQA + QK-norm", n_embd=64).to(device), 60, settings=settings)
        if not losses[-1] < 0.5 * losses[0]:
            raise CheckFailed(f"{settings.kind}: {losses[0]:.2f} nats at first, {losses[-1]:.2f} after 60 steps")
        said.append(f"{settings.kind} {losses[0]:.2f} -> {losses[-1]:.2f}")
    return ", ".join(said) + " nats in 60 steps"


def _train(
    model: GPT, steps: int, *, settings: AdamWSettings | MuonSettings, optimizer: torch.optim.Optimizer | None = None
) -> list[float]:
    """The losses of so many steps on one batch."""
    model.train()
    optimizer = optimizer or build_optimizer(model, settings)
    set_learning_rate(optimizer, 1.0)
    idx, losses = _tokens(4, 16).to(model.device), []
    for _ in range(steps):
        loss = cross_entropy(model.hidden(idx[:, :-1]), model.head, idx[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return [float(loss) for loss in losses]


def check_resume(device: str) -> str:
    """Weights, optimizer and random states are put back in the middle; dropout's choices must come again."""
    settings = AdamWSettings(lr=1e-3)
    torch.manual_seed(7)
    model = build("MHA", dropout=0.2).to(device)
    optimizer = build_optimizer(model, settings)
    _train(model, 4, settings=settings, optimizer=optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict())), random_state()
    expected = _train(model, 4, settings=settings, optimizer=optimizer)
    again = build("MHA", dropout=0.2).to(device)
    stepper = build_optimizer(again, settings)
    again.load_state_dict(saved[0][0])
    stepper.load_state_dict(saved[0][1])
    set_random_state(saved[1])
    found = _train(again, 4, settings=settings, optimizer=stepper)
    worst = max(abs(a - b) / a for a, b in zip(expected, found, strict=True))
    if not worst <= RESUME_BOUND:
        raise CheckFailed(f"losses after the resume differ by {worst:.1e}: {found} instead of {expected}")
    return "bit by bit" if worst == 0 else f"to {worst:.0e}"


@torch.no_grad()
def check_decoding(device: str) -> str:
    """Greedy and sampled tokens in float32, alone and three at once, against the CPU."""
    settings = SamplingSettings(temperature=0.8, top_k=0, top_p=0.9)
    for kind in ("GQA + QK-norm", "windows + soft-caps", "latent attention"):
        for many, drawn in ((False, SamplingSettings(temperature=0.0)), (True, settings)):
            texts = [_decode(build(kind).eval(), place, many=many, settings=drawn) for place in ("cpu", device)]
            if texts[0] != texts[1]:
                raise CheckFailed(f"{kind}: tokens {texts[1]} instead of {texts[0]}")
    return "three kinds of attention, greedy and sampled"


def _decode(model: GPT, device: str, *, many: bool, settings: SamplingSettings) -> list[list[int]]:
    model, prompts = model.to(device), [[1, 2, 3], [4], [5, 6]] if many else [[1, 2, 3]]
    decoder = TorchDecoder(model)
    decoder.start(n_sequences=len(prompts), length=16)
    texts: list[list[int]] = [[] for _ in prompts]
    feeds = [Feed(row, 0, prompt) for row, prompt in enumerate(prompts)]
    for step in range(8):
        logits = decoder.feed(feeds)[:, :VOCABULARY]
        uniforms = [(0.37 * (step + 1) + 0.21 * row) % 1.0 for row in range(len(prompts))]
        tokens = sample(logits, [settings] * len(prompts), uniforms=uniforms)
        for row, token in enumerate(tokens):
            texts[row].append(token)
        feeds = [Feed(row, len(prompts[row]) + step, [token]) for row, token in enumerate(tokens)]
    decoder.finish()
    return texts


def check_compilation(device: str) -> str:
    """The compiled loss equals the eager one, in one graph that is compiled once. On a CPU without code generation."""
    obstacle = machine.compile_obstacle(device) if device != "cpu" else None
    if obstacle:
        return f"not available: {obstacle}"
    graphs: list[int] = []

    def counted(graph: Any, inputs: list[Any]) -> Any:
        from torch._inductor.compile_fx import compile_fx

        graphs.append(len(inputs))
        return graph.forward if device == "cpu" else compile_fx(graph, inputs)

    model = build("GQA + QK-norm").to(device)

    def loss(idx: Tensor) -> Tensor:
        return cross_entropy(model.hidden(idx[:, :-1]), model.head, idx[:, 1:], chunk_size=8)

    torch._dynamo.reset()
    compiled, worst = torch.compile(loss, backend=counted, dynamic=False), 0.0
    for seed in range(3):
        idx = _tokens(4, 17, seed=seed).to(device)
        values = [function(idx) for function in (loss, compiled)]
        values[1].backward()  # type: ignore[no-untyped-call]
        worst = max(worst, abs(float(values[1].detach() / values[0].detach()) - 1))
    torch._dynamo.reset()
    if worst > FLOAT32_BOUND or len(graphs) != 1:
        raise CheckFailed(f"{len(graphs)} graphs instead of 1, losses differ by {worst:.1e}")
    return f"one graph, losses equal to {worst:.0e}"


def check_memory(device: str) -> str:
    """What a step of training takes at most, by the allocator of the GPU; elsewhere only the estimate is shown."""
    plan = Recipe(model=PLANNED, precision="bf16-mixed", device="cuda", global_batch=8, micro_batch=8)
    expected = memory(plan, DeviceLayout()).peak
    if device != "cuda":
        return f"estimate {expected / 1e9:.2f} GB; measured on CUDA only"
    found = _peak_of_steps(plan)
    ratio = expected / found
    if abs(ratio - 1) > MEMORY_BOUND:
        raise CheckFailed(f"a step took {found / 1e9:.2f} GB, the estimate is {expected / 1e9:.2f} GB")
    return f"a step took {found / 1e9:.2f} GB, the estimate is {expected / 1e9:.2f} GB"


def _peak_of_steps(plan: Recipe) -> int:
    before = torch.cuda.memory_allocated()
    model = GPT(plan.model)
    initialize(model, seed=0)
    model = model.to("cuda")
    optimizer = build_optimizer(model, AdamWSettings())
    idx = torch.zeros(plan.micro_batch, plan.model.block_size + 1, dtype=torch.long, device="cuda")
    for step in range(3):
        if step == 2:
            torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = cross_entropy(model.hidden(idx[:, :-1]), model.head, idx[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        del loss
        optimizer.step()
    return int(torch.cuda.max_memory_allocated()) - before


def _tokens(batch: int, length: int, *, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))
