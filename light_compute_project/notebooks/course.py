"""What the notebooks share: the model that they are about, trained on the spot, the text, and one table of recipes.

`COURSE_QUICK=1` trains and measures less. `COURSE_MODEL=DIR` takes a checkpoint directory instead of training. Stage 2
is about a real model of the Llama architecture: SmolLM2-135M-Instruct, which `lcp get smollm2` brings, or any Llama 3
in `COURSE_MODEL`; the quick mode trains a small one of that architecture instead.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from litgpt_core import checkpoint, tokenizers
from litgpt_core.compression.apply import compress
from litgpt_core.compression.kv_cache import bytes_per_token
from litgpt_core.compression.recipe import check_recipe, load_recipe
from litgpt_core.compression.report import CompressionReport, make_report
from litgpt_core.compression.texts import Domain, find_domains
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.cost import count_parameters

QUICK = bool(os.environ.get("COURSE_QUICK"))
STEPS = 400 if QUICK else 1500
TOKENS = 2048 if QUICK else 8192
"""Of each domain that is measured."""
REAL_TOKENS = 1024 if QUICK else 4096
"""The same in stage 2, whose model is 150 times as large."""
FOLDER = Path(os.environ.get("COURSE_FOLDER", "runs/course"))
LLAMA = ("model=llama_gqa", "model.n_layer=4", "model.n_head=4", "model.n_embd=128", "model.block_size=128")
LLAMA = (*LLAMA, "model.intermediate_size=256", "model.tie_embeddings=true", "trainer.sample_tokens=0")
SHAPE = ("model.n_layer=4", "model.n_embd=128", "model.block_size=128")


def model_directory() -> Path:
    """The checkpoint directory: given, or a byte model of 0.8 million parameters, trained once on Python sources."""
    if given := os.environ.get("COURSE_MODEL"):
        return checkpoint.resolve(Path(given))
    run = FOLDER / f"bytes-{STEPS}"
    if not (run / "final").is_dir():
        _train("+experiment=smoke", *SHAPE, f"trainer.max_steps={STEPS}", f"run.dir={FOLDER}", f"run.name={run.name}")
    return checkpoint.resolve(run)


def real_model() -> Path:
    """The model of stage 2: given, or SmolLM2 off its grid, or in quick mode a small Llama trained on the spot."""
    if given := os.environ.get("COURSE_MODEL"):
        return checkpoint.resolve(Path(given))
    if QUICK:
        run = FOLDER / "llama"
        if not (run / "final").is_dir():
            _train("+experiment=smoke", *LLAMA, "trainer.max_steps=120", f"run.dir={FOLDER}", "run.name=llama")
        return checkpoint.resolve(run)
    target = FOLDER / "smollm2-permuted"
    if not target.is_dir():
        compress(downloaded_model(), check_recipe("permuted", [{"method": "permute"}]), target)
    return target


def downloaded_model() -> Path:
    """SmolLM2-135M-Instruct as it comes: its weights lie on a 4-bit grid."""
    target = FOLDER / "smollm2"
    if not target.is_dir():
        lcp("get", "smollm2", "--out", str(target))
    return target


def _train(*overrides: str) -> None:
    lcp("train", *overrides)


def lcp(*arguments: str) -> str:
    """What a command prints; CalledProcessError if it fails."""
    command = [sys.executable, "-m", "litgpt_core", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def what_llamas_would_take(parameters: int, seconds: float) -> None:
    """Print bytes of Llama 3.2 1B and 3.1 8B in several formats, and the time of the same work, in proportion.

    Args:
        parameters: Of the model that was worked on here.
        seconds: That its compression took.
    """
    for name, tied in (("Llama-3.2-1B", True), ("Llama-3.1-8B", False)):
        config = GPTConfig.from_name(name, tie_embeddings=tied)
        n, cache = count_parameters(config), bytes_per_token(config, bits=16)
        outer = config.padded_vocab_size * config.n_embd * (1 if config.tie_embeddings else 2)
        int4 = (n - outer) * 4.5 / 8 + outer * 8.5 / 8
        print(
            f"{name}: {2 * n / 1e9:.1f} GB in bf16, {n * 8.5 / 8 / 1e9:.1f} int8, {int4 / 1e9:.1f} int4 and int8 head; "
            f"{cache * 8192 / 1e9:.2f} GB of KV cache at 8,192 tokens"
            + (f"; this work about {seconds * n / parameters / 60:.0f} min" if seconds else "")
        )


@functools.cache
def texts(directory: Path) -> list[Domain]:
    """Two kinds of text, each with a part to calibrate with and a part to measure on."""
    return find_domains(directory, tokenizers.load(directory))


def compare(
    directory: Path,
    recipes: dict[str, list[dict[str, object]] | str],
    *,
    rounds: int = 0,
    tokens: int = TOKENS,
    kv_cache: bool = False,
) -> CompressionReport:
    """Compress by every recipe (a name, or steps) and measure on `tokens` of each domain."""
    made = {}
    for name, steps in recipes.items():
        recipe = load_recipe(steps) if isinstance(steps, str) else check_recipe(name, steps)
        target = FOLDER / "made" / f"{directory.parent.name}-{directory.name}" / name
        made[name] = compress(
            directory, recipe, target, domains=texts(directory), calibration_tokens=tokens * 2, force=True
        ).directory
    return make_report(directory, made, domains=texts(directory), tokens=tokens, rounds=rounds, kv_cache=kv_cache)
