"""How long an optimizer step takes, from counted work and data sheets: an estimate, not a measurement.

    compute     FLOPs of the step (`model/cost.py`, and what checkpointing repeats) / (devices * peak * MFU)
    exchange    bytes that weights and gradients take over the slowest link / (link * LINK_SHARE)
    optimizer   bytes that it reads and writes / the memory's bandwidth; for Muon also its products
    step        max(compute, exchange) + optimizer

Exchange is hidden behind computing as far as it is shorter. `MFU` and `LINK_SHARE` are assumptions, which a run of a
few minutes replaces: its `metrics.jsonl` has the MFU. Bytes per device, n devices, P numbers, ring algorithms:

    ddp           2 (n-1)/n * 4 P                                 gradients, float32, once per optimizer step
    fsdp          (n-1)/n * (2 to 3) * 2 P + (n-1)/n * 4 P        weights twice and gradients once, every micro-batch
                                                                  (gradients: of the step with `gradients_once`)
    fsdp_hybrid   fsdp within its group; then the shares' gradients among the copies, every micro-batch
    tensor        4 sums of the residual stream in each layer and micro-batch, 2 (n-1)/n * 2 C a token each, which
                  nothing hides: they are counted with computing

Across machines the same data enter every machine once, through all its network cards together.
"""

from __future__ import annotations

from dataclasses import dataclass

from litgpt_core.model.cost import count_parameters, flops_per_token, forward_flops_per_token
from litgpt_core.model.structure import Parameter, block_parameters, outer_parameters
from litgpt_core.model.tensor_slice import sliced
from litgpt_core.planning.gpus import GPU, PCIE_4
from litgpt_core.planning.recipe import DeviceLayout, Recipe, accumulates, reduced_width, setup_of, state_width

MFU = 0.4
"""Share of the peak that a well-fed run reaches. Published: PaLM 0.46, GPT-3 0.21 (Chowdhery et al. 2022, arXiv
2204.02311); Llama 3 with 405 billion parameters 0.38 to 0.43 (Dubey et al. 2024, arXiv 2407.21783). Small models and
small micro-batches reach less.
"""

LINK_SHARE = 0.8
"""Of a link's data-sheet rate."""

HOST_BANDWIDTH = 200e9
"""Of a machine's memory, bytes per second: with `cpu_offload` its processors step the optimizer."""

STEP_READS_WRITES = {"adamw": 7, "muon": 5}
"""Numbers per parameter: weight, gradient and one or two means are read, weight and means are written."""

NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """One optimizer step, seconds."""

    compute: float
    exchange: float
    """Over the slowest link."""
    optimizer: float
    tokens: int
    """Of the global batch."""

    @property
    def total(self) -> float:
        """Of the step."""
        return max(self.compute, self.exchange) + self.optimizer

    @property
    def tokens_per_s(self) -> float:
        """All devices together."""
        return self.tokens / self.total


def step_time(recipe: Recipe, layout: DeviceLayout, *, gpu: GPU, network_gbps: float, mfu: float = MFU) -> StepTime:
    """What one optimizer step takes.

    Args:
        recipe: Its micro-batch must be set.
        layout: Devices and strategy.
        gpu: What the devices are.
        network_gbps: Between machines, gigabits per second, all cards of a machine together.
        mfu: Share of the peak, of the work that is done, repeated work included.
    """
    tokens = recipe.tokens_per_step
    rate = gpu.peak("fp32" if recipe.precision == "32-true" else "bf16") * mfu
    inside, across = exchange_bytes(recipe, layout)
    exchange = max(inside / (gpu.link * LINK_SHARE), across / (network_gbps * 1e9 / 8 * LINK_SHARE))
    if layout.cpu_offload:
        exchange += _over_pcie(recipe, layout)
    return StepTime(
        compute=work_per_token(recipe, tensor=layout.tensor) * tokens / layout.devices / rate
        + tensor_bytes(recipe, layout) / (gpu.link * LINK_SHARE),
        exchange=exchange,
        optimizer=_optimizer(recipe, layout, bandwidth=gpu.bandwidth, rate=rate),
        tokens=tokens,
    )


def tensor_bytes(recipe: Recipe, layout: DeviceLayout) -> float:
    """Bytes per optimizer step that a device exchanges with those that compute each block with it."""
    c, n = recipe.model, layout.tensor
    sums = 6 if recipe.checkpointing == "full" else 4  # two forwards, two backwards, and recomputation
    tokens = recipe.tokens_per_step / layout.readers
    return sums * c.n_layer * tokens * c.n_embd * setup_of(recipe, layout).product * 2.0 * (n - 1) / n


def work_per_token(recipe: Recipe, *, tensor: int = 1) -> float:
    """FLOPs of forward and backward, with what is computed twice, and the head on each of `tensor` devices."""
    c = recipe.model
    head = 2.0 * c.n_embd * c.padded_vocab_size
    again = head if recipe.loss_chunk_size else 0.0
    if recipe.checkpointing == "full":
        again += forward_flops_per_token(c, seq_length=c.block_size) - head
    return (
        flops_per_token(c, seq_length=c.block_size) + again + (tensor - 1) * (4 if recipe.loss_chunk_size else 3) * head
    )


def exchange_bytes(recipe: Recipe, layout: DeviceLayout) -> tuple[float, float]:
    """Bytes per optimizer step that one device takes in from the others of its machine, and a machine from others."""
    n, machines, everything = layout.devices, layout.nodes, count_parameters(recipe.model)
    if layout.strategy == "ddp" or not layout.sharded:
        gradients = 2.0 * state_width(recipe) * everything
        return gradients * (n - 1) / n, gradients * (machines - 1) / machines
    c, narrow, reduced = recipe.model, setup_of(recipe, layout).product, reduced_width(recipe, layout)
    own = sliced(c, layout.tensor)
    of_blocks = [sum(p.size for p in block_parameters(own, layer)) for layer in range(c.n_layer)]
    twice = sum(of_blocks[:-1]) + (0 if c.tie_embeddings else c.padded_vocab_size * c.n_embd)
    times = accumulates(recipe, layout)
    sums = 1 if layout.gradients_once else times  # how often gradients are added up
    outer = sum(p.size for p in outer_parameters(c))
    everything = sum(of_blocks) + outer
    moved = narrow * (everything + twice) * times + reduced * everything * sums
    group, spanned, copies = layout.group, -(-layout.group // layout.per_node), n // layout.group
    inside, across = moved * (group - 1) / group, moved * (spanned - 1) / spanned
    among_copies = 2.0 * (copies - 1) / copies * reduced * everything / group * sums
    if machines > 1:
        across += among_copies * layout.per_node
    else:
        inside += among_copies
    return inside, across


def _over_pcie(recipe: Recipe, layout: DeviceLayout) -> float:
    """With `cpu_offload`: every share goes to the GPU for forward and backward, and its gradient back."""
    share = state_width(recipe) * count_parameters(recipe.model) / layout.group
    return 3 * share * accumulates(recipe, layout) / (PCIE_4 * LINK_SHARE)


def _optimizer(recipe: Recipe, layout: DeviceLayout, *, bandwidth: float, rate: float) -> float:
    """Reading and writing this device's share; Muon's products are divided among the devices that hold one copy, or
    among replicas.
    """
    c = recipe.model
    matrices = [p for layer in range(c.n_layer) for p in block_parameters(c, layer) if p.is_matrix]
    stepped_by_rule = sum(p.size for p in matrices) if recipe.optimizer == "muon" else 0
    numbers = STEP_READS_WRITES["muon"] * stepped_by_rule
    numbers += STEP_READS_WRITES["adamw"] * (count_parameters(c) - stepped_by_rule)
    if layout.cpu_offload:
        bandwidth = HOST_BANDWIDTH / min(layout.per_node, layout.devices)
    products = sum(_newton_schulz(p) for p in matrices) if recipe.optimizer == "muon" else 0.0
    among = layout.group if layout.sharded else layout.devices
    return state_width(recipe) * numbers / (layout.group * layout.tensor) / bandwidth + products / among / rate


def _newton_schulz(p: Parameter) -> float:
    """FLOPs of one matrix: per step x x^T, its square, and their product with x."""
    short, long = min(p.shape), max(p.shape)
    return NEWTON_SCHULZ_STEPS * (4.0 * short * short * long + 2.0 * short**3)
