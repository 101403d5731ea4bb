"""Continue a prompt with a trained model: ours or one that LitGPT downloaded.

python light_compute_project/scripts/generate.py runs/baseline --prompt "def " --max_new_tokens 100 --temperature 0.8
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse, generate, print; 0 when done, 2 for a user's mistake, 130 after Ctrl-C."""
    arguments = _parser().parse_args()
    from litgpt_core.console import configure_logging
    from litgpt_core.errors import LightComputeError  # torch is imported below, after --help has been answered

    configure_logging()
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="replace")  # a console that lacks a character shows ? instead of failing
    try:
        _generate(arguments)
    except LightComputeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def _generate(arguments: argparse.Namespace) -> None:
    from litgpt_core.generation import Engine, SamplingSettings

    sampling = SamplingSettings(
        temperature=arguments.temperature, top_k=arguments.top_k, top_p=arguments.top_p, min_p=arguments.min_p
    )
    words = {"device": arguments.device, "dtype": arguments.precision, "compile": arguments.compile}
    engine = Engine.from_directory(arguments.checkpoint, **words)
    for sample in range(arguments.num_samples):
        pieces = engine.generate_text_stream(
            arguments.prompt,
            max_new_tokens=arguments.max_new_tokens,
            sampling=sampling,
            seed=arguments.seed + sample,
            stop_ids=None if arguments.stop_at_eos else (),
        )
        print(arguments.prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print(flush=True)
        print(engine.stats.summary(), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint directory, its lit_model.pth, or a run folder such as runs/baseline")
    add("--prompt", default="", help="text to continue; empty starts a document")
    add("--max_new_tokens", type=int, default=100, help="at most this many tokens (100)")
    add("--temperature", type=float, default=0.8, help="0 always takes the likeliest token (0.8)")
    add("--top_k", type=int, default=50, help="draw among this many likeliest tokens, 0 for all (50)")
    add("--top_p", type=float, default=1.0, help="draw among the likeliest tokens that sum to this probability (1.0)")
    add("--min_p", type=float, default=0.0, help="draw among tokens this fraction as likely as the likeliest (0.0)")
    add("--seed", type=int, default=1, help="equal seeds give equal texts; sample i uses seed + i (1)")
    add("--num_samples", type=int, default=1, help="texts to write (1)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="auto (bf16 where that is fast), 32, bf16, 16")
    add("--compile", default="auto", help="auto (the CPU kernel where it can), true (torch.compile), false (neither)")
    add("--stop_at_eos", action=argparse.BooleanOptionalAction, default=True, help="end at the end-of-document token")
    return parser


if __name__ == "__main__":
    sys.exit(main())
