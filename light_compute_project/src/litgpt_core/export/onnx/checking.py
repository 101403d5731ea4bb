"""Checks an ONNX graph: onnxruntime's prefill, decoding and left-padded batch against the file's weights in torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litgpt_core.core.packages import optional
from litgpt_core.export.onnx.graph import INSTALL
from litgpt_core.export.onnx.step import IDS, LOGITS, MASK, PAST, POSITIONS, PRESENT
from litgpt_core.export.parity import Parity, compare_logits, greedy_equal, logits_of, sample_ids
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.tokenizers import Tokenizer

TOLERANCE = 1e-4
"""Largest difference of log-probabilities between onnxruntime and torch, with the same weights."""
ROUNDED = 0.5
"""The same, of the five most probable tokens, where products by integers round activations to 8 bits: as for llama.cpp.
"""
_TOP = 5
MOST_KL = {"f32": 1e-9, "int8": 5e-2}
"""Largest KL(original || file), in nats; for 4 bits it is the user's choice, and only said."""
_PROMPT, _NEW = 24, 24


class Runner:
    """A graph in onnxruntime, on the CPU with one thread."""

    def __init__(self, model: Path, config: GPTConfig) -> None:
        """Raises EnvironmentProblem if onnxruntime is not installed."""
        given = "An ONNX file is checked with onnxruntime, which is not installed."
        library = optional("onnxruntime", given=given, needed="onnxruntime", fix=f"{INSTALL}, or --no_check")
        options = library.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = library.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.version, self.config = str(library.__version__), config
        self.names = [PAST % (layer, part) for layer in range(config.n_layer) for part in ("key", "value")]

    def empty(self, batch: int) -> dict[str, Any]:
        """Caches without a slot."""
        shape = (batch, self.config.n_query_groups, 0, self.config.head_size)
        return {name: np.zeros(shape, dtype=np.float32) for name in self.names}

    def __call__(
        self, ids: Any, past: dict[str, Any], *, mask: Any = None, positions: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """(B, T) ids and the caches so far -> (B, T, V) logits and the new caches."""
        ids = np.asarray(ids, dtype=np.int64)
        before = past[self.names[0]].shape[2]
        if mask is None:
            mask = np.ones((len(ids), before + ids.shape[1]), dtype=np.int64)
        if positions is None:
            positions = np.broadcast_to(np.arange(before, before + ids.shape[1], dtype=np.int64), ids.shape)
        found = self.session.run(None, {IDS: ids, MASK: mask, POSITIONS: np.ascontiguousarray(positions), **past})
        named = dict(zip([each.name for each in self.session.get_outputs()], found, strict=True))
        present = {
            PAST % (layer, part): named[PRESENT % (layer, part)]
            for layer in range(self.config.n_layer)
            for part in ("key", "value")
        }
        return named[LOGITS], present


def check_graph(
    model: Path, original: GPT, again: GPT, tokenizer: Tokenizer, *, kind: str, exact: Path | None = None
) -> Parity:
    """Compare a graph with the checkpoint that it was made from.

    Args:
        model: The graph.
        original: The checkpoint's model, float32.
        again: The model with the weights as the graph has them.
        tokenizer: Its vocabulary is the graph's.
        kind: The type of the matrices.
        exact: The same graph without rounding of activations, which must compute the same as torch to `TOLERANCE`;
            None if `model` does not round.
    """
    rows = tokenizer.vocab_size
    ids, n_bytes = sample_ids(tokenizer, longest=original.config.block_size)
    ours = logits_of(again, ids, rows=rows)
    found = compare_logits(logits_of(original, ids, rows=rows), ours, ids, n_bytes=n_bytes)
    failures = []
    for graph, top in ((exact, None), (model, None if exact is None else _TOP)):
        if graph is None:
            continue
        tolerance = TOLERANCE if top is None else ROUNDED
        runner = Runner(graph, again.config)
        theirs, _ = runner([ids], runner.empty(1))
        delta = {"of a prefill": _delta(torch.from_numpy(theirs[0]), ours, top=top)}
        prompt = ids[: min(_PROMPT, len(ids))]
        chosen, delta["of decoding"] = _decode(runner, again, prompt, rows=rows, top=top)
        delta["of a left-padded batch"] = _padded_delta(runner, again, ids, rows=rows, top=top)
        failures += [
            f"onnxruntime's log-probabilities {what} differ by up to {value:.2g}"
            for what, value in delta.items()
            if not value <= tolerance
        ]
        equal = greedy_equal(again, prompt, chosen, rows=rows, tolerance=tolerance)
        if equal < len(chosen):
            failures.append(f"onnxruntime chooses {len(chosen) - equal} of {len(chosen)} other tokens")
    if found["kl"] > MOST_KL.get(kind, float("inf")):
        failures.append(f"the stored weights change the distribution by {found['kl']:.2g} nats")
    return Parity(
        format="onnx",
        reader=f"onnxruntime {runner.version}",
        tokens=len(chosen),
        greedy_equal=equal,
        max_delta=max(delta.values()),
        failures=tuple(failures),
        **found,
    )


def _delta(theirs: Tensor, ours: Tensor, *, top: int | None) -> float:
    """Largest difference of log-probabilities, (T, V) logits each; of torch's `top` most probable tokens."""
    differences = (theirs.double().log_softmax(-1) - ours.double().log_softmax(-1)).abs()
    return (
        (differences if top is None else differences.gather(-1, ours.topk(min(top, ours.size(-1))).indices))
        .max()
        .item()
    )


def _decode(
    runner: Runner, model: GPT, prompt: Sequence[int], *, rows: int, top: int | None
) -> tuple[list[int], float]:
    """The graph's greedy continuation, token by token with its cache, and how much its logits differ from torch's."""
    logits, past = runner([prompt], runner.empty(1))
    steps, chosen = [logits[0, -1]], [int(logits[0, -1].argmax())]
    for _ in range(min(_NEW, model.config.block_size - len(prompt)) - 1):
        logits, past = runner([[chosen[-1]]], past)
        steps.append(logits[0, -1])
        chosen.append(int(logits[0, -1].argmax()))
    ours = logits_of(model, [*prompt, *chosen[:-1]], rows=rows)[len(prompt) - 1 :]
    return chosen, _delta(torch.from_numpy(np.stack(steps)), ours, top=top)


def _padded_delta(runner: Runner, model: GPT, ids: Sequence[int], *, rows: int, top: int | None) -> float:
    """A long and a short sequence in one batch, then one more token: the short one's logits and the long one's."""
    long = list(ids[: max(2, min(17, len(ids)))])
    short = long[: max(1, len(long) // 3)]
    pads = len(long) - len(short)
    mask = np.ones((2, len(long)), dtype=np.int64)
    mask[1, :pads] = 0
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    batch = [long[:-1], [long[0]] * pads + short[:-1]]
    first, past = runner(batch, runner.empty(2), mask=mask[:, :-1], positions=positions[:, :-1])
    last, _ = runner([[long[-1]], [short[-1]]], past, mask=mask, positions=positions[:, -1:])
    worst = 0.0
    for row, sequence in enumerate((long, short)):
        theirs = np.concatenate((first[row], last[row]))[-len(sequence) :]
        worst = max(worst, _delta(torch.from_numpy(theirs), logits_of(model, sequence, rows=rows), top=top))
    return worst
