"""Training a compressed model against its source for a few steps: distillation, and quantization-aware training.

Loss of a token, with the source's distribution p and the model's q:

    forward   KL(p || q)                                  (Hinton et al. 2015, arXiv 1503.02531)
    reverse   KL(q || p)                                  (MiniLLM, arXiv 2306.08543)
    jsd       (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2    (GKD, arXiv 2306.13649)
    ce        -log q of the text, without the source

Quantization-aware training multiplies by rounded weights and sends gradients to the float ones as if nothing had been
rounded (straight-through, Bengio et al. 2013): w_q = w + (s clamp(round(w / s)) - w), the bracket without gradient.
The scales stay as they were at the start, so the result has codes of the same grid as rounding after training. Matrices
that are stored already and not trained, such as the head, stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from litgpt_core.checkpoint.compressed import IntegerMatrix
from litgpt_core.compression.rounding import pack_matrix
from litgpt_core.compression.settings import Distill, Healing, Qat
from litgpt_core.compression.state import WorkingModel
from litgpt_core.compression.texts import Domain, window_length
from litgpt_core.core.errors import ConfigError, DataError
from litgpt_core.model import grid
from litgpt_core.model.gpt import GPT
from litgpt_core.model.grid import Grid

logger = logging.getLogger(__name__)

WARMUP = 0.1
"""Share of the steps in which the learning rate rises; it falls linearly to 0 afterwards."""
CLIP = 1.0


def distill(work: WorkingModel, step: Distill, *, teacher: GPT, domains: Sequence[Domain]) -> None:
    """Train all weights of the model towards `teacher`.

    Raises:
        ConfigError: The vocabularies differ.
        DataError: The text is shorter than a window.
    """
    check_vocabularies(work.model, teacher)
    first, last = _train(work.model, step, teacher=teacher, domains=domains)
    work.notes.append(f"distill: loss {first:.4f} -> {last:.4f} nats per token in {step.steps} steps")


def check_vocabularies(model: GPT, teacher: GPT) -> None:
    """Raise ConfigError unless both models have the same tokens."""
    ours, theirs = model.config.padded_vocab_size, teacher.config.padded_vocab_size
    if ours != theirs:
        raise ConfigError(
            f"The model has {ours} tokens, its teacher {theirs}.",
            needed="one tokenizer: distributions over other tokens cannot be compared",
            fix="a teacher with the model's tokenizer",
        )


class FakeQuantized(nn.Module):
    """A parametrization of a weight (O, K): rounded with fixed scales forwards, the identity backwards."""

    scales: Tensor

    def __init__(self, scales: Tensor, *, bits: int) -> None:
        super().__init__()
        self.kind = Grid(bits)
        self.register_buffer("scales", scales)

    def forward(self, weight: Tensor) -> Tensor:
        """(O, K) -> (O, K)"""
        codes = self.kind.codes(grid.grouped(weight.detach()), self.scales)
        rounded = grid.dequantize(codes.flatten(-2), self.scales)
        return weight + (rounded - weight).detach()


def train_quantized(work: WorkingModel, step: Qat, *, teacher: GPT, domains: Sequence[Domain]) -> None:
    """Quantization-aware training of the matrices that a step before has made integers; their codes change."""
    paths = [path for path, matrix in work.matrices.items() if isinstance(matrix, IntegerMatrix) and ".h." in path]
    frozen = {id(work.model.get_submodule(path).weight) for path in work.matrices.keys() - set(paths)}
    scales: dict[str, Tensor] = {}
    for path in paths:
        matrix = work.matrices[path]
        assert isinstance(matrix, IntegerMatrix)
        scales[path] = grid.unpack(matrix.codes, matrix.scales, outputs=matrix.rows)[1].float()
        parametrize.register_parametrization(
            work.linear(path), "weight", FakeQuantized(scales[path], bits=step.bits), unsafe=True
        )
    try:
        first, last = _train(work.model, step, teacher=teacher, domains=domains, frozen=frozen)
    finally:
        trained = {path: _latent(work.linear(path)) for path in paths}
        for path in paths:
            parametrize.remove_parametrizations(work.linear(path), "weight", leave_parametrized=False)
    for path in paths:
        work.store(path, pack_matrix(trained[path], scales[path], bits=step.bits))
    work.notes.append(f"qat: loss {first:.4f} -> {last:.4f} nats per token in {step.steps} steps")


def _latent(linear: nn.Linear) -> Tensor:
    """The weight behind the rounded one."""
    original = dict(linear.named_parameters())["parametrizations.weight.original"]
    return original.detach()


def _train(
    model: GPT, step: Healing, *, teacher: GPT, domains: Sequence[Domain], frozen: Collection[int] = ()
) -> tuple[float, float]:
    """AdamW on random windows of the calibration text; mean loss of the first and the last tenth of the steps."""
    generator = torch.Generator().manual_seed(step.seed)
    length = window_length(model.config.block_size)
    parameters = [p.requires_grad_(True) for p in model.parameters() if id(p) not in frozen]
    optimizer = torch.optim.AdamW(parameters, lr=step.lr, betas=(0.9, 0.95), weight_decay=0.0)
    losses = []
    for number in range(step.steps):
        rate = min(1.0, (number + 1) / max(1.0, WARMUP * step.steps)) * (1 - number / step.steps)
        for group in optimizer.param_groups:
            group["lr"] = step.lr * rate
        rows = _sample(domains, n=step.batch, length=length + 1, generator=generator)
        with torch.no_grad():
            source = None if step.loss == "ce" else teacher(rows[:, :-1]).float().log_softmax(-1)
        with torch.enable_grad():
            ours = model(rows[:, :-1]).float().log_softmax(-1)
            loss = LOSSES[step.loss](ours, source, rows[:, 1:])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        losses.append(float(loss.detach()))
        if number % 20 == 0:
            logger.info("%s: step %d of %d, loss %.4f", step.method, number, step.steps, losses[-1])
    model.requires_grad_(False)
    share = max(1, step.steps // 10)
    return sum(losses[:share]) / share, sum(losses[-share:]) / share


def _sample(domains: Sequence[Domain], *, n: int, length: int, generator: torch.Generator) -> Tensor:
    rows = []
    for i in range(n):
        stream = domains[i % len(domains)].calibration
        if len(stream) <= length:
            raise DataError(
                f"{domains[i % len(domains)].name} has {len(stream):,} tokens to train with.",
                needed=f"more than {length}",
                fix="--domain NAME=FILE with a longer text",
            )
        start = int(torch.randint(len(stream) - length, (1,), generator=generator))
        rows.append(stream[start : start + length])
    return torch.stack(rows)


def forward_kl(ours: Tensor, source: Tensor | None, _: Tensor) -> Tensor:
    """(B, T, V) log probabilities of both -> mean KL(source || ours)."""
    assert source is not None
    return (source.exp() * (source - ours)).sum(-1).mean()


def reverse_kl(ours: Tensor, source: Tensor | None, _: Tensor) -> Tensor:
    """Mean KL(ours || source)."""
    assert source is not None
    return (ours.exp() * (ours - source)).sum(-1).mean()


def jensen_shannon(ours: Tensor, source: Tensor | None, _: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence."""
    assert source is not None
    middle = torch.logaddexp(ours, source) - 0.6931471805599453
    return ((source.exp() * (source - middle)).sum(-1) + (ours.exp() * (ours - middle)).sum(-1)).mean() / 2


def cross_entropy(ours: Tensor, _: Tensor | None, targets: Tensor) -> Tensor:
    """Mean -log q of the targets (B, T)."""
    return functional.nll_loss(ours.flatten(0, 1), targets.flatten())


LOSSES: dict[str, Callable[[Tensor, Tensor | None, Tensor], Tensor]] = {
    "forward": forward_kl,
    "reverse": reverse_kl,
    "jsd": jensen_shannon,
    "ce": cross_entropy,
}
