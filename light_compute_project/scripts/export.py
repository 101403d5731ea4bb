"""Write a checkpoint in somebody else's format.

python light_compute_project/scripts/export.py runs/baseline --format huggingface --out my_model

huggingface    a folder that transformers' AutoModelForCausalLM and AutoTokenizer load: equal logits, equal ids
"""

from __future__ import annotations

import argparse
from pathlib import Path

from litgpt_core.core.console import run_script

FORMATS = ("huggingface",)


def main() -> int:
    """Parse, export, say what was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint directory, its lit_model.pth, or a run folder")
    parser.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--force", action="store_true", help="replace what is at --out")
    parser.add_argument("--max_shard_gb", type=float, default=5.0, help="largest weight file in GB (5)")
    arguments = parser.parse_args()
    from litgpt_core.export.huggingface.exporting import export_directory

    made = export_directory(
        arguments.checkpoint, arguments.out, force=arguments.force, max_shard_bytes=int(arguments.max_shard_gb * 1e9)
    )
    size = f"{made.weight_bytes:,} bytes in {len(made.files)} file{'s' if len(made.files) > 1 else ''}"
    print(f"{made.path}: {made.architecture}, {size}")
    if made.added_zeros:
        print(f"{made.added_zeros} biases that the model lacks are written as zeros")
    return 0


if __name__ == "__main__":
    run_script(main)
