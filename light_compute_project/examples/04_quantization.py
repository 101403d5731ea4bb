"""Make a trained model smaller with integers, measure what it lost, and let it write.

python light_compute_project/examples/04_quantization.py                # runs/example, from 01_train_tiny.py
python light_compute_project/examples/04_quantization.py runs/baseline
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=Path("runs/example"))
    parser.add_argument("--prompt", default="Human: ")
    parser.add_argument("--tokens", type=int, default=1024, help="of each kind of text that is measured")
    arguments = parser.parse_args()

    from litgpt_core import checkpoint, tokenizers
    from litgpt_core.compression.apply import compress
    from litgpt_core.compression.recipe import load_recipe
    from litgpt_core.compression.report import make_report
    from litgpt_core.compression.rounding import round_matrix
    from litgpt_core.compression.texts import find_domains
    from litgpt_core.generation import Engine, SamplingSettings

    source = checkpoint.resolve(arguments.model)

    # 1. One matrix: every 32 weights share a scale, and each weight becomes a code of 8 or 4 bits.
    weight = checkpoint.load_weights(source)["transformer.h.0.attn.qkv.weight"].float()
    for bits in (8, 4, 3, 2):
        error = (round_matrix(weight, bits=bits).dense() - weight).norm() / weight.norm()
        print(f"{bits} bits: relative error of a matrix {error:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        # 2. The whole model, by three recipes. Calibrated ones read text: the model's own corpus where it is known.
        domains = find_domains(source, tokenizers.load(source))
        made = {}
        for name in ("int8", "int4", "gptq_int4"):
            recipe = load_recipe(name)
            made[name] = compress(
                source, recipe, Path(folder) / name, domains=domains, calibration_tokens=2048
            ).directory

        # 3. What was saved and lost. Without rounds, speed and memory are not measured.
        report = make_report(source, made, domains=domains, tokens=arguments.tokens, rounds=0)
        print(report.table())

        # 4. The engine reads a compressed directory as any other.
        greedy = SamplingSettings(temperature=0)
        for name, directory in {"source": source, **made}.items():
            engine = Engine.from_directory(directory)
            print(f"{name}: {engine.generate_text(arguments.prompt, max_new_tokens=30, sampling=greedy)!r}")


if __name__ == "__main__":
    from litgpt_core.core.console import run_script

    run_script(main)  # log lines on stderr, errors as plain messages
