"""Make a checkpoint directory from a Hugging Face folder or a GGUF file: to generate, train, or use LitGPT on.

    lcp import HF_FOLDER CHECKPOINT_DIR
    lcp import FILE.gguf CHECKPOINT_DIR
    lcp import ORG/NAME CHECKPOINT_DIR          # from the hub; also ORG/NAME@REVISION and ORG/NAME/FILE.gguf

The folder holds config.json, the weights (safetensors or pytorch_model.bin, whole or in shards) and a tokenizer. What
is not found here is downloaded from the hub (HF_ENDPOINT) into its cache; no code of the folder is run. Known: GPT-2,
Llama, Mistral, Qwen 2/2.5/3, GPT-NeoX (Pythia), Phi-1/2/3, Gemma 1/2/3 (text); as GGUF also
Mixtral, Qwen 3 with experts and OLMo 2, in every type from F32 to Q2_K: quantized weights become the numbers that they
stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import CommandParser
from litgpt_core.core.errors import ConfigError
from litgpt_core.core.replaceable import refuse_taken
from litgpt_core.export.huggingface.hub import HubAddress, download


def main(arguments: Sequence[str]) -> int:
    """Parse, import, say what was made."""
    parser = CommandParser("import", description=__doc__)
    parser.add_argument("source", metavar="SOURCE", help="folder with config.json, GGUF file, or ORG/NAME of the hub")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_DIR", help="directory to make")
    parser.add_argument(
        "--force", action="store_true", help="replace what is at CHECKPOINT_DIR, if this project wrote all of it"
    )
    parser.add_argument("--dtype", help="GGUF: 32, bf16, 16 or auto, which holds every weight exactly (auto)")
    parser.add_argument("--words", metavar="NAME", help="GGUF: how the tokenizer cuts words, if the file does not say")
    given = parser.parse_args(arguments)
    source = Path(given.source)
    if (address := HubAddress.of(given.source)) is not None:
        refuse_taken(given.checkpoint, source=source, force=given.force)
        source = download(address)
    if source.is_file():
        from litgpt_core.export.gguf.importing import import_gguf

        made = import_gguf(source, given.checkpoint, force=given.force, dtype=given.dtype or "auto", words=given.words)
    else:
        from litgpt_core.export.huggingface.importing import import_folder

        if given.dtype or given.words:
            raise ConfigError("--dtype and --words are for GGUF files.", fix="leave them out for a folder")
        made = import_folder(source, given.checkpoint, force=given.force)
    config = made.config
    print(f"{made.path}: {made.architecture}, {made.parameters:,} parameters")
    print(
        f"{config.n_layer} layers, {config.n_embd} wide, context {config.block_size:,}, "
        f"{config.vocab_size:,} tokens in {config.padded_vocab_size:,} rows"
    )
    return 0
