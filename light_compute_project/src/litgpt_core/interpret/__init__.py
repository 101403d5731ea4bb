"""What has a model learnt: activations recorded and changed, and the standard analyses on top of them.

    from litgpt_core import interpret

    with interpret.trace(model, ["*.pattern"]) as seen:
        model(ids)
    report = interpret.analyze("runs/baseline", prompt="def main(")

`names` lists every activation; `tracing` records and edits; each other module is one analysis, a function of a
`Subject` that returns plain values; `findings` turns these into sentences, `pictures` and `page` into files. Names
are imported on first use: neither torch nor matplotlib is loaded before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litgpt_core.core.lazy import lazy_names

if TYPE_CHECKING:
    from litgpt_core.interpret.analysis import analyze as analyze
    from litgpt_core.interpret.loading import load_subject as load_subject
    from litgpt_core.interpret.tracing import trace as trace

__all__, __getattr__, __dir__ = lazy_names(
    __name__, {"analysis": "analyze", "loading": "load_subject", "tracing": "trace"}
)
