"""Runs one module of this folder as a program, whatever the working directory is.

python light_compute_project/benchmarks/run_child.py MODULE ARGUMENTS ...
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module(f"benchmarks.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
