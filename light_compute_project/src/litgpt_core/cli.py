"""The command `lcp`: a table of verbs, each a module of `commands/`, of which only the one that is called is imported.

`python -m litgpt_core` is the same. Every script of `scripts/` calls the verb of the same subject.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from litgpt_core.core.checkout import in_checkout
from litgpt_core.core.command_line import PROGRAM
from litgpt_core.core.console import run_script
from litgpt_core.core.errors import ConfigError, EnvironmentProblem
from litgpt_core.core.text import nearest


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One command."""

    module: str
    """In `litgpt_core.commands`, with a function `main(arguments) -> exit code`."""
    help: str
    checkout_only: bool = False
    """Whether it needs what only a checkout of the repository has."""


VERBS = {
    "train": Verb(module="train", help="train a model from a config; with -m every combination of values"),
    "generate": Verb(module="generate", help="continue a prompt with a trained model"),
    "chat": Verb(module="chat", help="talk to a model in the terminal"),
    "serve": Verb(module="serve", help="a chat page and OpenAI's API over HTTP"),
    "search": Verb(module="study", help="search settings with Optuna; every trial is a training"),
    "slurm": Verb(module="slurm", help="queue a training on a SLURM cluster"),
    "plan": Verb(module="plan", help="memory, time and cost of a training on GPUs, before they are rented"),
    "audit": Verb(module="reproducibility_audit", help="replay or compare runs: is this run reproducible?"),
    "data": Verb(module="prepare_data", help="prepare a corpus beforehand: tokenizer and token shards"),
    "tokenizer": Verb(module="train_tokenizer", help="train a tokenizer on text files"),
    "import": Verb(module="import_huggingface", help="make a checkpoint directory from a Hugging Face folder"),
    "export": Verb(module="export", help="write a checkpoint in another format"),
    "merge_lora": Verb(module="merge_lora", help="merge adapters into their base model"),
    "consolidate": Verb(module="consolidate", help="make one checkpoint directory from a sharded checkpoint"),
    "doctor": Verb(module="doctor", help="check Python, packages, GPU, disk and configs, and say what to fix"),
    "smoke": Verb(module="smoke_test", help="check in seconds that models are right on this machine"),
    "test_training": Verb(module="test_training", help="check that training works: a short run, killed and resumed"),
    "benchmark": Verb(module="benchmark", help="race against LitGPT, nanoGPT and others", checkout_only=True),
    "sync": Verb(module="sync_upstream", help="verify LitGPT's files or bring its tree in", checkout_only=True),
    "config": Verb(module="document_config", help="rewrite the tables of the settings page", checkout_only=True),
}

ALIASES = {
    "sweep": ("train", "-m"),
    "study": ("search",),
    **{verb.module: (name,) for name, verb in VERBS.items() if verb.module not in VERBS},
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
    verb = VERBS.get(name)
    if verb is None:
        raise ConfigError(
            f"there is no command {arguments[0]!r}{nearest(name, [*VERBS, *ALIASES])}", fix=f"{PROGRAM} --help"
        )
    if verb.checkout_only and not in_checkout():
        raise EnvironmentProblem(
            f"{PROGRAM} {name} needs a checkout of the repository; this is an installed package",
            needed="a clone of the repository, with uv",
            fix=f"uv run {PROGRAM} {name} in the clone",
        )
    module = importlib.import_module(f"litgpt_core.commands.{verb.module}")
    return int(module.main([*before, *rest]) or 0)


def overview() -> str:
    """The text of `lcp --help`."""
    shown = {name: verb for name, verb in VERBS.items() if in_checkout() or not verb.checkout_only}
    width = max(map(len, shown))
    return (
        f"usage: {PROGRAM} COMMAND [ARGUMENTS]\n\nLanguage-model research with little compute.\n\ncommands:\n"
        + "".join(f"  {name:<{width}}  {verb.help}\n" for name, verb in shown.items())
        + f"\n{PROGRAM} COMMAND --help says more. {PROGRAM} --version prints the version.\n"
    )


def run(verb: str | None = None) -> None:
    """Entry point of the process: `lcp`, or a script that stands for one verb. Ends the process."""
    run_script(lambda: main([*([verb] if verb else []), *sys.argv[1:]]))
