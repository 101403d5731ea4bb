"""Make a checkpoint directory from a local Hugging Face folder: for generation, training, or LitGPT's commands.

    lcp import HF_FOLDER CHECKPOINT_DIR

The folder holds config.json, the weights (safetensors or pytorch_model.bin, whole or in shards) and a tokenizer, as
`hf download ORG/NAME --local-dir HF_FOLDER` makes it. Nothing is downloaded, and no code of the folder
is run. Known: GPT-2, Llama, Mistral, Qwen 2/2.5/3, GPT-NeoX (Pythia), Phi-1/2/3, Gemma 1/2/3 (text).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, import, say what was made."""
    parser = CommandParser("import", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="HF_FOLDER", help="folder with config.json")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_DIR", help="directory to make")
    parser.add_argument(
        "--force", action="store_true", help="replace what is at CHECKPOINT_DIR, if this project wrote all of it"
    )
    given = parser.parse_args(arguments)
    from litgpt_core.export.huggingface.importing import import_folder

    made = import_folder(given.folder, given.checkpoint, force=given.force)
    config = made.config
    print(f"{made.path}: {made.architecture}, {made.parameters:,} parameters")
    print(
        f"{config.n_layer} layers, {config.n_embd} wide, context {config.block_size:,}, "
        f"{config.vocab_size:,} tokens in {config.padded_vocab_size:,} rows"
    )
    return 0
