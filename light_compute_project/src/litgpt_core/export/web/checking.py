"""Checks a page: its engine, run by node, against the tokenizer and the file's weights in torch."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litgpt_core.core.errors import CheckpointError
from litgpt_core.core.parsing import parse_json
from litgpt_core.export.blocks import CheckpointSource
from litgpt_core.export.parity import Parity, compare_logits, greedy_equal, logits_of, sample_ids, sample_texts
from litgpt_core.model.gpt import GPT
from litgpt_core.prompts import Message, encode_prompt, load_style

INSTALL = "with Node.js 18 or later (nodejs.org), the page's engine would be run and compared"
TOLERANCE = 1e-4
"""Largest difference of log-probabilities between the page's engine and torch, with the same weights."""
MOST_KL = 5e-2
"""Largest KL(original || file), in nats, of 8-bit weights."""
_LIMIT_S = 900
_POSITIONS, _PROMPT, _NEW = 48, 24, 40
SAID = ("What is the capital of France?", "Spell <|im_end|> and </s>, please: émigré, 日本語.")


def check_page(file: Path, source: CheckpointSource, again: GPT, *, chat: dict[str, Any] | None) -> Parity:
    """Compare a page with the checkpoint that it was made from.

    Args:
        file: The page.
        source: The checkpoint.
        again: The model with the weights as the page has them.
        chat: The page's chat format.
    """
    tokenizer, rows = source.tokenizer, source.tokenizer.vocab_size
    ids, n_bytes = sample_ids(tokenizer, longest=source.config.block_size)
    ours = logits_of(again, ids, rows=rows)
    found = compare_logits(logits_of(source.model, ids, rows=rows), ours, ids, n_bytes=n_bytes)
    failures = [] if found["kl"] <= MOST_KL else [f"8-bit weights change the distribution by {found['kl']:.2g} nats"]
    node = shutil.which("node")
    if node is None:
        return Parity(format="web", reader="", missing=INSTALL, failures=tuple(failures), **found)
    texts, prompt = sample_texts(tokenizer), ids[: min(_PROMPT, len(ids))]
    new = min(_NEW, source.config.block_size - len(prompt) + 1)
    asked = ids[:_POSITIONS]
    job = {"texts": texts, "ids": asked, "prompt": prompt, "most": new, "plain": ids[:3]}
    job["turns"] = list(SAID) if chat else []
    answer = run_page(node, file, job)
    logits = torch.from_numpy(np.frombuffer(base64.b64decode(answer["logits"]), "<f4").copy()).reshape(len(asked), rows)
    delta = (logits.double().log_softmax(-1) - ours[: len(asked)].double().log_softmax(-1)).abs().max().item()
    different = [text for text, theirs in zip(texts, answer["ids"], strict=True) if theirs != tokenizer.encode(text)]
    equal = greedy_equal(again, prompt, answer["chosen"], rows=rows, tolerance=TOLERANCE)
    failures += _failures(answer, different, delta=delta, equal=equal, n_texts=len(texts))
    failures += _wrong_turns(source, answer["turns"]) if chat else []
    return Parity(
        format="web",
        reader=f"node {answer['version']}",
        texts=len(texts),
        ids_equal=len(texts) - len(different),
        tokens=len(answer["chosen"]),
        greedy_equal=equal,
        max_delta=delta,
        failures=tuple(failures),
        **found,
    )


def _failures(answer: dict[str, Any], different: list[str], *, delta: float, equal: int, n_texts: int) -> list[str]:
    found = []
    if different:
        found.append(f"the page has other ids for {len(different)} of {n_texts} texts, such as {different[0]!r}")
    if equal < len(answer["chosen"]):
        found.append(f"the page chooses {len(answer['chosen']) - equal} of {len(answer['chosen'])} other tokens")
    if not delta <= TOLERANCE:
        found.append(f"the page's log-probabilities differ by up to {delta:.2g}")
    if not answer["plain"]:
        found.append("its engine without WebAssembly computes something else")
    return found


def _wrong_turns(source: CheckpointSource, turns: list[list[int]]) -> list[str]:
    """First turns of a conversation, as ids."""
    style = load_style(source.directory)
    assert style is not None, "a page chats only if the checkpoint has a style"
    ours = [encode_prompt(style, source.tokenizer, [Message(role="user", content=said)]) for said in SAID]
    return [] if turns == ours else ["the page begins a conversation with other ids"]


def run_page(node: str, file: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What `check.js` answers to a job. Raises CheckpointError with node's message if the engine fails."""
    with resources.as_file(resources.files("litgpt_core.export.web") / "static" / "check.js") as script:
        done = subprocess.run(
            [node, "--max-old-space-size=8192", str(script), str(file)],
            input=json.dumps(job).encode(),
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-400:]
        raise CheckpointError(f"The page's engine fails in node: {said}", fix="--no_check keeps the page as it is")
    found: dict[str, Any] = parse_json(done.stdout, max_bytes=len(done.stdout))
    return found
