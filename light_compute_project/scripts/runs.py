"""Read run folders: list, table, compare, plot, best. Pages: light_compute_project/docs/runs.md"""

from __future__ import annotations

from litgpt_core.core.console import run_script
from litgpt_core.runs.command import main

if __name__ == "__main__":
    run_script(main)
