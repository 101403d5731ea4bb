"""Write a checkpoint in another program's format, and check that it computes the same.

lcp export runs/baseline --format huggingface --out my_model
lcp export runs/baseline --format gguf --type q8_0 --out baseline.gguf
lcp export runs/baseline --format onnx --type int8 --out baseline_onnx
lcp export runs/baseline --format web --out baseline.html
lcp export runs/baseline --format python --out baseline.py && python baseline.py "def " --seed 1

huggingface    a folder that transformers' AutoModelForCausalLM and AutoTokenizer load: equal logits, equal ids
compressed-tensors    the same with the codes of a compressed model, for transformers with the package of that name
gguf           one file for llama.cpp, Ollama, LM Studio; --type f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0
onnx           a folder with KV cache for onnxruntime-genai, optimum, transformers.js; --type f32 int8 int4
web            one .html file that works from a double click, without a network: model, tokenizer and engine inside
python         one .py file that generates with nothing but Python, the engine's text for the same seed
safetensors npz json    weights by LitGPT's names in one file, config and tokenizer inside
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import MODEL_HELP, CommandParser
from litgpt_core.core.errors import ConfigError
from litgpt_core.export.formats import FORMATS, TYPED, export


def main(arguments: Sequence[str]) -> int:
    """Parse, export, say what was made."""
    parser = CommandParser("export", description=__doc__)
    parser.add_argument("model", nargs="?", help=MODEL_HELP)
    parser.add_argument("--format", choices=FORMATS, required=True, help="what to write")
    parser.add_argument("--out", type=Path, required=True, help="file or folder to make")
    parser.add_argument(
        "--type", help="how weights are stored (gguf: f16, or a compressed model's own codes; onnx: f32)"
    )
    parser.add_argument("--force", action="store_true", help="replace what is at --out, if this project wrote it")
    parser.add_argument("--no_check", action="store_true", help="do not read the file back and compare")
    parser.add_argument("--max_shard_gb", type=float, help="huggingface: largest weight file in GB (5)")
    given = parser.parse_args(arguments)
    for option, formats in (("type", TYPED), ("max_shard_gb", ("huggingface",))):
        if getattr(given, option) is not None and given.format not in formats:
            raise ConfigError(f"--{option} is for --format {' and '.join(formats)}.", fix="leave it out")
    from litgpt_core.export.gguf.cached import with_gguf_imported

    given.checkpoint = with_gguf_imported(given.model)
    print(*export(given), sep="\n")
    return 0
