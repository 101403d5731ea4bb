"""Which instructions the CPU kernel uses on this machine, and how fast it decodes: for `doctor`, in its own process.

    python -m litgpt_core.doctor.kernel_rate

prints JSON: `instructions`, and `one` and `many`, tokens per second of a model of random weights with MANY sequences at
once and with one; or `obstacle`, why there is no kernel.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from litgpt_core.core.errors import EnvironmentProblem
from litgpt_core.core.text import count
from litgpt_core.doctor.machine import Finding, finding

if TYPE_CHECKING:
    from litgpt_core.generation.kernel import KernelDecoder

SHAPE: dict[str, Any] = {"n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "vocab_size": 256, "bias": False}
"""The blocks of `model=reference`: 10.6 million parameters."""
MANY = 32
_STEPS, _ROUNDS = 8, 3
_LIMIT_S = 180.0
WITHOUT = "generation, chat and the server then run on plain PyTorch, several times slower on a CPU"


def check_kernel() -> Iterator[Finding]:
    """The kernel's instructions and rate; where there is none, why, and what that costs."""
    command = [sys.executable, "-P", "-m", "litgpt_core.doctor.kernel_rate"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        facts = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        yield finding("CPU kernel", f"could not be tried; {WITHOUT}", level="warn", fix="lcp generate, which says why")
        return
    if obstacle := facts.get("obstacle"):
        yield finding("CPU kernel", f"{obstacle.rstrip('.')}; {WITHOUT}", level="warn", fix=facts["fix"])
        return
    rate = f"{_rounded(facts['one']):,} tokens/s for one text, {_rounded(facts['many']):,} for {MANY} at once"
    found = f"{facts['instructions']}, {count(facts['threads'], 'thread')}: about {rate} (10.6M parameters, bfloat16)"
    yield finding("CPU kernel", found)


def _rounded(rate: float) -> int:
    """Two significant digits: a busy machine changes more than that."""
    return int(float(f"{rate:.2g}"))


def measure() -> dict[str, object]:
    """What the module prints."""
    import ctypes

    import torch

    from litgpt_core.generation.kernel import KernelDecoder
    from litgpt_core.generation.kernel_build import load_kernel
    from litgpt_core.model.config import GPTConfig
    from litgpt_core.model.gpt import GPT

    try:
        instructions = load_kernel().lc_instructions
    except EnvironmentProblem as problem:
        return {"obstacle": problem.given, "fix": problem.fix}
    instructions.restype = ctypes.c_char_p
    decoder = KernelDecoder(GPT(GPTConfig(**SHAPE)).to(torch.bfloat16).eval(), packed_weights=True)
    rates = {name: _rate(decoder, n_sequences=n) for name, n in (("one", 1), ("many", MANY))}
    return {"instructions": instructions().decode(), "threads": torch.get_num_threads(), **rates}


def _rate(decoder: KernelDecoder, *, n_sequences: int) -> float:
    """Tokens per second in the best of some rounds, in the middle of the context."""
    from litgpt_core.generation.decoder import Feed
    from litgpt_core.generation.sampling_settings import GREEDY

    decoder.start(n_sequences=n_sequences, length=SHAPE["block_size"])
    feeds = [Feed(sequence, 0, [1] * 64) for sequence in range(n_sequences)]
    decoder.feed(feeds)
    taken = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        decoder.decode_steps(
            [Feed(sequence, 64, [1]) for sequence in range(n_sequences)],
            [GREEDY] * n_sequences,
            uniforms=[[0.5] * _STEPS] * n_sequences,
            vocab_size=SHAPE["vocab_size"],
        )
        taken.append(time.perf_counter() - began)
    decoder.finish()
    return n_sequences * _STEPS / min(taken)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure()) + "\n")
