"""Runs one function of `children/`, whatever the working directory is.

python light_compute_project/benchmarks/run_child.py MODULE:FUNCTION JOB.json RESULT.json
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main(target: str, job: str, result: str) -> None:
    """Call the function with the job's content and write what it returns."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    module, _, function = target.partition(":")
    call = getattr(importlib.import_module(f"benchmarks.children.{module}"), function)
    found = call(json.loads(Path(job).read_text(encoding="utf-8")))
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
