"""A GPT in one file of plain Python: data, tokenizer, autograd, model, Adam and sampling, in that order.

    python microgpt.py names.txt [1000]     learns from 1,000 names for about a minute, then writes ten of its own

Every number is a `Value` that remembers how it was computed, which makes all derivatives of the loss computable. The
model is one of `litgpt_core.model`; the tests compare all gradients. `tape` does the same on rows, 8 times as fast.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

n_layer, n_head, n_embd, intermediate_size = 1, 4, 16, 32  # named as in GPTConfig
block_size, head_size, norm_eps, rope_base = 16, 4, 1e-5, 10_000
beta1, beta2, eps = 0.85, 0.99, 1e-8  # of Adam


# --- 1. Tokenizer: letter i has id i, the last id marks both ends of a name
def encode(name: str, letters: str) -> list[int]:
    """A name as ids, e.g. "ada" -> [end, a, d, a, end]."""
    return [len(letters), *(letters.index(letter) for letter in name), len(letters)]


# --- 2. Autograd
class Value:
    """A number, the `inputs` it was computed from, and its derivative by each of them (`slopes`)."""

    __slots__ = ("data", "grad", "inputs", "slopes")

    def __init__(self, data: float, inputs: Sequence[Value] = (), slopes: Sequence[float] = ()) -> None:
        self.data, self.grad, self.inputs, self.slopes = data, 0.0, inputs, slopes

    def __add__(self, other: Value) -> Value:
        result = self.data + other.data
        return Value(result, (self, other), (1.0, 1.0))  # d(a + b)/da = 1, d(a + b)/db = 1

    def __mul__(self, other: Value) -> Value:
        result = self.data * other.data
        return Value(result, (self, other), (other.data, self.data))  # d(ab)/da = b, d(ab)/db = a

    def __pow__(self, power: float) -> Value:
        result = self.data**power
        return Value(result, (self,), (power * self.data ** (power - 1),))  # d(a^p)/da = p a^(p - 1)

    def exp(self) -> Value:
        """e to the power of a."""
        result = math.exp(self.data)
        return Value(result, (self,), (result,))  # d(e^a)/da = e^a

    def log(self) -> Value:
        """The natural logarithm of a."""
        result = math.log(self.data)
        return Value(result, (self,), (1.0 / self.data,))  # d(ln a)/da = 1/a

    def backward(self) -> None:
        """The chain rule, from this Value back: adds its derivative by every Value before it to their `grad`."""
        order, seen, stack = list[Value](), set[Value](), [(self, False)]
        while stack:  # every Value after its inputs; no recursion, which would go thousands of calls deep
            value, inputs_are_done = stack.pop()
            if inputs_are_done:
                order.append(value)
            elif value not in seen:
                seen.add(value)
                stack += [(value, True), *((each, False) for each in value.inputs)]
        self.grad = 1.0
        for value in reversed(order):
            for each, slope in zip(value.inputs, value.slopes, strict=True):
                each.grad += slope * value.grad


def dot(a: Sequence[Value], b: Sequence[Value]) -> Value:
    """Sum of a_i * b_i: nearly all of the work, hence one operation instead of 2n - 1."""
    xs, ys = [x.data for x in a], [y.data for y in b]
    result = sum(x * y for x, y in zip(xs, ys, strict=True))
    return Value(result, (*a, *b), (*ys, *xs))  # d(a.b)/da_i = b_i, d(a.b)/db_i = a_i


Vector = list[Value]
Weights = dict[str, list[Vector]]  # each a matrix: a list of rows
Cache = list[tuple[list[Vector], list[Vector]]]  # of each layer the keys and the values of the tokens so far


# --- 3. Model: a small Llama. C = n_embd, V = number of ids, hs = head_size
def initial_weights(vocab_size: int, rng: random.Random) -> Weights:
    """Matrices of random numbers around 0; the weights of a norm, ones, are a matrix of one row."""
    shapes = {"transformer.wte": (vocab_size, n_embd)}
    for p in (f"transformer.h.{layer}." for layer in range(n_layer)):
        shapes |= {p + "norm_1": (1, n_embd), p + "attn.qkv": (3 * n_embd, n_embd), p + "attn.proj": (n_embd, n_embd)}
        shapes |= {p + "norm_2": (1, n_embd), p + "mlp.fc_1": (intermediate_size, n_embd)}
        shapes |= {p + "mlp.fc_2": (intermediate_size, n_embd), p + "mlp.proj": (n_embd, intermediate_size)}
    shapes |= {"transformer.ln_f": (1, n_embd), "lm_head": (vocab_size, n_embd)}
    return {
        f"{name}.weight": [[Value(1.0 if m == 1 else rng.gauss(0, 0.1)) for _ in range(n)] for _ in range(m)]
        for name, (m, n) in shapes.items()
    }


def linear(x: Vector, weight: list[Vector]) -> Vector:
    """A matrix times a vector."""
    return [dot(x, row) for row in weight]


def rms_norm(x: Vector, weight: list[Vector]) -> Vector:
    """x / sqrt(mean(x^2) + eps) * weight"""
    factor = (dot(x, x) * Value(1 / len(x)) + Value(norm_eps)) ** -0.5
    return [each * factor * w for each, w in zip(x, weight[0], strict=True)]


def softmax(x: Vector) -> Vector:
    """Positive numbers that sum to 1, e^x_i over their sum; taking the largest x away first changes nothing."""
    largest = Value(-max(each.data for each in x))
    powers = [(each + largest).exp() for each in x]
    factor = dot(powers, [Value(1.0)] * len(powers)) ** -1
    return [power * factor for power in powers]


def rope(x: Vector, position: int) -> Vector:
    """Turn each pair (x_i, x_{i + hs/2}) of a head by an angle that grows with the position, slower for greater i."""
    half = len(x) // 2
    angles = [position * rope_base ** (-i / half) for i in range(half)]
    pairs = [(a, b, Value(math.cos(t)), Value(math.sin(t))) for a, b, t in zip(x, x[half:], angles, strict=False)]
    turned = [(a * cos + b * sin * Value(-1.0), b * cos + a * sin) for a, b, cos, sin in pairs]
    return [a for a, _ in turned] + [b for _, b in turned]


def gpt(token: int, cache: Cache, w: Weights) -> Vector:
    """(V) logits of the id after `token`, which joins the cache of those before it."""
    x = w["transformer.wte.weight"][token]  # (C)
    for layer, (keys, values) in enumerate(cache):
        p = f"transformer.h.{layer}."
        qkv = linear(rms_norm(x, w[p + "norm_1.weight"]), w[p + "attn.qkv.weight"])  # (3C): queries, keys, values
        heads = [rope(qkv[i : i + head_size], len(keys)) for i in range(0, 2 * n_embd, head_size)]
        keys.append([each for head in heads[n_head:] for each in head])
        values.append(qkv[2 * n_embd :])
        y: Vector = []
        for number, query in enumerate(heads[:n_head]):
            own = slice(number * head_size, (number + 1) * head_size)
            shares = softmax([dot(query, key[own]) * Value(head_size**-0.5) for key in keys])
            y += [dot(shares, column) for column in zip(*(value[own] for value in values), strict=True)]
        x = [a + b for a, b in zip(x, linear(y, w[p + "attn.proj.weight"]), strict=True)]
        normed = rms_norm(x, w[p + "norm_2.weight"])
        gates, ups = linear(normed, w[p + "mlp.fc_1.weight"]), linear(normed, w[p + "mlp.fc_2.weight"])
        sigmoids = [((gate * Value(-1.0)).exp() + Value(1.0)) ** -1 for gate in gates]
        hidden = [gate * sigmoid * up for gate, sigmoid, up in zip(gates, sigmoids, ups, strict=True)]
        x = [a + b for a, b in zip(x, linear(hidden, w[p + "mlp.proj.weight"]), strict=True)]
    return linear(rms_norm(x, w["transformer.ln_f.weight"]), w["lm_head.weight"])


def loss_of(ids: Sequence[int], w: Weights) -> Value:
    """Cross-entropy: the mean over all ids after the first of -ln(the probability that the model gave them)."""
    cache: Cache = [([], []) for _ in range(n_layer)]
    logs = [softmax(gpt(token, cache, w))[after].log() for token, after in pairwise(ids[: block_size + 1])]
    return dot(logs, [Value(-1.0 / len(logs))] * len(logs))


# --- 4. Training and sampling
def adam_step(parameters: list[Value], means: list[float], squares: list[float], step: int, lr: float) -> None:
    """Adam (Kingma & Ba 2015): a step of about `lr`, whatever the size of the gradients, which are 0 afterwards."""
    full1, full2 = 1 - beta1**step, 1 - beta2**step  # the means start at 0, which is made up for
    for i, p in enumerate(parameters):
        means[i] = beta1 * means[i] + (1 - beta1) * p.grad
        squares[i] = beta2 * squares[i] + (1 - beta2) * p.grad**2
        p.data, p.grad = p.data - lr * (means[i] / full1) / (math.sqrt(squares[i] / full2) + eps), 0.0


def write_name(w: Weights, letters: str, rng: random.Random, temperature: float = 0.7) -> str:
    """A new name, letter by letter; the lower the temperature, the more probable the letters."""
    name, token, cache = "", len(letters), [(list[Vector](), list[Vector]()) for _ in range(n_layer)]
    while len(name) < block_size and not name.endswith("\n"):
        chances = [chance.data for chance in softmax([each * Value(1 / temperature) for each in gpt(token, cache, w)])]
        token = rng.choices(range(len(chances)), chances)[0]
        name += (letters + "\n")[token]
    return name.strip()


def main(path: str, *, steps: int = 1000, lr: float = 0.005) -> None:
    """Learn from one name (of a file with one on each line) after the other, then write ten."""
    names, rng, began = Path(path).read_text(encoding="utf-8").split(), random.Random(1), time.process_time()
    rng.shuffle(names)
    letters = "".join(sorted(set("".join(names))))
    w = initial_weights(len(letters) + 1, rng)
    parameters = [each for rows in w.values() for row in rows for each in row]
    means, squares, losses = [0.0] * len(parameters), [0.0] * len(parameters), list[float]()
    for step in range(steps):
        loss = loss_of(encode(names[step % len(names)], letters), w)
        loss.backward()
        adam_step(parameters, means, squares, step + 1, lr * (1 - step / steps))
        losses.append(loss.data)  # of a name that it had not seen, as long as there are enough
        print(f"\r{step + 1:5} names, loss of the last 200: {sum(losses[-200:]) / len(losses[-200:]):.3f}", end="")
    print(f", {time.process_time() - began:.0f} s", *(write_name(w, letters, rng) for _ in range(10)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1], steps=int([*sys.argv, "1000"][2]))
