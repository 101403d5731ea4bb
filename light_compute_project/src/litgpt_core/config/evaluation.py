"""What the `evaluation` section of a training config may say: suites of items that are scored while a run trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from litgpt_core.config.trainer import Count

SuiteName = Literal["python_pairs", "english_pairs", "english_grammar", "induction", "cloze", "entities", "arithmetic"]


@dataclass(frozen=True, kw_only=True)
class SuiteCurveSettings:
    """Curves of suites of items during training; docs/evaluation.md says what each suite asks."""

    suites: list[SuiteName] = field(default_factory=list)
    """Suites to score during the run, such as `[python_pairs]`; accuracy and choice bits go to
    `evaluation/curve.jsonl` and the dashboard. Text data only, and not with a sharded model.
    """
    interval: Count = 100
    """Optimizer steps between two scorings; the last step is always scored."""
    of_a_kind: Count = 50
    """Most items of each kind of a suite."""
