"""Checks a GGUF file: its weights read back by `importing`, its tokenizer and its computation by llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litgpt_core.checkpoint import load_model
from litgpt_core.export.gguf import llama_cpp
from litgpt_core.export.gguf.architecture import Architecture
from litgpt_core.export.gguf.emulation import emulated, excess
from litgpt_core.export.gguf.importing import read_model
from litgpt_core.export.gguf.layout import TensorType
from litgpt_core.export.parity import Parity, compare_logits, logits_of, sample_ids, sample_texts
from litgpt_core.model.gpt import GPT
from litgpt_core.tokenizers import Tokenizer

TOLERANCES = {"F32": 5e-3, "F16": 5e-3, "BF16": 2e-2}
"""Largest difference of log-probabilities between llama.cpp and the file's weights in torch; others: `QUANTIZED`.
For 16-bit weights torch rounds activations as llama.cpp does, and this is what may remain: see `emulation`.
"""
QUANTIZED = 0.5
"""Activations become 8-bit integers with a scale for every 32 of them."""
GELU = 5e-2
"""Where llama.cpp computes the tanh form of GELU, and the model the exact one."""
MOST_KL = {"F32": 1e-9, "F16": 1e-3, "BF16": 5e-2, "Q8_0": 5e-2}
"""Largest KL(original || file), in nats; for 4 and 5 bits it is the user's choice, and only said."""
_PROMPT, _NEW, _PREFIXES = 24, 40, 16


def check_file(
    file: Path, directory: Path, tokenizer: Tokenizer, *, kind: TensorType, architecture: Architecture
) -> Parity:
    """Compare a file with the checkpoint that it was made from."""
    original = load_model(directory, dtype=torch.float32, dequantize=True)
    again = read_model(file)
    rows = tokenizer.vocab_size
    ids, n_bytes = sample_ids(tokenizer, longest=original.config.block_size)
    found = compare_logits(logits_of(original, ids, rows=rows), logits_of(again, ids, rows=rows), ids, n_bytes=n_bytes)
    failures = []
    if found["kl"] > MOST_KL.get(kind.name, float("inf")):
        failures.append(
            f"read back, the logits differ by up to {found['max_logit_delta']:.2g}, KL {found['kl']:.2g} nats"
        )
    reader = llama_cpp.reader_name()
    if reader is None:
        return Parity(format="gguf", reader="", missing=llama_cpp.INSTALL, **found, failures=tuple(failures))
    tolerance = TOLERANCES.get(kind.name, QUANTIZED)
    if architecture.computes_tanh and original.config.gelu_approximate == "none":
        tolerance = max(tolerance, GELU)
    told = _ask(file, again, tokenizer, ids, tolerance=tolerance, kind=kind.name)
    failures += told.pop("failures")
    return Parity(format="gguf", reader=reader, **found, **told, failures=tuple(failures))


def _ask(
    file: Path, model: GPT, tokenizer: Tokenizer, ids: list[int], *, tolerance: float, kind: str
) -> dict[str, Any]:
    """llama.cpp's ids and greedy tokens against the tokenizer's and the file's weights in torch."""
    texts = sample_texts(tokenizer)
    new = max(1, min(_NEW, model.config.block_size - _PROMPT - 1))
    prompt = ids[: min(_PROMPT, model.config.block_size - new)]
    longest = min(len(ids), model.config.block_size - 2)  # llama.cpp's context is that of the model
    lengths = sorted({max(1, longest * step // _PREFIXES) for step in range(1, _PREFIXES + 1)})
    answers = llama_cpp.ask(
        file,
        texts=texts,
        prompt=prompt,
        n_tokens=new,
        prefixes=[ids[:length] for length in lengths],
        special=tokenizer.kind == "foreign",
    )
    if answers.error:
        return {"failures": [f"llama.cpp does not read it: {answers.error}"]}
    different = [text for text, theirs in zip(texts, answers.ids, strict=True) if theirs != tokenizer.encode(text)]
    rows = tokenizer.vocab_size
    [path] = emulated(model, [*prompt, *answers.greedy][:-1], rows=rows, kind=kind, results=1)
    behind = _behind_the_best(path[len(prompt) - 1 :], answers.greedy, left_out=sorted(tokenizer.special_ids()))
    equal = int((behind <= 2 * tolerance).sum())
    delta, beyond = _differences(
        emulated(model, ids, rows=rows, kind=kind), dict(zip(lengths, answers.most_probable, strict=True))
    )
    failures = []
    if different:
        failures.append(f"llama.cpp has other ids for {len(different)} of {len(texts)} texts, such as {different[0]!r}")
    if equal < len(answers.greedy):
        failures.append(f"llama.cpp chooses {len(answers.greedy) - equal} of {len(answers.greedy)} other tokens")
    if (beyond if kind in ("F16", "BF16") else delta) > tolerance:
        failures.append(f"llama.cpp's log-probabilities differ by up to {delta:.2g}")
    return {
        "texts": len(texts),
        "ids_equal": len(texts) - len(different),
        "tokens": len(answers.greedy),
        "greedy_equal": equal,
        "greedy_identical": int((behind == 0).sum()),
        "max_delta": delta,
        "failures": failures,
    }


def _behind_the_best(result: Tensor, chosen: list[int], *, left_out: list[int]) -> Tensor:
    """(T, rows) log-probabilities -> (T,): by how much the chosen tokens are less probable than the best ones.

    Args:
        result: Of the positions before each chosen token.
        chosen: T tokens.
        left_out: Tokens that could not be chosen: llama.cpp was instructed not to end the text.
    """
    best = result.clone()
    best[:, left_out] = float("-inf")
    theirs = result.gather(-1, torch.tensor(chosen)[:, None])[:, 0]
    return (best.amax(-1) - theirs).clamp_min(0.0)


def _differences(results: Tensor, answers: dict[int, dict[int, float]]) -> tuple[float, float]:
    """Largest difference of llama.cpp's log-probabilities from the mean of the results, and the largest `excess`.

    Args:
        results: (N, T, rows) log-probabilities.
        answers: Length of a prefix -> log-probabilities of tokens after it.
    """
    pairs = [
        (results[:, length - 1, token], value)
        for length, most_probable in answers.items()
        for token, value in most_probable.items()
    ]
    delta = max((abs(each.mean().item() - value) for each, value in pairs), default=0.0)
    return delta, max((excess(each, value) for each, value in pairs), default=0.0)
