"""Write a checkpoint in another program's format.

lcp export runs/baseline --format huggingface --out my_model

huggingface    a folder that transformers' AutoModelForCausalLM and AutoTokenizer load: equal logits, equal ids
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import MODEL_HELP, CommandParser

FORMATS = ("huggingface",)


def main(arguments: Sequence[str]) -> int:
    """Parse, export, say what was made."""
    parser = CommandParser("export", description=__doc__)
    parser.add_argument("model", nargs="?", help=MODEL_HELP)
    parser.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--force", action="store_true", help="replace what is at --out, if this project wrote all of it"
    )
    parser.add_argument("--max_shard_gb", type=float, default=5.0, help="largest weight file in GB (5)")
    given = parser.parse_args(arguments)
    from litgpt_core.export.gguf.cached import with_gguf_imported
    from litgpt_core.export.huggingface.exporting import export_directory

    made = export_directory(
        with_gguf_imported(given.model), given.out, force=given.force, max_shard_bytes=int(given.max_shard_gb * 1e9)
    )
    size = f"{made.weight_bytes:,} bytes in {len(made.files)} file{'s' if len(made.files) > 1 else ''}"
    print(f"{made.path}: {made.architecture}, {size}")
    if made.added_zeros:
        print(f"{made.added_zeros} biases that the model lacks are written as zeros")
    return 0
