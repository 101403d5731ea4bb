"""What a model has learnt, measured without network: bits per byte of any text, suites of items, paired comparisons.

    from litgpt_core.evaluate import GPTScorer, score_text

    scorer = GPTScorer.from_directory(Path("runs/baseline"))
    print(score_text(scorer, "def f(x):\\n    return x\\n").bits_per_byte)

Names are imported lazily; `command.py` is `lcp evaluate`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litgpt_core.evaluate.gpt_scorer import GPTScorer as GPTScorer
    from litgpt_core.evaluate.ngram_scorer import NgramScorer as NgramScorer
    from litgpt_core.evaluate.ngram_scorer import UniformScorer as UniformScorer
    from litgpt_core.evaluate.scorer import Continuations as Continuations
    from litgpt_core.evaluate.scorer import Scorer as Scorer
    from litgpt_core.evaluate.scorer import Span as Span
    from litgpt_core.evaluate.text_score import TextScore as TextScore
    from litgpt_core.evaluate.text_score import score_text as score_text
    from litgpt_core.evaluate.text_score import score_texts as score_texts

_MODULES = {
    "GPTScorer": "gpt_scorer",
    **dict.fromkeys(("NgramScorer", "UniformScorer"), "ngram_scorer"),
    **dict.fromkeys(("Continuations", "Scorer", "Span"), "scorer"),
    **dict.fromkeys(("TextScore", "score_text", "score_texts"), "text_score"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
