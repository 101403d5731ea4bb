"""Command-line options that every command which writes text has. No torch: `--help` answers at once."""

from __future__ import annotations

import argparse

from litgpt_core.generation.sampling_settings import SamplingSettings


def add_sampling_options(parser: argparse._ActionsContainer) -> None:
    """Options of how tokens are drawn; `sampling_of` reads them."""
    add = parser.add_argument
    add("--temperature", type=float, default=0.8, help="0 always takes the likeliest token (0.8)")
    add("--top_k", type=int, default=50, help="draw among this many likeliest tokens, 0 for all (50)")
    add("--top_p", type=float, default=1.0, help="draw among the likeliest tokens that sum to this probability (1.0)")
    add("--min_p", type=float, default=0.0, help="draw among tokens this fraction as likely as the likeliest (0.0)")
    add("--repetition_penalty", type=float, default=1.0, help="above 1 makes tokens that stand there unlikelier (1.0)")
    add("--frequency_penalty", type=float, default=0.0, help="taken from a logit for each time it was written (0.0)")
    add("--presence_penalty", type=float, default=0.0, help="taken once from every logit that was written (0.0)")


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Options of where and how a model runs: `device`, `precision`, `compile`."""
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="auto (bf16 where that is fast), 32, bf16, 16")
    add("--compile", default="auto", help="auto (the CPU kernel where it can), true (torch.compile), false (neither)")


def sampling_of(arguments: argparse.Namespace) -> SamplingSettings:
    """What `add_sampling_options` parsed; ConfigError names every wrong value."""
    return SamplingSettings(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        frequency_penalty=arguments.frequency_penalty,
        presence_penalty=arguments.presence_penalty,
    )
