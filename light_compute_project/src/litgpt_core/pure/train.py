"""The model of `microgpt` on the tape of `tape`, trained on a file of names; `checkpoint` writes it to a directory.

trained = train(Path("names.txt").read_text().split())     # 1,000 batches of two names, seconds
save(trained, Path("runs/names"))                           # from `checkpoint`: a LitGPT directory
"""

# ruff: noqa: B905 (zip stops at the shortest: a check of every short row would cost more than the row)

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from litgpt_core.core.errors import DataError
from litgpt_core.pure.microgpt import encode
from litgpt_core.pure.tape import Matrix, RopeTable, Tape


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes under the names of `GPTConfig`, and with the values of `microgpt`."""

    vocab_size: int
    block_size: int = 16
    n_layer: int = 1
    n_head: int = 4
    n_embd: int = 16
    intermediate_size: int = 32
    norm_eps: float = 1e-5
    rope_base: int = 10_000


@lru_cache(maxsize=8)
def rope_table(c: Config) -> RopeTable:
    """The cosines and sines of a model, made once."""
    return RopeTable(block_size=c.block_size, n_head=c.n_head, head_size=c.n_embd // c.n_head, base=c.rope_base)


def initial_weights(c: Config, rng: random.Random, *, std: float = 0.1) -> dict[str, Matrix]:
    """Matrices of random numbers around 0; the weights of a norm, ones, are a matrix of one row."""
    width, hidden = c.n_embd, c.intermediate_size
    shapes = {"transformer.wte": (c.vocab_size, width)}
    for p in (f"transformer.h.{layer}." for layer in range(c.n_layer)):
        shapes |= {p + "norm_1": (1, width), p + "attn.qkv": (3 * width, width), p + "attn.proj": (width, width)}
        shapes |= {p + "norm_2": (1, width), p + "mlp.fc_1": (hidden, width), p + "mlp.fc_2": (hidden, width)}
        shapes |= {p + "mlp.proj": (width, hidden)}
    shapes |= {"transformer.ln_f": (1, width), "lm_head": (c.vocab_size, width)}
    return {
        f"{name}.weight": Matrix([[1.0 if m == 1 else rng.gauss(0.0, std) for _ in range(n)] for _ in range(m)])
        for name, (m, n) in shapes.items()
    }


def logits_of(tape: Tape, w: dict[str, Matrix], c: Config, sequences: Sequence[Sequence[int]]) -> Matrix:
    """(T, V) of all ids of all sequences, which do not see each other."""
    lengths, table = [len(ids) for ids in sequences], rope_table(c)
    positions = [at for length in lengths for at in range(length)]
    x = tape.embed(w["transformer.wte.weight"], [token for ids in sequences for token in ids])  # (T, C)
    for p in (f"transformer.h.{layer}." for layer in range(c.n_layer)):
        normed = tape.rms_norm(x, w[p + "norm_1.weight"], c.norm_eps)
        qkv = tape.rope(tape.linear(normed, w[p + "attn.qkv.weight"]), positions, table)  # (T, 3C)
        x = tape.add(x, tape.linear(tape.attend(qkv, lengths, c.n_head), w[p + "attn.proj.weight"]))
        normed = tape.rms_norm(x, w[p + "norm_2.weight"], c.norm_eps)
        hidden = tape.gate(tape.linear(normed, w[p + "mlp.fc_1.weight"]), tape.linear(normed, w[p + "mlp.fc_2.weight"]))
        x = tape.add(x, tape.linear(hidden, w[p + "mlp.proj.weight"]))
    return tape.linear(tape.rms_norm(x, w["transformer.ln_f.weight"], c.norm_eps), w["lm_head.weight"])


def gradients(w: dict[str, Matrix], c: Config, batch: Sequence[Sequence[int]]) -> float:
    """The mean loss over all ids of `batch` but the first of each; leaves its derivatives in the weights' `grad`."""
    for matrix in w.values():
        matrix.grad = None
    texts = [ids[: c.block_size + 1] for ids in batch]
    tape = Tape()
    logits = logits_of(tape, w, c, [ids[:-1] for ids in texts])
    loss = tape.cross_entropy(logits, [token for ids in texts for token in ids[1:]])
    tape.backward()
    return loss.data[0][0]


class Adam:
    """Steps of about the learning rate, whatever the size of a gradient: its mean over the root of its mean square."""

    def __init__(self, parameters: Sequence[Matrix], *, betas: tuple[float, float] = (0.85, 0.99)) -> None:
        self.parameters, self.betas, self.steps = parameters, betas, 0
        self.means = [[[0.0] * len(row) for row in matrix.data] for matrix in parameters]
        self.squares = [[[0.0] * len(row) for row in matrix.data] for matrix in parameters]

    def step(self, lr: float, *, eps: float = 1e-8) -> None:
        """Move every parameter against its gradient."""
        self.steps += 1
        b1, b2 = self.betas
        c1, c2, root = 1 - b1, 1 - b2, math.sqrt
        rate, full = lr / (1 - b1**self.steps), (1 - b2**self.steps) ** -0.5
        for matrix, means, squares in zip(self.parameters, self.means, self.squares):
            assert matrix.grad is not None, "gradients come first"
            for at, grad in enumerate(matrix.grad):
                means[at] = mean = [b1 * m + c1 * g for m, g in zip(means[at], grad)]
                squares[at] = square = [b2 * s + c2 * g * g for s, g in zip(squares[at], grad)]
                row = zip(matrix.data[at], mean, square)
                matrix.data[at] = [p - rate * m / (root(s) * full + eps) for p, m, s in row]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that has learned names."""

    config: Config
    letters: str
    """Letter i has id i; the last id, len(letters), marks both ends of a name."""
    weights: dict[str, Matrix]
    losses: list[float]
    """Of each batch, before the model learned from it."""


def train(
    names: Sequence[str], *, steps: int = 1000, batch_size: int = 2, lr: float = 0.007, seed: int = 1, **sizes: int
) -> Trained:
    """Learn from `steps` batches of names, shuffled by `seed`; `lr` falls in a line to 0. `sizes` are `Config`'s.

    No name comes twice before all have come once. Raises DataError for no names.
    """
    if not names:
        raise DataError("The file holds no names.", needed="a text file with one name on each line")
    rng = random.Random(seed)
    order = rng.sample(names, len(names))
    letters = "".join(sorted(set("".join(names))))
    c = Config(vocab_size=len(letters) + 1, **sizes)
    w = initial_weights(c, rng)
    adam, losses = Adam(list(w.values())), []
    for step in range(steps):
        batch = [order[i % len(order)] for i in range(step * batch_size, (step + 1) * batch_size)]
        losses.append(gradients(w, c, [encode(name, letters) for name in batch]))
        adam.step(lr * (1 - step / steps))
    return Trained(config=c, letters=letters, weights=w, losses=losses)


def bigram_loss(names: Sequence[str], letters: str) -> float:
    """The loss, on all `names`, of a table of pairs of letters counted on all of them: what a model has to beat."""
    pairs = Counter(pair for name in names for pair in pairwise(encode(name, letters)))
    firsts: Counter[int] = Counter()
    for (first, _), n in pairs.items():
        firsts[first] += n
    return -sum(n * math.log(n / firsts[first]) for (first, _), n in pairs.items()) / pairs.total()
