"""Derivatives by hand equal torch's, and the small models equal the core's, in float64."""

from __future__ import annotations

import ast
import random
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.pure import microgpt, tape, train
from litgpt_core.pure.microgpt import Value

NAMES = ["emma", "olivia", "ava", "mia", "maximilianjonathan", "ida", "x"]
LETTERS = "".join(sorted(set("".join(NAMES))))
PURE = Path(microgpt.__file__).parent


def core_twin(c: train.Config, weights: dict[str, list[list[float]]]) -> GPT:
    """The core's model of the same settings and weights, in float64."""
    config = GPTConfig(
        n_layer=c.n_layer,
        n_head=c.n_head,
        n_embd=c.n_embd,
        block_size=c.block_size,
        vocab_size=c.vocab_size,
        padded_vocab_size=c.vocab_size,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=c.intermediate_size,
        parallel_residual=False,
        bias=False,
        rotary_percentage=1.0,
    )
    model = GPT(config).double()
    state = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in weights.items()}
    model.load_state_dict({name: rows[0] if "norm" in name or "ln_f" in name else rows for name, rows in state.items()})
    rope = model.transformer.rope
    assert rope is not None
    pairs = torch.arange(0, rope.config.rope_n_elem, 2, dtype=torch.float64)
    rope.theta = (float(c.rope_base) ** (-pairs / rope.config.rope_n_elem))[
        None
    ]  # angles in float64 instead of float32
    return model


def core_gradients(model: GPT, ids: list[list[int]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean loss over all ids after the first of each sequence, and the derivative by every weight."""
    logits = torch.cat([model(torch.tensor([each[:-1]]))[0] for each in ids])
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([token for each in ids for token in each[1:]]))
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_near(rows: object, tensor: torch.Tensor, tolerance: float) -> None:
    found = torch.tensor(rows, dtype=torch.float64).reshape(tensor.shape)
    assert float((found - tensor).abs().max()) <= tolerance


def test_every_gradient_of_microgpt_is_the_cores() -> None:
    w = microgpt.initial_weights(len(LETTERS) + 1, random.Random(3))
    ids = microgpt.encode("olivia", LETTERS)
    loss = microgpt.loss_of(ids, w)
    loss.backward()
    numbers = {name: [[each.data for each in row] for row in rows] for name, rows in w.items()}
    expected, gradients = core_gradients(core_twin(train.Config(vocab_size=len(LETTERS) + 1), numbers), [ids])
    assert loss.data == pytest.approx(expected, abs=1e-10)
    assert set(gradients) == set(w)
    for name, rows in w.items():
        assert_near([[each.grad for each in row] for row in rows], gradients[name], 1e-10)


@pytest.mark.parametrize("sizes", [{}, {"n_layer": 2, "n_head": 2, "n_embd": 12, "intermediate_size": 20}])
def test_every_gradient_of_the_tape_is_the_cores(sizes: dict[str, int]) -> None:
    c = train.Config(vocab_size=len(LETTERS) + 1, **sizes)
    w = train.initial_weights(c, random.Random(4))
    ids = [microgpt.encode(name, LETTERS)[: c.block_size + 1] for name in NAMES]
    loss = train.gradients(w, c, ids)
    expected, gradients = core_gradients(core_twin(c, {name: each.data for name, each in w.items()}), ids)
    assert loss == pytest.approx(expected, abs=1e-10)
    for name, each in w.items():
        assert each.grad is not None
        assert_near(each.grad, gradients[name], 1e-10)


def test_the_tape_is_microgpt() -> None:
    """The same seed makes the same weights, and one name has the same loss and derivatives to the last few bits."""
    scalar = microgpt.initial_weights(len(LETTERS) + 1, random.Random(5))
    c = train.Config(vocab_size=len(LETTERS) + 1)
    rows = train.initial_weights(c, random.Random(5))
    assert {name: [[v.data for v in row] for row in each] for name, each in scalar.items()} == {
        name: each.data for name, each in rows.items()
    }
    ids = microgpt.encode("olivia", LETTERS)
    loss = microgpt.loss_of(ids, scalar)
    loss.backward()
    assert train.gradients(rows, c, [ids]) == pytest.approx(loss.data, abs=1e-12)
    for name, each in rows.items():
        assert_near(
            each.grad, torch.tensor([[v.grad for v in row] for row in scalar[name]], dtype=torch.float64), 1e-12
        )


def test_names_of_a_batch_do_not_see_each_other() -> None:
    c = train.Config(vocab_size=len(LETTERS) + 1)
    w = train.initial_weights(c, random.Random(6))
    one, two = microgpt.encode("emma", LETTERS), microgpt.encode("ida", LETTERS)
    together = train.logits_of(tape.Tape(), w, c, [one, two]).data
    alone = [row for ids in (one, two) for row in train.logits_of(tape.Tape(), w, c, [ids]).data]
    assert together == alone


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.2, 3.0), min_size=3, max_size=3), st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_random_expressions_have_torchs_derivatives(numbers: list[float], operations: list[int]) -> None:
    """Expressions grown step by step, where results are used again, so that derivatives must add up."""
    ours: list[Value] = [Value(number) for number in numbers]
    theirs = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in numbers]
    leaves = theirs[:]
    for at, operation in enumerate(operations):
        i, j = at % len(ours), (at * 7 + operation) % len(ours)
        a, b, x, y = ours[i], ours[j], theirs[i], theirs[j]
        if operation == 0:
            pair = a + b, x + y
        elif operation == 1:
            pair = a * b, x * y
        elif operation == 2:
            pair = (a * a + Value(1.0)) ** -0.5, (x * x + 1.0) ** -0.5
        elif operation == 3:
            pair = (a * a + Value(1.0)).log(), (x * x + 1.0).log()
        elif operation == 4:
            pair = (
                (a * (b * b + Value(1.0)) ** -1).exp() if abs(a.data) < 9 else a,
                ((x / (y * y + 1.0)).exp() if abs(a.data) < 9 else x),
            )
        elif operation == 5:
            pair = microgpt.dot([a, b, a], [b, b, Value(0.5)]), x * y + y * y + x * 0.5
        else:
            pair = (
                microgpt.softmax([a, b])[0] if max(abs(a.data), abs(b.data)) < 50 else a,
                (torch.stack([x, y]).softmax(0)[0] if max(abs(a.data), abs(b.data)) < 50 else x),
            )
        ours.append(pair[0])
        theirs.append(pair[1])
    total = microgpt.dot(ours, [Value(1.0)] * len(ours))
    total.backward()
    torch.stack(theirs).sum().backward()  # type: ignore[no-untyped-call]
    for value, leaf in zip(ours, leaves, strict=False):
        assert leaf.grad is not None
        assert value.grad == pytest.approx(float(leaf.grad), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("steps", [1, 50])
def test_adam_is_torchs(steps: int) -> None:
    rng = random.Random(7)
    start = [[rng.gauss(0, 1) for _ in range(4)] for _ in range(3)]
    gradients = [[[rng.gauss(0, 10 ** rng.uniform(-4, 2)) for _ in range(4)] for _ in range(3)] for _ in range(steps)]
    theirs = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=(0.85, 0.99), eps=1e-8)
    scalar = [Value(each) for row in start for each in row]
    means, squares = [0.0] * 12, [0.0] * 12
    rows = tape.Matrix([row[:] for row in start])
    adam = train.Adam([rows])
    for step, gradient in enumerate(gradients, start=1):
        theirs.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        rows.grad = gradient
        adam.step(0.01)
        for value, number in zip(scalar, [each for row in gradient for each in row], strict=True):
            value.grad = number
        microgpt.adam_step(scalar, means, squares, step, 0.01)
    assert_near(rows.data, theirs.detach(), 1e-9)
    assert_near([value.data for value in scalar], theirs.detach().flatten(), 1e-9)
    assert all(value.grad == 0.0 for value in scalar)


def test_microgpt_learns_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss of the last names is below that of guessing, and every written name is of the letters it has seen."""
    path = tmp_path / "names.txt"
    path.write_text("\n".join(["ada", "bea", "eda"] * 7), encoding="utf-8")
    microgpt.main(str(path), steps=40, lr=0.05)
    report, *names = capsys.readouterr().out.split("\r")[-1].splitlines()
    loss = float(report.split("loss of the last 200: ")[1].split(",")[0])
    assert loss < 1.3  # the mean of all 40; a guess among a, b, d, e and the end has ln 5 = 1.61
    assert len(names) == 10
    assert set("".join(names)) <= set("abde")


def test_pure_imports_only_the_standard_library() -> None:
    """And core, which imports no package either, apart from the one file that stands alone."""
    allowed = {*sys.stdlib_module_names, "litgpt_core"}
    for path in sorted(PURE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed, f"{path.name} imports {name}"
                assert path.name != "microgpt.py" or not name.startswith("litgpt_core")


def test_microgpt_is_at_most_200_lines() -> None:
    assert len((PURE / "microgpt.py").read_text(encoding="utf-8").splitlines()) <= 200
