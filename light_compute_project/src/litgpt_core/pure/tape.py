"""Autograd on rows of numbers: the derivatives of `microgpt` about 8 times as fast. `train` trains with it.

Each operation of `Tape` takes whole matrices, remembers itself, and has a backward written by hand: the comment gives
the formula. `Tape.backward` runs them from the last to the first. dX is the derivative of the loss by X, which has the
shape of X. T is the number of tokens of all names of a batch, one after the other; C = n_embd; hs = head_size.
"""

# ruff: noqa: B905 (zip stops at the shortest: a check of every short row would cost more than the row)

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from operator import itemgetter, mul

Row = Sequence[float]
Rows = Sequence[Row]

if sys.version_info >= (3, 12):

    def products(a: Rows, b: Rows) -> list[list[float]]:
        """A B^T: the product of every row of A with every row of B. Nearly all time is spent here."""
        return [[math.sumprod(x, y) for y in b] for x in a]

else:

    def products(a: Rows, b: Rows) -> list[list[float]]:
        """A B^T: the product of every row of A with every row of B. Nearly all time is spent here."""
        return [[sum(map(mul, x, y), 0.0) for y in b] for x in a]


def transposed(rows: Rows) -> list[Row]:
    """Columns as rows."""
    return list(zip(*rows))


def softmax(row: Row) -> list[float]:
    """Positive numbers that sum to 1: e^x_i over their sum."""
    largest = max(row)
    powers = [math.exp(x - largest) for x in row]
    total = sum(powers)
    return [power / total for power in powers]


class RopeTable:
    """Cosines and sines of all positions, for rows of queries, keys and values; values are not turned.

    In each head of hs numbers, i and i + hs/2 are partners, turned by position * base^(-2i / hs).
    """

    def __init__(self, *, block_size: int, n_head: int, head_size: int, base: int) -> None:
        half, width = head_size // 2, n_head * head_size
        angles = [[at * base ** (-i / half) for i in range(half)] for at in range(block_size)]
        sines = [[math.sin(t) for t in row] for row in angles]
        self.cos = [[math.cos(t) for t in row] * 4 * n_head + [1.0] * width for row in angles]
        self.sin = [[*(-sin for sin in row), *row] * 2 * n_head + [0.0] * width for row in sines]
        self.partners = itemgetter(*(i // head_size * head_size + (i + half) % head_size for i in range(3 * width)))


def causal_shares(q: Rows, k: Rows) -> list[list[float]]:
    """(T, hs) twice -> (T, T): how much token t reads of token s; 0 for every s after t."""
    scale, n = len(q[0]) ** -0.5, len(q)
    scores = [[scale * score for score in row[: t + 1]] for t, row in enumerate(products(q, k))]
    return [softmax(row) + [0.0] * (n - len(row)) for row in scores]


def attend_backward(q: Rows, k: Rows, v: Rows, shares: Rows, dy: Rows) -> tuple[Rows, Rows, Rows]:
    """Of Y = P V with P = softmax(S), S = Q K^T / sqrt(hs):

    dV = P^T dY, dP = dY V^T, dS = P (dP - sum over the row of P dP), dQ = dS K / sqrt(hs), dK = dS^T Q / sqrt(hs)
    """
    scale = len(q[0]) ** -0.5
    dscores = []
    for share, dshare in zip(shares, products(dy, v)):
        mean = sum(map(mul, share, dshare))
        dscores.append([scale * p * (d - mean) for p, d in zip(share, dshare)])
    dq, dk = products(dscores, transposed(k)), products(transposed(dscores), transposed(q))
    return dq, dk, products(transposed(shares), transposed(dy))


class Matrix:
    """Rows of numbers, and the derivative of the loss by each of them once `Tape.backward` has run."""

    __slots__ = ("data", "grad")

    def __init__(self, data: list[list[float]]) -> None:
        self.data = data
        self.grad: Rows | None = None

    def add_grad(self, new: Rows) -> None:
        """Add to `grad`: what is used twice has the sum of two derivatives."""
        if self.grad is None:
            self.grad = new
        else:
            self.grad = [[a + b for a, b in zip(row, more)] for row, more in zip(self.grad, new)]


class Tape:
    """The operations so far, each as the function that computes its backward."""

    def __init__(self) -> None:
        self._backwards: list[Callable[[Rows], None]] = []
        self._results: list[Matrix] = []

    def _record(self, result: list[list[float]], backward: Callable[[Rows], None]) -> Matrix:
        matrix = Matrix(result)
        self._results.append(matrix)
        self._backwards.append(backward)
        return matrix

    def backward(self) -> None:
        """Fill in the gradients of everything that the last result, the loss, was computed from."""
        self._results[-1].grad = [[1.0]]
        for result, backward in zip(reversed(self._results), reversed(self._backwards), strict=True):
            if result.grad is not None:
                backward(result.grad)

    def embed(self, table: Matrix, ids: Sequence[int]) -> Matrix:
        """Y[t] = table[ids[t]]: (V, C) -> (T, C)"""

        def backward(dy: Rows) -> None:  # dtable[i] = sum of dY[t] where ids[t] = i
            grad = [[0.0] * len(row) for row in table.data]
            for i, row in zip(ids, dy, strict=True):
                grad[i] = [a + b for a, b in zip(grad[i], row, strict=True)]
            table.add_grad(grad)

        return self._record([table.data[i] for i in ids], backward)

    def linear(self, x: Matrix, weight: Matrix) -> Matrix:
        """Y = X W^T: (T, in), (out, in) -> (T, out)"""

        def backward(dy: Rows) -> None:  # dX = dY W, dW = dY^T X
            x.add_grad(products(dy, transposed(weight.data)))
            weight.add_grad(products(transposed(dy), transposed(x.data)))

        return self._record(products(x.data, weight.data), backward)

    def add(self, a: Matrix, b: Matrix) -> Matrix:
        """Y = A + B"""

        def backward(dy: Rows) -> None:  # dA = dB = dY
            a.add_grad(dy)
            b.add_grad(dy)

        return self._record([[x + y for x, y in zip(*rows)] for rows in zip(a.data, b.data)], backward)

    def rms_norm(self, x: Matrix, weight: Matrix, eps: float) -> Matrix:
        """Y[t] = w * X[t] * r[t], with r[t] = 1 / sqrt(mean(X[t]^2) + eps)"""
        w = weight.data[0]
        scales = [(sum(map(mul, row, row)) / len(w) + eps) ** -0.5 for row in x.data]
        normed = [[each * r for each in row] for row, r in zip(x.data, scales)]

        def backward(dy: Rows) -> None:  # dX = r (w dY - n mean(w dY n)), n = X r; dw = sum over t of dY n
            grad = []
            for row, n, r in zip(dy, normed, scales):
                g = list(map(mul, row, w))
                mean = sum(map(mul, g, n)) / len(w)
                grad.append([r * (a - b * mean) for a, b in zip(g, n)])
            x.add_grad(grad)
            weight.add_grad([[sum(map(mul, a, b)) for a, b in zip(zip(*dy), zip(*normed))]])

        return self._record([list(map(mul, row, w)) for row in normed], backward)

    def rope(self, x: Matrix, positions: Sequence[int], table: RopeTable) -> Matrix:
        """Y[t] = X[t] * cos + partners of X[t] * sin, with the row of cos and sin for the position of t"""
        partners = table.partners

        def backward(dy: Rows) -> None:  # dX[t] = dY[t] * cos - partners of dY[t] * sin: turned back
            x.add_grad(
                [
                    [a * c - b * s for a, b, c, s in zip(row, partners(row), table.cos[at], table.sin[at])]
                    for row, at in zip(dy, positions)
                ]
            )

        turned = [
            [a * c + b * s for a, b, c, s in zip(row, partners(row), table.cos[at], table.sin[at])]
            for row, at in zip(x.data, positions)
        ]
        return self._record(turned, backward)

    def attend(self, qkv: Matrix, lengths: Sequence[int], n_head: int) -> Matrix:
        """(T, 3C) -> (T, C): every head of every token reads the tokens up to its own, of the same name."""
        width = len(qkv.data[0]) // 3
        hs = width // n_head
        ends = list(accumulate(lengths, initial=0))
        heads = [(start, end, at) for start, end in pairwise(ends) for at in range(0, width, hs)]
        y = [[0.0] * width for _ in qkv.data]
        saved = []
        for start, end, at in heads:
            q, k, v = ([row[i : i + hs] for row in qkv.data[start:end]] for i in (at, width + at, 2 * width + at))
            shares = causal_shares(q, k)
            for row, new in zip(y[start:end], products(shares, transposed(v))):
                row[at : at + hs] = new
            saved.append((q, k, v, shares))

        def backward(dy: Rows) -> None:
            grad = [[0.0] * (3 * width) for _ in qkv.data]
            for (start, end, at), (q, k, v, shares) in zip(heads, saved):
                dq, dk, dv = attend_backward(q, k, v, shares, [row[at : at + hs] for row in dy[start:end]])
                for t, row in enumerate(grad[start:end]):
                    row[at : at + hs] = dq[t]
                    row[width + at : width + at + hs] = dk[t]
                    row[2 * width + at : 2 * width + at + hs] = dv[t]
            qkv.add_grad(grad)

        return self._record(y, backward)

    def gate(self, gates: Matrix, ups: Matrix) -> Matrix:
        """Y = G * sigmoid(G) * U, each by each"""
        sigmoids = [[1.0 / (1.0 + math.exp(-g)) for g in row] for row in gates.data]

        def backward(dy: Rows) -> None:  # dU = dY G s, dG = dY U s (1 + G (1 - s)), s = sigmoid(G)
            rows = list(zip(dy, gates.data, sigmoids, ups.data))
            ups.add_grad([[d * g * s for d, g, s in zip(*row[:3])] for row in rows])
            gates.add_grad([[d * u * s * (1.0 + g * (1.0 - s)) for d, g, s, u in zip(*row)] for row in rows])

        rows = zip(gates.data, sigmoids, ups.data)
        return self._record([[g * s * u for g, s, u in zip(*row)] for row in rows], backward)

    def cross_entropy(self, logits: Matrix, targets: Sequence[int]) -> Matrix:
        """(T, V), (T) -> one number: the mean over t of -ln softmax(logits[t])[targets[t]]"""
        chances = [softmax(row) for row in logits.data]
        n = len(targets)

        def backward(dy: Rows) -> None:  # dlogits[t] = (softmax(logits[t]) - 1 at the target) / T
            factor = dy[0][0] / n
            grad = [[factor * chance for chance in row] for row in chances]
            for row, target in zip(grad, targets, strict=True):
                row[target] -= factor
            logits.add_grad(grad)

        losses = [-math.log(row[target]) for row, target in zip(chances, targets, strict=True)]
        return self._record([[sum(losses) / n]], backward)
