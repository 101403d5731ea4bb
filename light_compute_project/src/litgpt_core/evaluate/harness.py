"""Tasks of EleutherAI's lm-evaluation-harness with a model of ours, as it is: no conversion, no second copy.

    simple_evaluate --requests--> HarnessModel --GPTScorer, Engine--> log likelihoods, texts --> the task's own metrics

The package `lm-eval` is not installed with this project, and this is the only file that imports it. Requests with the
same context are scored together, so a multiple-choice question costs one pass over its context. The division into
context and continuation is that of the harness: trailing spaces of the context belong to the continuation; the context
is tokenized alone; what the whole text has beyond as many tokens is scored; what is too long loses its beginning.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.evaluate.gpt_scorer import GPTScorer
from litgpt_core.evaluate.scorer import Continuations, Ids, Span
from litgpt_core.evaluate.windows import sliding_spans
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.sampling_settings import SamplingSettings

MOST_NEW_TOKENS = 256
"""Of a generated answer, where a task does not say."""


class HarnessRequests:
    """The three questions of the harness, answered by a scorer; knows nothing of the package.

    Args:
        scorer: The model.
    """

    def __init__(self, scorer: GPTScorer) -> None:
        self.scorer = scorer
        self.engine = Engine(scorer.model, scorer.tokenizer)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """For each (context, continuation): log p of the continuation in nats, and whether it is the greedy one."""
        by_context: dict[bytes, list[int]] = defaultdict(list)
        known: dict[str, list[int]] = {}
        encoded = [self.encode_pair(*pair, known=known) for pair in pairs]
        for place, (context, _) in enumerate(encoded):
            by_context[context.tobytes()].append(place)
        groups = list(by_context.values())
        requests = [Continuations(encoded[g[0]][0], tuple(encoded[place][1] for place in g)) for g in groups]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(encoded)
        for group, scores in zip(groups, self.scorer.choice_scores(requests), strict=True):
            for place, score in zip(group, scores, strict=True):
                found[place] = (float(score[:, 0].sum()), bool(score[:, 1].all()))
        return found

    def encode_pair(
        self, context: str, continuation: str, *, known: dict[str, list[int]] | None = None
    ) -> tuple[Ids, Ids]:
        """Ids of both, cut at the beginning to what the window holds; `known`: ids of contexts, which is filled."""
        known = {} if known is None else known
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        tokenizer = self.scorer.tokenizer
        start = [self.scorer.start_id] if tokenizer.use_bos or not context else []
        if context not in known:
            known[context] = tokenizer.encode(context) if context else []
        before = [*start, *known[context]]
        whole = [*start, *tokenizer.encode(context + continuation)]
        first = min(len(before), len(whole) - 1)  # not all: the continuation may merge into the context's last token
        ids = np.array([*before[:first], *whole[first:]], dtype=np.int64)
        cut = max(0, len(ids) - 1 - self.scorer.block_size)
        return ids[min(cut, first - 1) : first], ids[first:]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Log p of each text in nats: windows that do not overlap, but for one id and for the last window."""
        spans: list[Span] = []
        counts = []
        for text in texts:
            ids = self.scorer.encode(text)
            found = sliding_spans(ids, block_size=self.scorer.block_size, context=1)
            if len(found) > 1:  # the harness gives the last window as much context as fits
                start = max(0, len(ids) - 1 - self.scorer.block_size)
                scored = len(found[-1].ids) - found[-1].first
                found[-1] = Span(ids[start:], len(ids) - scored - start)
            spans += found
            counts.append(len(found))
        scores = iter(self.scorer.span_logprobs(spans))
        return [float(sum(next(scores).sum() for _ in range(count))) for count in counts]

    def generate_until(self, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """For each (context, settings) the text that the model continues with, up to one of `until`."""
        return [self._generate(context, settings) for context, settings in asked]

    def _generate(self, context: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        stop = [until] if isinstance(until, str) else list(until)
        new = int(settings.get("max_gen_toks") or settings.get("max_tokens") or MOST_NEW_TOKENS)
        temperature = float(settings.get("temperature") or 0.0) if settings.get("do_sample") else 0.0
        return self.engine.generate_text(
            context,
            max_new_tokens=new,
            sampling=SamplingSettings(temperature=temperature, top_k=0),
            seed=1,
            stop=[each for each in stop if each],
        )


def harness_model(scorer: GPTScorer) -> Any:
    """An object that `lm_eval.simple_evaluate(model=...)` takes.

    Raises:
        EnvironmentProblem: lm-eval is not installed.
    """
    base = _package("lm_eval.api.model").LM
    requests = HarnessRequests(scorer)

    class HarnessModel(base):  # type: ignore[misc, valid-type]
        """Answers requests of the harness."""

        def loglikelihood(self, asked: Sequence[Any]) -> list[tuple[float, bool]]:
            return requests.loglikelihood([each.args for each in asked])

        def loglikelihood_rolling(self, asked: Sequence[Any]) -> list[float]:
            return requests.loglikelihood_rolling([each.args[0] for each in asked])

        def generate_until(self, asked: Sequence[Any]) -> list[str]:
            return requests.generate_until([each.args for each in asked])

    return HarnessModel()


def run_tasks(
    scorer: GPTScorer, tasks: Sequence[str], *, folder: Path | None = None, limit: int | None = None
) -> dict[str, dict[str, Any]]:
    """Results of the harness: task -> metrics.

    Args:
        scorer: The model.
        tasks: Names that the harness knows, or that files in `folder` define.
        folder: YAML files of tasks; those of the package need a network, or HF_HOME with their data.
        limit: Most examples of each task.

    Raises:
        EnvironmentProblem: lm-eval is not installed.
        ConfigError: There is no such task.
    """
    model = harness_model(scorer)
    manager = _package("lm_eval.tasks").TaskManager(
        include_path=str(folder) if folder else None, include_defaults=folder is None
    )
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        from litgpt_core.core.text import nearest

        raise ConfigError(
            f"the harness has no task {unknown[0]!r}{nearest(unknown[0], manager.all_tasks)}",
            fix="--harness TASK, or --task_dir FOLDER with its YAML file",
        )
    done = _package("lm_eval").simple_evaluate(model=model, tasks=list(tasks), limit=limit, task_manager=manager)
    return {task: _plain(metrics) for task, metrics in done["results"].items()}


def _plain(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        key: float(value) if isinstance(value, (int, float, np.floating)) else str(value)
        for key, value in metrics.items()
    }


def _package(name: str) -> Any:
    if importlib.util.find_spec("lm_eval") is None:
        raise EnvironmentProblem(
            "--harness needs the package lm-eval, which is not installed",
            needed="lm-eval 0.4.13 or newer",
            fix="pip install lm-eval, in an environment of its own if versions conflict",
        )
    return importlib.import_module(name)
