"""How many bytes training takes on one device, from the config and the strategy alone: nothing is built or run.

    weights + gradients + optimizer state      exact: shapes, widths, and who holds which shard of them
    + activations, logits, buffers             at the moment of a step when they are most; `Memory.moment` names it

A step passes through these moments, and its memory is the largest of them:

    loss          all activations are kept, the logits exist, and last step's gradients are not yet freed
    backward      block after block: activations of the blocks before it, gradients of those behind it
    end           all gradients, hardly an activation
    step          all gradients, and what the optimizer needs for itself

This is the one estimate of memory: `plan.py` and `trainer.micro_batch_size=auto` both ask it. Kept activations are
eager PyTorch's (`activations`); a compiled step keeps less. Tensors are counted: the CUDA context, NCCL's buffers and
the allocator's fragmentation come on top, which is why only `SHARE` of a device's memory is planned with. Tests compare
the exact parts with real models, optimizers and FSDP2's shards, and peaks with the bytes that real steps allocate. Not
here: time and money (`step_time`), what to choose (`plan`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from litgpt_core.model.structure import Parameter, block_parameters, outer_parameters
from litgpt_core.model.tensor_slice import sliced
from litgpt_core.optim.settings import matrices_at_once
from litgpt_core.planning.activations import WIDE, BlockBytes, block_bytes, mask_bytes, outer_bytes
from litgpt_core.planning.recipe import (
    DeviceLayout,
    Recipe,
    accumulates,
    is_flat,
    reduced_width,
    setup_of,
    state_width,
)

SHARE = {"cuda": 0.9, "cpu": 0.75, "mps": 0.75}
"""Of a device's memory (cuda) or of what is available (cpu, mps); the rest is for Lightning, the compiler, the corpus'
pages and the allocator's fragmentation.
"""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device: the first of its group, whose shard is never the smaller one."""

    weights: int
    gradients: int
    optimizer: int
    activations: float
    """Kept for the backward pass, all blocks together."""
    logits: float
    """Of the loss, at its most."""
    buffers: float
    """Narrow copies of weights, gathered weights, gradients in transit, the optimizer's workspace: the most."""
    peak: float
    """The most at one moment: not all of the above exist at once."""
    moment: str
    """Which: loss, backward, end or step."""
    host: int = 0
    """In the host's memory, for this device: with `cpu_offload`."""


def memory(recipe: Recipe, layout: DeviceLayout) -> Memory:
    """What one device holds.

    Raises:
        ConfigError: The batches do not divide.
    """
    step = _Step(recipe, layout)
    held = (step.weights, step.gradients, step.optimizer)
    moments = dict(step.moments())
    moment = max(moments, key=lambda name: moments[name])
    weights, gradients, optimizer = (0, 0, 0) if layout.cpu_offload else held
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=step.kept,
        logits=max(step.logits_forward, step.logits_backward),
        buffers=step.buffers,
        peak=moments[moment],
        moment=moment,
        host=sum(held) if layout.cpu_offload else 0,
    )


def largest_micro_batch(recipe: Recipe, layout: DeviceLayout, *, limit: float) -> int | None:
    """Sequences per device whose peak stays within `limit` bytes, a divisor of its batch; None: not even 1."""
    share = recipe.global_batch // layout.readers
    sizes = [size for size in range(1, share + 1) if share % size == 0]
    fitting, too_large = -1, len(sizes)
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        fits = memory(dataclasses.replace(recipe, micro_batch=sizes[middle]), layout).peak <= limit
        fitting, too_large = (middle, too_large) if fits else (fitting, middle)
    return sizes[fitting] if fitting >= 0 else None


EMBEDDING = "transformer.wte.weight"
"""Gathered apart from what else is outside the blocks, unless the output layer is tied to it."""


class _Group:
    """Sums over the parameters that are gathered together: of a block, or of those outside the blocks."""

    def __init__(self, parameters: Iterable[Parameter], n_shards: int) -> None:
        every = list(parameters)
        self.matrices = [p for p in every if p.is_matrix]
        self.numbers = sum(p.size for p in every)
        self.largest = max((p.size for p in every), default=0)
        self.cast = sum(p.size for p in every if "norm" not in p.name)
        kinds: Counter[str] = Counter()
        for p in every:
            if ".experts." in p.name:
                kinds[p.name.rpartition(".experts.")[2].partition(".")[2]] += p.size
        self.experts, self.stacked = sum(kinds.values()), max(kinds.values(), default=0)
        self.at_once = 0
        self.shard = _first_shard(every, n_shards)
        self.shard_of_matrices = _first_shard(self.matrices, n_shards)

    def one_product(self) -> None:
        """Experts are multiplied together: all of a kind are copied for it, and gone after it (`model/grouped.py`)."""
        self.cast -= self.experts
        self.largest = max(self.largest, self.stacked)
        self.at_once = self.stacked


def _first_shard(parameters: list[Parameter], n_shards: int) -> int:
    """Numbers that the first device holds: of every parameter its part of the rows, rounded up."""
    return sum(-(-p.shape[0] // n_shards) * (p.size // p.shape[0]) for p in parameters)


class _Step:
    """What one optimizer step holds, and its moments as sums of that."""

    def __init__(self, recipe: Recipe, layout: DeviceLayout) -> None:
        c = recipe.model
        self.recipe, self.layout, self.setup = recipe, layout, setup_of(recipe, layout)
        self.accumulating, self.flat = accumulates(recipe, layout) > 1, is_flat(recipe, layout)
        self.tokens = recipe.micro_batch * c.block_size
        kinds = [(c.mlp_class_of(layer), c.window_of(layer)) for layer in range(c.n_layer)]
        first = {kind: layer for layer, kind in reversed(list(enumerate(kinds)))}  # blocks of one kind are counted once
        own = sliced(c, layout.tensor)  # what a device computes of each block
        groups = {kind: _Group(block_parameters(own, layer), layout.group) for kind, layer in first.items()}
        outer, everybody = outer_parameters(c), layout.group * layout.tensor
        apart = [] if c.tie_embeddings else [p for p in outer if p.name == EMBEDDING]
        self.apart = _Group(apart, everybody)
        chunks_or_tied = recipe.loss_chunk_size or c.tie_embeddings
        head = [] if chunks_or_tied else [p for p in outer if p.name.startswith("lm_head.")]
        self.head_apart = _Group(head, everybody)
        self.staying = _Group([p for p in outer if p not in apart and p not in head], everybody)
        sizes = {kind: block_bytes(own, layer, setup=self.setup) for kind, layer in first.items()}
        self.blocks = [groups[kind] for kind in kinds]
        if recipe.device == "cuda" and self.setup.product < WIDE:
            for group in groups.values():
                group.one_product()
        self.outer = _Group(outer, everybody)
        self.of_blocks: list[BlockBytes] = [sizes[kind] for kind in kinds]
        self.kept_before = [0.0, *accumulate(self.tokens * block.kept for block in self.of_blocks)]
        self.shared = self.tokens * mask_bytes(c, setup=self.setup)
        self.kept = self.kept_before[-1] + self.tokens * outer_bytes(c, setup=self.setup) + self.shared
        self.numbers = sum(group.numbers for group in (*self.blocks, self.outer))
        self.shard = sum(group.shard for group in (*self.blocks, self.outer))
        self.head = c.padded_vocab_size * c.n_embd  # numbers whose gradient exists from the loss on
        self.width = state_width(recipe)
        self.leaf = 2 if recipe.precision == "bf16-master" else self.width
        self.weights = self.width * self.shard + (2 * self.numbers if recipe.precision == "bf16-master" else 0)
        self.gradients = self.width * self.shard

    @cached_property
    def optimizer(self) -> int:
        """AdamW's two means, Muon's one; a flat buffer has room for two of everything. Step counts are left out."""
        once = sum(block.shard_of_matrices for block in self.blocks)
        muon = self.recipe.optimizer == "muon" and not self.flat
        return self.width * (2 * self.shard - (once if muon else 0))

    # ---- the loss ----

    @property
    def _rows(self) -> int:
        return min(self.recipe.loss_chunk_size or self.tokens, self.tokens)

    @cached_property
    def logits_forward(self) -> float:
        """Logits as float32, their log-softmax, and for z-loss the exponents; of one chunk, if the loss has chunks."""
        c = self.recipe.model
        capped = self.setup.product if c.final_logit_softcapping is not None else 0
        return self._rows * c.padded_vocab_size * ((3 if self.recipe.z_loss else 2) * WIDE + capped)

    @cached_property
    def logits_backward(self) -> float:
        """Gradients besides, two for z-loss; with chunks the head's gradient is accumulated, the stream's collected."""
        c, p = self.recipe.model, self.setup.product
        gradients = self._rows * c.padded_vocab_size * (2 if self.recipe.z_loss else 1) * WIDE
        both = self.logits_forward + gradients
        if self.recipe.loss_chunk_size:
            return both + self.head * p + self.tokens * c.n_embd * p
        product = self._rows * c.padded_vocab_size * p + self.head * p + (self.head * WIDE if self.setup.casts else 0)
        return max(both, product)

    # ---- what comes and goes ----

    def moments(self) -> Iterator[tuple[str, float]]:
        """Name and bytes of each moment of a step."""
        offload, last = self.layout.cpu_offload, len(self.blocks) - 1
        held, full = (0, 0) if offload else (self.weights + self.optimizer, self.gradients)
        unsharded = self.unsharded_gradients
        kept = self.accumulating or self.flat or self.layout.strategy == "ddp"
        stays = full if kept and not unsharded else 0  # from step to step
        inside = self.tokens * self.of_blocks[last].flowing if self.setup.checkpointing != "none" else 0.0
        inside += 2 * self.gathered(self.blocks[last]) + self.setup.product * self.blocks[last].at_once
        forward = max(full, unsharded) + self.copies(last, forward=True) + max(self.logits_forward, inside)
        backward = stays + unsharded + self.copies(last) + self.logits_backward + self.gathered(self.blocks[last])
        outer = self.gathered(self.staying) + self.gathered(self.head_apart)
        yield "loss", held + self.kept + outer + max(forward, backward)
        yield "backward", held + unsharded + max(self.backward(layer, stays) for layer in range(last + 1))
        yield "end", held + max(full, unsharded) + self.ending()
        yield "step", held + full + self.stepping()

    @property
    def unsharded_gradients(self) -> float:
        """FSDP, gradients added up once: from the first micro-batch to the last, all of them on every device."""
        once = self.layout.sharded and self.layout.gradients_once and self.accumulating
        return float(reduced_width(self.recipe, self.layout) * self.numbers) if once else 0.0

    def copies(self, layer: int, *, forward: bool = False) -> float:
        """Autocast's narrow copies of the weights, up to this block and of the head, until their backward passes; with
        checkpointing only of the block that is recomputed.
        """
        if not self.setup.casts:
            return 0.0
        only = self.setup.checkpointing != "none" and not forward
        of_blocks = sum(block.cast for block in self.blocks[layer if only else 0 : layer + 1])
        return self.setup.product * (of_blocks + self.head)

    def gathered(self, group: _Group) -> float:
        """FSDP: one group's unsharded weights."""
        return self.setup.product * group.numbers if self.layout.sharded else 0.0

    def passing(self, group: _Group) -> float:
        """FSDP: a group's weights and the next one's, its gradients, and these once more as they are reduced."""
        narrow, reduced = self.setup.product, reduced_width(self.recipe, self.layout)
        if self.unsharded_gradients:  # added to those of earlier micro-batches, or these are reduced
            return group.numbers * (2 * narrow + max(narrow, reduced))
        return group.numbers * (3 * narrow + reduced)

    def backward(self, layer: int, stays: float) -> float:
        """While one block is in its backward pass."""
        block, behind = self.of_blocks[layer], self.blocks[layer + 1 :]
        activations = self.kept_before[layer + 1] + self.tokens * (block.again + block.flowing)
        activations += self.setup.product * self.blocks[layer].at_once
        if self.layout.sharded:
            arriving = self.layout.cpu_offload or self.unsharded_gradients
            arrived = stays or (0 if arriving else self.width * sum(group.shard for group in behind))
            of_head = 0 if self.head_apart.numbers else self.setup.product * self.head
            head = self.gathered(self.staying) + of_head
            return activations + arrived + head + self.passing(self.blocks[layer])
        leaves = self.leaf * (sum(group.numbers for group in behind) + self.head)
        arrived = stays + leaves if self.flat else stays or leaves
        width = self.leaf + (self.setup.product if self.setup.casts else 0)
        return activations + self.copies(layer) + width * self.blocks[layer].largest + arrived

    def ending(self) -> float:
        """When the embeddings get their gradients, or a flat buffer collects all of them."""
        if self.layout.sharded:  # there is no next group; the embedding's gradients are the last
            both = [self.passing(group) - self.gathered(group) for group in (self.staying, self.apart)]
            return max(both[0], both[1] + self.gathered(self.staying))
        if self.flat:  # concatenated, and widened where they are added to others
            return (2 * self.leaf + (WIDE if self.accumulating and self.leaf < WIDE else 0)) * self.numbers
        return self.leaf * self.outer.largest

    def stepping(self) -> float:
        """The optimizer's workspace: AdamW's one kernel needs none, Muon all matrices of one shape, unsharded."""
        if self.recipe.optimizer == "adamw":
            return 0.0
        rule, shapes = 0.0, Counter(p.shape for block in self.blocks for p in block.matrices)
        for (rows, columns), count in shapes.items():
            one = self.muon_divided if self.processes > 1 else self.muon_alone
            rule = max(rule, one(rows, columns, count))
        if self.flat:
            return self.width * sum(p.size for block in self.blocks for p in block.matrices) + rule
        return max(rule, self.width * self.outer.shard_of_matrices)

    @property
    def processes(self) -> int:
        """That divide Muon's matrices among them."""
        return self.layout.group if self.layout.sharded else self.layout.devices

    @property
    def narrow(self) -> int:
        """Bytes of a number of Muon's products."""
        return WIDE if self.recipe.precision == "32-true" else 2

    def muon_alone(self, rows: int, columns: int, count: int) -> float:
        """All matrices of one shape at once, in one process."""
        iterating = 2 * self.narrow * (1 + min(rows, columns) / max(rows, columns))  # x twice, x x^T and its square
        whole = max(iterating, self.narrow + WIDE) if self.flat else max(2 * self.width, self.width + iterating)
        return count * rows * columns * (whole + (0 if self.flat else self.width))

    def muon_divided(self, rows: int, columns: int, count: int) -> float:
        """Few matrices at once: those whose turn it is, and this device's part of the work on them."""
        own = matrices_at_once(rows, columns, count=count, processes=self.processes)
        together = min(own * self.processes, count)
        size, square = own * rows * columns, own * min(rows, columns) ** 2
        iterating = self.narrow * (3 * size + 2 * square)  # the argument, x twice, x x^T and its square
        if not self.layout.sharded:
            arguments = self.width * size if self.narrow != self.width else 0
            return max(arguments + iterating, float(self.narrow * (size + together * rows * columns)))
        shards = together * -(-rows // self.layout.group) * columns
        return self.width * shards + max(iterating, float((self.width + self.narrow) * shards))

    @property
    def buffers(self) -> float:
        """The most of what is neither state nor activation."""
        widest = max(self.blocks, key=lambda group: group.numbers)
        moving = self.gathered(self.staying) + self.passing(widest) if self.layout.sharded else 0.0
        return max(self.copies(len(self.blocks) - 1, forward=True), moving, self.ending(), self.stepping())
