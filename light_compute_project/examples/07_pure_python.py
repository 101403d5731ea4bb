"""A GPT in plain Python learns names, becomes a LitGPT checkpoint, and writes the same names with and without torch.

uv run python light_compute_project/examples/07_pure_python.py [names.txt]

Without a file it learns the names of Python's own modules. It takes a quarter of a minute.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from litgpt_core.generation import SamplingSettings
from litgpt_core.generation.pure_engine import PureEngine
from litgpt_core.pure.checkpoint import save
from litgpt_core.pure.train import bigram_loss, train

DIRECTORY = Path("runs/names")


def main() -> None:
    if len(sys.argv) > 1:
        names = Path(sys.argv[1]).read_text(encoding="utf-8").split()
    else:
        names = sorted(name.strip("_").lower() for name in sys.stdlib_module_names)
    steps = min(1000, len(names))  # of two names each
    began = time.perf_counter()
    trained = train(names, steps=steps)
    seconds, last = time.perf_counter() - began, trained.losses[-steps // 5 :]
    print(f"{steps} batches of two names in {seconds:.1f} s")
    print(f"loss of the last {len(last)} batches: {sum(last) / len(last):.3f}")
    print(f"loss of a table of pairs of letters: {bigram_loss(names, trained.letters):.3f}")

    save(trained, DIRECTORY)
    sampling = SamplingSettings(temperature=0.7)
    pure = PureEngine(DIRECTORY)
    written = ["".join(pure.generate_text_stream("", max_new_tokens=15, sampling=sampling, seed=s)) for s in range(10)]
    print("without torch:", *written)

    from litgpt_core.generation import Engine  # imports torch

    engine = Engine.from_directory(DIRECTORY, device="cpu", dtype="32", compile="false")
    written = [engine.generate_text("", max_new_tokens=15, sampling=sampling, seed=s) for s in range(10)]
    print("with torch:   ", *written)


if __name__ == "__main__":
    main()
