"""`python -m litgpt_core VERB ...`: the same as `lcp VERB ...`."""

from __future__ import annotations

from litgpt_core.cli import run

if __name__ == "__main__":
    run()
