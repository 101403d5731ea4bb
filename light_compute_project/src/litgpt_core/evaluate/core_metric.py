"""DCLM's CORE metric on a bundle that is already here, in nanochat's form: 22 tasks, accuracy centred on chance.

    BUNDLE/core.yaml                 icl_tasks: label, dataset_uri, num_fewshot, icl_task_type, continuation_delimiter
    BUNDLE/eval_data/*.jsonl         items; multiple_choice: query, choices, gold; schema: context_options,
                                     continuation, gold; language_modeling: context, continuation
    BUNDLE/eval_meta_data.csv        "Eval Task", "Random baseline" in percent

    centred = (accuracy - chance) / (1 - chance), CORE = their mean

Choices are compared by their mean loss per token; a language-modelling item counts if its continuation is the greedy
one. Few-shot examples are sampled with nanochat's seeds, so that the prompts are the same. The metric says little below
100 million parameters: five runs of one recipe spread over 0.015, and a model of 4 million scores within that of 0.
Facts: Li et al. 2024 (arXiv 2406.11794), nanochat's `core_eval.py`.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from litgpt_core.core.errors import DataError
from litgpt_core.core.parsing import ParsingError, read_yaml
from litgpt_core.evaluate.gpt_scorer import GPTScorer
from litgpt_core.evaluate.items import split_choices
from litgpt_core.evaluate.scorer import Ids, Span
from litgpt_core.evaluate.statistics import clustered_mean

Kind = Literal["multiple_choice", "schema", "language_modeling"]
SHUFFLE_SEED, EXAMPLE_SEED = 1337, 1234
"""nanochat's."""


@dataclass(frozen=True, kw_only=True)
class CoreTask:
    """One task of the bundle."""

    label: str
    kind: Kind
    examples: int
    """Few-shot examples."""
    delimiter: str
    items: list[dict[str, Any]]
    chance: float


def read_bundle(folder: Path) -> list[CoreTask]:
    """The tasks of a bundle.

    Raises:
        DataError: A file is missing or not in the form above.
    """
    try:
        config = read_yaml(folder / "core.yaml")
        with (folder / "eval_meta_data.csv").open(encoding="utf-8", newline="") as file:
            chances = {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(file)}
        return [_task(folder, task, chances) for task in config["icl_tasks"]]
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}",
            needed="a folder with core.yaml, eval_meta_data.csv and eval_data/",
            fix="--core FOLDER, nanochat's eval_bundle",
        ) from error
    except (ValueError, KeyError, TypeError, ParsingError) as error:
        raise DataError(
            f"{folder} is no CORE bundle: {type(error).__name__}: {error}", needed="nanochat's eval_bundle"
        ) from error


def _task(folder: Path, task: dict[str, Any], chances: dict[str, float]) -> CoreTask:
    lines = (folder / "eval_data" / task["dataset_uri"]).read_text(encoding="utf-8").splitlines()
    kind = task["icl_task_type"]
    if kind not in ("multiple_choice", "schema", "language_modeling"):
        raise ValueError(f"icl_task_type {kind!r}")
    return CoreTask(
        label=task["label"],
        kind=kind,
        examples=int(task["num_fewshot"][0]),
        delimiter=task.get("continuation_delimiter", " "),
        items=[json.loads(line) for line in lines if line.strip()],
        chance=chances[task["label"]],
    )


def core_metric(scorer: GPTScorer, tasks: Sequence[CoreTask], *, limit: int | None = None) -> dict[str, Any]:
    """CORE with its standard error, and every task's accuracy.

    Args:
        scorer: The model.
        tasks: Of `read_bundle`.
        limit: Most items of each task; the metric is then an estimate of itself.
    """
    found: dict[str, Any] = {}
    for task in tasks:
        right = np.array(task_answers(scorer, task, limit=limit), dtype=np.float64)
        estimate = clustered_mean(right, [str(place) for place in range(len(right))])
        scale = 1 - task.chance
        found[task.label] = {
            "accuracy": estimate.value,
            "n": estimate.n,
            "chance": task.chance,
            "centred": (estimate.value - task.chance) / scale,
            "se": estimate.se / scale,
        }
    centred = [task["centred"] for task in found.values()]
    spread = float(np.sqrt(np.nansum([task["se"] ** 2 for task in found.values()]))) / len(found)
    return {"core": float(np.mean(centred)), "se": spread, "limit": limit, "tasks": found}


def task_answers(scorer: GPTScorer, task: CoreTask, *, limit: int | None = None) -> list[bool]:
    """For each item of a task whether the model is right."""
    items = list(task.items)
    random.Random(SHUFFLE_SEED).shuffle(items)
    places = range(len(items) if limit is None else min(limit, len(items)))
    spans = [_spans(scorer, prompts_of(task, items, place), task.kind) for place in places]
    scores = iter(scorer.span_scores([span for each in spans for span in each]))
    answers = []
    for place, each in zip(places, spans, strict=True):
        own = [next(scores) for _ in each]
        if task.kind == "language_modeling":
            answers.append(bool(own[0][:, 1].all()))
        else:
            losses = [-float(score[:, 0].mean()) for score in own]
            answers.append(losses.index(min(losses)) == items[place]["gold"])
    return answers


def prompts_of(task: CoreTask, items: Sequence[dict[str, Any]], place: int) -> list[str]:
    """The texts of one item with its few-shot examples: one for each choice; without and with the continuation."""
    others = [other for other in range(len(items)) if other != place]
    chosen = random.Random(EXAMPLE_SEED + place).sample(others, min(task.examples, len(others)))
    shots = "".join(f"{_solved(task, items[other])}\n\n" for other in chosen)
    item, delimiter = items[place], task.delimiter
    if task.kind == "multiple_choice":
        return [f"{shots}{item['query']}{delimiter}{choice}" for choice in item["choices"]]
    if task.kind == "schema":
        return [f"{shots}{option}{delimiter}{item['continuation']}" for option in item["context_options"]]
    without = f"{shots}{item['context'].strip()}{delimiter}"
    return [without.strip(), without + item["continuation"]]


def _solved(task: CoreTask, item: dict[str, Any]) -> str:
    if task.kind == "multiple_choice":
        return f"{item['query']}{task.delimiter}{item['choices'][item['gold']]}"
    if task.kind == "schema":
        return f"{item['context_options'][item['gold']]}{task.delimiter}{item['continuation']}"
    return f"{item['context'].strip()}{task.delimiter}{item['continuation']}"


def _spans(scorer: GPTScorer, prompts: Sequence[str], kind: Kind) -> list[Span]:
    """What is scored: from the first difference on; in a schema the common end; what continues the first prompt."""
    wholes = [scorer.encode(prompt) for prompt in prompts]
    if kind == "multiple_choice":
        first = len(split_choices(wholes).context)
        return [_cut(whole, first, scorer.block_size) for whole in wholes]
    if kind == "schema":
        shared = len(split_choices([whole[::-1] for whole in wholes]).context)
        return [_cut(whole, len(whole) - max(1, shared), scorer.block_size) for whole in wholes]
    shared = len(split_choices(wholes).context)
    start = len(wholes[0]) if shared >= len(wholes[0]) - 1 and len(wholes[0]) < len(wholes[1]) else shared
    return [_cut(wholes[1], start, scorer.block_size)]


def _cut(ids: Ids, first: int, block_size: int) -> Span:
    """The end of a sequence that the window holds; at least one id of context stays."""
    begin = max(0, len(ids) - 1 - block_size)
    return Span(ids[begin:], max(1, first - begin))
