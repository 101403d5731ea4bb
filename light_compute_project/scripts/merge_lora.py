"""Merge adapters into their base model: a plain LitGPT directory, which every command reads.

python light_compute_project/scripts/merge_lora.py runs/finetune_chat --out my_model

Checkpoints and final/ of a training with lora=default are merged already; this is for adapters that travel alone (the
run's lora/, or what `litgpt finetune lora` left), beside their base model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from litgpt_core.core.console import run_script


def main() -> int:
    """Parse, merge, say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", type=Path, help="directory with lit_model.pth.lora, or a run folder")
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    parser.add_argument("--base", type=Path, help="base model; without it the one that hyperparameters.yaml names")
    parser.add_argument("--force", action="store_true", help="replace what is at --out")
    arguments = parser.parse_args()
    from litgpt_core.checkpoint.merge_lora import merge_directory

    print(merge_directory(arguments.adapters, arguments.out, base=arguments.base, force=arguments.force))
    return 0


if __name__ == "__main__":
    run_script(main)
