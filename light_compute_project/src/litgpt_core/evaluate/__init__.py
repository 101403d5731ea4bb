"""What a model has learnt, measured without network: bits per byte of any text, suites of items, paired comparisons.

    from litgpt_core.evaluate import GPTScorer, score_text

    scorer = GPTScorer.from_directory(Path("runs/baseline"))
    print(score_text(scorer, "def f(x):\\n    return x\\n").bits_per_byte)

Names are imported lazily; `command.py` is `lcp evaluate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.core.lazy import lazy_names

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

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "gpt_scorer": "GPTScorer",
        "ngram_scorer": "NgramScorer UniformScorer",
        "scorer": "Continuations Scorer Span",
        "text_score": "TextScore score_text score_texts",
    },
)
