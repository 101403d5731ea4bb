"""What the notebooks share: the model that they are about, trained on the spot, the text, and one table of recipes.

`COURSE_QUICK=1` trains and measures less. `COURSE_MODEL=DIR` takes a checkpoint directory instead of training.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from litgpt_core import checkpoint, tokenizers
from litgpt_core.compression.apply import compress
from litgpt_core.compression.recipe import check_recipe, load_recipe
from litgpt_core.compression.report import CompressionReport, make_report
from litgpt_core.compression.texts import Domain, find_domains

QUICK = bool(os.environ.get("COURSE_QUICK"))
STEPS = 400 if QUICK else 1500
TOKENS = 2048 if QUICK else 8192
"""Of each domain that is measured."""
FOLDER = Path(os.environ.get("COURSE_FOLDER", "runs/course"))
SHAPE = ("model.n_layer=4", "model.n_embd=128", "model.block_size=128")


def model_directory() -> Path:
    """The checkpoint directory: given, or a byte model of 0.8 million parameters, trained once on Python sources."""
    if given := os.environ.get("COURSE_MODEL"):
        return checkpoint.resolve(Path(given))
    run = FOLDER / f"bytes-{STEPS}"
    if not (run / "final").is_dir():
        settings = [*SHAPE, f"trainer.max_steps={STEPS}", f"run.dir={FOLDER}", f"run.name={run.name}"]
        command = [sys.executable, "-m", "litgpt_core", "train", "+experiment=smoke", *settings]
        subprocess.run(command, check=True, capture_output=True)
    return checkpoint.resolve(run)


def texts(directory: Path) -> list[Domain]:
    """Two kinds of text, each with a part to calibrate with and a part to measure on."""
    return find_domains(directory, tokenizers.load(directory))


def compare(
    directory: Path, recipes: dict[str, list[dict[str, object]] | str], *, rounds: int = 0
) -> CompressionReport:
    """Compress by every recipe (a name, or steps) and measure."""
    made = {}
    for name, steps in recipes.items():
        recipe = load_recipe(steps) if isinstance(steps, str) else check_recipe(name, steps)
        target = FOLDER / "made" / directory.parent.name / name
        made[name] = compress(
            directory, recipe, target, domains=texts(directory), calibration_tokens=TOKENS * 2, force=True
        ).directory
    return make_report(directory, made, domains=texts(directory), tokens=TOKENS, rounds=rounds)
