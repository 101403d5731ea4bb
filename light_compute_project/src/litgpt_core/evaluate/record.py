"""Measures one checkpoint: everything that `{STEP}.json` holds, item by item, with where it comes from."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.checkpoint.layout import CHECKSUMS, WEIGHTS
from litgpt_core.core import machine
from litgpt_core.core.packages import package_versions
from litgpt_core.core.parsing import read_json
from litgpt_core.core.source_code import git_state
from litgpt_core.data.document import Document, documents_sha256
from litgpt_core.evaluate.compare import FEWEST_TEXTS, block_sizes
from litgpt_core.evaluate.compressors import compressor_bits
from litgpt_core.evaluate.contamination import clean_items, overlap
from litgpt_core.evaluate.gpt_scorer import GPTScorer
from litgpt_core.evaluate.items import Fitted, Item, fit
from litgpt_core.evaluate.ngram_scorer import NgramScorer
from litgpt_core.evaluate.run_data import RunData
from litgpt_core.evaluate.statistics import Estimate, clustered_ratio
from litgpt_core.evaluate.suite_score import SuiteScore, score_suite
from litgpt_core.evaluate.text_score import TextScore, score_texts, total_bits_per_byte

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What is measured on every checkpoint."""

    documents: Sequence[Document]
    """For bits per byte; empty: not measured."""
    suites: dict[str, list[Item]]
    of_a_kind: int | None
    """Most items of one kind."""
    context: int | None
    """Of the windows; see `windows.py`."""
    seed: int
    references: dict[Any, Any] = field(default_factory=dict)
    """What n-gram models and compressors score, kept for further checkpoints of the same data."""


def measure(scorer: GPTScorer, data: RunData | None, *, what: Measurements) -> dict[str, Any]:
    """All numbers of one model; plain values.

    Args:
        scorer: The model.
        data: What it was trained on; None: no n-gram models, and contamination is not looked for.
        what: Texts and items.
    """
    began = time.perf_counter()
    found: dict[str, Any] = {"format": FORMAT, "name": scorer.name, "tokenizer": scorer.tokenizer.fingerprint()}
    found["block_size"], found["n_params"] = scorer.block_size, scorer.model.num_parameters()
    found["seed"], found["context"], found["of_a_kind"] = what.seed, what.context, what.of_a_kind
    if what.documents:
        found["bytes"] = _bytes(scorer, data, what)
        logger.info("%s: %.4f bits per byte", scorer.name, found["bytes"]["bits_per_byte"])
    found["suites"] = {}
    for suite, items in what.suites.items():
        if (measured := _suite(suite, items, scorer, data, what)) is not None:
            found["suites"][suite] = measured
            line = "%s: %s accuracy %.3f, chance %.3f, %d items"
            logger.info(line, scorer.name, suite, measured["accuracy"]["value"], measured["chance"], measured["n"])
    found["seconds"] = round(time.perf_counter() - began, 2)
    device = str(scorer.model.device.type)
    found["dtype"] = str(scorer.model.dtype).removeprefix("torch.")
    return found | {"device": machine.device_name(device), "git": git_state(), "versions": package_versions()}


def _bytes(scorer: GPTScorer, data: RunData | None, what: Measurements) -> dict[str, Any]:
    scores = score_texts(scorer, what.documents, context=what.context)
    shares = _overlaps(data, what)
    texts = []
    for document, score, share in zip(what.documents, scores, shares, strict=True):
        digest = hashlib.sha256(document.text.encode("utf-8")).hexdigest()[:12]
        blocks = [round(float(bits), 3) for bits in score.block_bits()]
        texts.append(
            {"name": score.name, "sha256": digest, "n_bytes": score.n_bytes, "n_tokens": score.n_tokens}
            | {"bits_per_byte": score.bits_per_byte, "in_training": share, "blocks": blocks}
        )
    estimate = bits_estimate(scores)
    return {
        "bits_per_byte": estimate.value,
        "se": estimate.se if math.isfinite(estimate.se) else None,
        "n_bytes": sum(score.n_bytes for score in scores),
        "n_tokens": sum(score.n_tokens for score in scores),
        "sha256": documents_sha256(what.documents),
        "references": _text_references(data, what),
        "texts": texts,
    }


def bits_estimate(scores: Sequence[TextScore]) -> Estimate:
    """Bits per byte of several texts with its standard error; clusters are texts, or blocks where texts are few."""
    blocks = [score.block_bits() for score in scores]
    sizes = [block_sizes(score.n_bytes) for score in scores]
    few = len(scores) < FEWEST_TEXTS
    clusters = [
        f"{number} {block}" if few else str(number) for number, each in enumerate(blocks) for block in range(len(each))
    ]
    return clustered_ratio(np.concatenate(blocks), np.concatenate(sizes), clusters)


def _overlaps(data: RunData | None, what: Measurements) -> list[float | None]:
    if data is None:
        return [None] * len(what.documents)
    key = ("overlap", data.prepared.directory)
    if key not in what.references:
        uniform = data.ngrams[0]
        ids = [uniform.encode(document.text)[1:] for document in what.documents]
        what.references[key] = overlap(ids, data.train)
    return list(what.references[key])


def _text_references(data: RunData | None, what: Measurements) -> dict[str, float]:
    if "compressors" not in what.references:
        what.references["compressors"] = compressor_bits(what.documents)
    found = dict(what.references["compressors"])
    for model in data.ngrams if data is not None else []:
        key = ("bytes", data and data.prepared.directory, model.name)
        if key not in what.references:
            what.references[key] = total_bits_per_byte(score_texts(model, what.documents))
        found[model.name] = what.references[key]
    return found


def _suite(
    suite: str, items: list[Item], scorer: GPTScorer, data: RunData | None, what: Measurements
) -> dict[str, Any] | None:
    fitted = fit(items, scorer, of_a_kind=what.of_a_kind)
    if not fitted.items:
        logger.warning(
            "%s: no item of %s fits (%d are too long for the window of %d tokens, %d have no choices of equal length)",
            *(scorer.name, suite, fitted.too_long, scorer.block_size, fitted.unequal),
        )
        return None
    own = data is not None and data.tokenizer.fingerprint() == scorer.tokenizer.fingerprint()
    clean = None
    if own and data is not None:
        key: Any = ("clean", data.prepared.directory, tuple(item.identity for item in fitted.items))
        if key not in what.references:
            special = data.tokenizer.special_ids()
            what.references[key] = clean_items(fitted.requests, data.train, special=special)
        clean = what.references[key]
    score = score_suite(suite, fitted, scorer, clean=clean)
    found = score.plain()
    found["references"] = {}
    for model in data.ngrams if own and data is not None else []:
        found["references"][model.name] = _reference(score, suite, fitted, model, what)
    return found


def _reference(
    score: SuiteScore, suite: str, fitted: Fitted, model: NgramScorer, what: Measurements
) -> dict[str, float]:
    key = (suite, score.sha256, id(model))
    if key not in what.references:
        theirs = score_suite(suite, fitted, model)
        what.references[key] = {
            measure: theirs.estimate(measure).value for measure in ("accuracy", "choice_bits", "margin")
        }
    return dict(what.references[key])


def weights_sha256(directory: Path) -> str | None:
    """Of a checkpoint's weights as its checksums.json says it; None without one."""
    try:
        return str(read_json(directory / CHECKSUMS)[WEIGHTS]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
