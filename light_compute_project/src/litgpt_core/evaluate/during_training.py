"""The measure behind `evaluation.suites`: the items are made once, and scored with the model as it is at a step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from litgpt_core.core.errors import ConfigError
from litgpt_core.data.text_data import TextData
from litgpt_core.evaluate.gpt_scorer import GPTScorer
from litgpt_core.evaluate.items import Fitted, fit
from litgpt_core.evaluate.run_data import RunData
from litgpt_core.evaluate.suite_score import score_suite
from litgpt_core.evaluate.suites.catalogue import build
from litgpt_core.evaluate.suites.material import Material

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.training.plan import Plan

logger = logging.getLogger(__name__)


def suite_measure(plan: Plan) -> Callable[[GPT], dict[str, float]]:
    """A function from the model to `SUITE_accuracy` and `SUITE_choice_bits` of each suite that the config names.

    Raises:
        ConfigError: The run trains on conversations: there is no held-out text to make items from.
    """
    if not isinstance(plan.data, TextData):
        raise ConfigError("evaluation.suites in a run on conversations", needed="text data", fix="evaluation.suites=[]")
    settings, data = plan.resolved.config.evaluation, RunData(plan.data)
    fitted: dict[str, Fitted] = {}

    def measure(model: GPT) -> dict[str, float]:
        scorer = GPTScorer(model, data.tokenizer)
        if not fitted:
            material = Material(documents=data.documents)
            for name in settings.suites:
                fitted[name] = fit(build(name, material), scorer, of_a_kind=settings.of_a_kind)
                if not fitted[name].items:
                    logger.warning("evaluation.suites: this data and this model's window give no items for %s", name)
        found: dict[str, float] = {}
        for suite, items in fitted.items():
            if items.items:
                score = score_suite(suite, items, scorer)
                for measured in ("accuracy", "choice_bits"):
                    found[f"{suite}_{measured}"] = score.estimate(measured).value
        return found

    return measure
