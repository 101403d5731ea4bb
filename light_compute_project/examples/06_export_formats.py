"""A small model in every format that needs no further package, compared with the checkpoint; and a GGUF file back in.

uv run python light_compute_project/examples/06_export_formats.py [CHECKPOINT]

Without a checkpoint it makes one with random weights and a byte tokenizer. What it writes is in runs/exported.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from litgpt_core import GPT, GPTConfig, tokenizers
from litgpt_core.checkpoint import save_directory
from litgpt_core.export.gguf.exporting import export_gguf
from litgpt_core.export.gguf.importing import import_gguf
from litgpt_core.export.single.arrays import export_arrays
from litgpt_core.export.single.python_file import export_python
from litgpt_core.export.web.exporting import export_web

OUT = Path("runs/exported")


def random_checkpoint() -> Path:
    model = GPT(
        GPTConfig(
            name="tiny", block_size=64, n_layer=2, n_head=4, n_embd=64, intermediate_size=128, vocab_size=256,
            norm_class_name="RMSNorm", bias=False, parallel_residual=False, rotary_percentage=1.0,
            mlp_class_name="LLaMAMLP",
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tokenizers.train(tokenizers.ByteSettings(), []).save(Path(folder))
        return save_directory(
            OUT / "checkpoint",
            weights=model.state_dict(),
            config=model.config,
            tokenizer_dir=Path(folder),
            hyperparameters={},
        )


def main() -> None:
    checkpoint = Path(sys.argv[1]) if len(sys.argv) > 1 else random_checkpoint()
    for type in ("f32", "q8_0", "q4_0"):
        made = export_gguf(checkpoint, OUT / f"model-{type}.gguf", type=type, force=True)
        print(f"{made.path}: {made.n_bytes:,} bytes", *(made.parity.lines() if made.parity else []), sep="\n  ")
    for format in ("safetensors", "npz", "json"):
        file = export_arrays(checkpoint, OUT / f"model.{format}", format=format, force=True)
        print(f"{file.path}: {file.n_bytes:,} bytes", *(file.parity.lines() if file.parity else []), sep="\n  ")
    program = export_python(checkpoint, OUT / "model.py", force=True)
    print(f"{program.path}: {program.n_bytes:,} bytes; python {program.path} 'def ' --seed 1")
    page = export_web(checkpoint, OUT / "model.html", force=True)
    print(
        f"{page.path}: {page.n_bytes:,} bytes; open it in a browser",
        *(page.parity.lines() if page.parity else []),
        sep="\n  ",
    )
    back = import_gguf(OUT / "model-f32.gguf", OUT / "from_gguf", force=True)
    print(f"{back.path}: {back.architecture}, {back.parameters:,} parameters")


if __name__ == "__main__":
    main()
