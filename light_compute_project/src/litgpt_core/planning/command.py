"""The command line of scripts/plan.py: memory, time and cost of an experiment on GPUs."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from litgpt_core.config.compose import TrainConfig, load
from litgpt_core.core.command_line import CommandParser
from litgpt_core.core.errors import ConfigError
from litgpt_core.planning.gpus import GPU, GPUS, find_gpu
from litgpt_core.planning.plan import NETWORK_GBPS, Option, Terms, options
from litgpt_core.planning.recipe import Precision, Recipe, recipe_of
from litgpt_core.planning.step_time import MFU
from litgpt_core.tokenizers.settings import ByteSettings, CharSettings, PretrainedSettings

_PLANNED: dict[str, Precision] = {"bf16-mixed": "bf16-mixed", "bf16-true": "bf16-true", "32-true": "32-true"}

SEVERAL = 2
"""GPU types up to which each gets a table of its own; more share one."""

CHARACTERS = 128
"""Assumed vocabulary of a character tokenizer, whose real size depends on the corpus."""


def parse(arguments: Sequence[str], *, description: str) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("plan", description=description)
    add, kinds = parser.add_argument, ", ".join(gpu.name for gpu in GPUS)
    add("overrides", nargs="*", metavar="OVERRIDE", help="as for lcp train: +experiment=x trainer.max_steps=1000")
    add("--gpus", default="1,8,64", help="numbers of GPUs, comma-separated (default: 1,8,64)")
    add("--gpu", default="H100", help=f"GPU types, comma-separated, or all: {kinds} (default: H100)")
    add("--per_node", type=int, default=8, help="GPUs per machine (default: 8)")
    add(
        "--network_gbps",
        type=float,
        default=NETWORK_GBPS,
        help="Gb/s per machine to the others (400)",
    )
    add("--mfu", type=float, default=MFU, help=f"assumed model FLOPs utilisation (default: {MFU:g})")
    add("--cost_per_hour", type=float, help="dollars per GPU and hour (default: trainer.cost_per_hour)")
    add(
        "--micro_batch",
        type=int,
        help="sequences per forward pass (default: the config's, or what fits)",
    )
    add("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_intermixed_args(list(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Compose the config, plan, print."""
    config = load(arguments.overrides)
    if config.trainer.stop.epochs is not None:
        from litgpt_core.planning.run_data import prepare_for, with_steps_of_epochs

        config = with_steps_of_epochs(config, prepare_for(config))  # how many steps that are, only the data say
    counts = _counts(arguments.gpus)
    micro_batch = arguments.micro_batch or fixed_micro_batch(config)
    price = arguments.cost_per_hour or config.trainer.budget.cost_per_hour
    plans = []
    for gpu in GPUS if arguments.gpu == "all" else [find_gpu(name) for name in arguments.gpu.split(",")]:
        terms = Terms(
            gpu=gpu,
            per_node=arguments.per_node,
            network_gbps=arguments.network_gbps,
            mfu=arguments.mfu,
            cost_per_hour=price,
        )
        recipe = recipe_for(config, gpu)
        plans.append((terms, options(recipe, counts=counts, terms=terms, micro_batch=micro_batch)))
    tokens = config.trainer.stop.max_steps * recipe.tokens_per_step
    from rich.console import Console

    from litgpt_core.planning import tables

    console = Console()
    if arguments.json:
        rows = [plain(option, terms, tokens) for terms, found in plans for option in found]
        console.print_json(json.dumps(rows))
        return 0
    console.print(tables.heading(recipe, tokens=tokens), highlight=False, soft_wrap=True)
    if len(plans) > SEVERAL:
        console.print(tables.overview(plans, tokens=tokens))
    for terms, found in [pair for pair in plans if pair[1]] if len(plans) <= SEVERAL else []:
        console.print(tables.table(found, terms=terms, tokens=tokens, wide=console.width >= tables.WIDE_ENOUGH))
        for line in tables.verdict(found, terms=terms, tokens=tokens):
            console.print(line, highlight=False, soft_wrap=True)
    for number in counts:
        if recipe.global_batch % (number * (micro_batch or 1)):
            console.print(tables.refusal(recipe, number, micro_batch=micro_batch), highlight=False, soft_wrap=True)
    console.print(tables.ASSUMED.format(mfu=arguments.mfu), highlight=False, soft_wrap=True)
    return 0


def recipe_for(config: TrainConfig, gpu: GPU) -> Recipe:
    """What a config trains on such a GPU; micro-batches are left open.

    Raises:
        ConfigError: Its precision is not for GPUs, or it trains adapters only.
    """
    settings = config.trainer
    if config.lora is not None:
        raise ConfigError("plans cover full training, not adapters", fix="without lora=...")
    if config.distill is not None:
        raise ConfigError("plans do not know what a teacher takes of memory and time", fix="without distill=...")
    if config.optim.kind == "custom":
        raise ConfigError("the memory of a custom optimizer is unknown before it runs", fix="optim=adamw or optim=muon")
    precision = _PLANNED.get(settings.hardware.precision)
    if settings.hardware.precision == "auto":
        precision = "bf16-mixed" if gpu.bf16 else "32-true"
    if precision is None:
        raise ConfigError(
            f"trainer.precision={settings.hardware.precision} is not supported by the planner",
            needed=f"auto, {', '.join(_PLANNED)}",
            fix="trainer.precision=auto",
        )
    model = config.model.build(vocab_size=_vocabulary(config))
    return recipe_of(config, model=model, precision=precision, device="cuda")


def plain(option: Option, terms: Terms, tokens: float) -> dict[str, Any]:
    """One option as plain values: bytes, seconds, dollars."""
    return {
        "gpu": terms.gpu.name,
        "devices": option.layout.devices,
        "strategy": option.layout.strategy,
        "fits": option.fits,
        "micro_batch": option.recipe.micro_batch,
        "overrides": option.overrides,
        "bytes": {**dataclasses.asdict(option.memory), "limit": terms.limit},
        "step_s": dataclasses.asdict(option.time) | {"total": option.time.total},
        "tokens_per_s": option.time.tokens_per_s,
        "run_s": option.seconds(tokens),
        "run_dollars": None if terms.cost_per_hour is None else option.dollars(tokens, terms.cost_per_hour),
    }


def _vocabulary(config: TrainConfig) -> int:
    settings = config.tokenizer
    if isinstance(settings, PretrainedSettings):
        from pathlib import Path

        from litgpt_core import tokenizers

        return tokenizers.load(Path(str(settings.path)).expanduser()).vocab_size
    if isinstance(settings, CharSettings):
        return CHARACTERS
    return 256 if isinstance(settings, ByteSettings) else settings.vocab_size


def fixed_micro_batch(config: TrainConfig) -> int | None:
    """Sequences per forward pass that a config says; None where it leaves them open."""
    size = config.trainer.batch.micro_batch_size
    return size if isinstance(size, int) else None


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise ConfigError(f"--gpus {text}", needed="numbers of GPUs, comma-separated", fix="--gpus 1,8,64")
    return counts
