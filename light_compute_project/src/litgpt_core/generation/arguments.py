"""Command-line options shared by all commands that generate text. Does not import torch, so that `--help` is fast."""

from __future__ import annotations

import argparse

from litgpt_core.generation.sampling_settings import SamplingSettings


def add_sampling_options(parser: argparse._ActionsContainer) -> None:
    """Sampling options; `sampling_of` reads them."""
    add = parser.add_argument
    add("--temperature", type=float, default=0.8, help="sampling temperature; 0 is greedy decoding (0.8)")
    add("--top_k", type=int, default=50, help="sample from the k most probable tokens; 0 for all (50)")
    add(
        "--top_p",
        type=float,
        default=1.0,
        help="nucleus sampling: smallest token set with this total probability (1.0)",
    )
    add("--min_p", type=float, default=0.0, help="drop tokens below this fraction of the highest probability (0.0)")
    add("--repetition_penalty", type=float, default=1.0, help="above 1 penalises tokens of the prompt and text (1.0)")
    add("--frequency_penalty", type=float, default=0.0, help="subtracted from a token's logit per occurrence (0.0)")
    add(
        "--presence_penalty", type=float, default=0.0, help="subtracted once from the logit of tokens in the text (0.0)"
    )


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Options of where and how a model runs; `device`, `precision`, `compile`, `kv_cache`, `speculative`."""
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="auto (bf16 where it is fast), 32, bf16, 16")
    add(
        "--compile", default="auto", help="auto (the CPU kernel where supported), true (torch.compile), false (neither)"
    )
    add(
        "--kv_cache",
        choices=("auto", "int8"),
        default="auto",
        help="int8: keys and values in 8 bits, about half the memory of bf16 per token of context (auto)",
    )
    add(
        "--speculative",
        choices=("off", "ngram"),
        default="off",
        help="ngram: verify several tokens at once that followed the same tokens before; the same text, faster where "
        "text repeats itself, such as code (off)",
    )


def sampling_of(arguments: argparse.Namespace) -> SamplingSettings:
    """The parsed options of `add_sampling_options`. Raises ConfigError, which names every invalid value."""
    return SamplingSettings(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        frequency_penalty=arguments.frequency_penalty,
        presence_penalty=arguments.presence_penalty,
    )
