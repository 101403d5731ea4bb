"""Merge LoRA adapters into their base model: the result is a plain LitGPT directory, which every command reads.

lcp merge_lora runs/finetune_chat --out my_model

Checkpoints and final/ of a training with lora=default are merged already; this is for adapters that travel alone (the
run's lora/, or what `litgpt finetune lora` left), beside their base model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, merge, say where."""
    parser = CommandParser("merge_lora", description=__doc__)
    parser.add_argument("adapters", type=Path, help="run name, run folder, or directory with lit_model.pth.lora")
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    parser.add_argument(
        "--base", help="base model, by name or path; without it the one that hyperparameters.yaml names"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace what is at --out, if this project wrote all of it"
    )
    given = parser.parse_args(arguments)
    from litgpt_core.checkpoint.merge_lora import merge_directory

    print(merge_directory(given.adapters, given.out, base=given.base, force=given.force))
    return 0
