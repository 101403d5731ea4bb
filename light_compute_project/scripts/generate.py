"""Continue a prompt with a trained model: ours or one that LitGPT downloaded.

python light_compute_project/scripts/generate.py runs/baseline --prompt "def " --max_new_tokens 100 --temperature 0.8
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from litgpt_core.core.console import run_script
from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.arguments import add_machine_options, add_sampling_options, machine_of, sampling_of


def main() -> int:
    """Parse, generate, print as it goes; then tokens per second."""
    a = _parser().parse_args()
    sampling = sampling_of(a)
    from litgpt_core.generation.kernel_build import begin_build

    begin_build(device=a.device, compile=a.compile)

    from litgpt_core.generation import Engine  # torch is imported now, after --help has been answered

    engine = Engine.from_directory(a.checkpoint, **machine_of(a))
    stop_ids = None if a.stop_at_eos else ()
    limits = {"max_new_tokens": a.max_new_tokens, "stop_ids": stop_ids}
    if a.num_beams > 1 or a.contrastive_alpha is not None:
        if a.stop:
            raise ConfigError("--stop was given with a search.", needed="--stop with drawn texts only")
        from litgpt_core.generation.searched import searched_texts

        search = {"beams": a.num_beams, "length_penalty": a.length_penalty, "results": a.num_samples}
        search |= {"contrastive_alpha": a.contrastive_alpha, "top_k": a.top_k}
        for text, note in searched_texts(engine, a.prompt, **limits, **search):
            print(f"{a.prompt}{text}", flush=True)
            print(note, file=sys.stderr)
        return 0
    for sample in range(a.num_samples):
        seed = a.seed + sample
        pieces = engine.generate_text_stream(a.prompt, sampling=sampling, seed=seed, stop=a.stop, **limits)
        before = a.prompt  # with the first piece, because what decodes is chosen, and said, until then
        for piece in pieces:
            print(before + piece, end="", flush=True)
            before = ""
        print(before, flush=True)
        print(engine.stats.summary(), file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint directory, its lit_model.pth, or a run folder such as runs/baseline")
    add("--prompt", default="", help="text to continue; empty starts a document")
    add("--max_new_tokens", type=int, default=100, help="at most this many tokens (100)")
    add_sampling_options(parser)
    add("--seed", type=int, default=1, help="equal seeds give equal texts; sample i uses seed + i (1)")
    add("--num_samples", type=int, default=1, help="texts to write (1)")
    add("--stop", action="append", default=[], help="a text that ends the text; may be repeated")
    add("--stop_at_eos", action=argparse.BooleanOptionalAction, default=True, help="end at the end-of-document token")
    add("--num_beams", type=int, default=1, help="above 1: beam search, the likeliest text instead of a drawn one (1)")
    add("--length_penalty", type=float, default=1.0, help="of beam search: above 0 favours longer texts (1.0)")
    add("--contrastive_alpha", type=float, help="contrastive search: weight of being unlike what stands there, 0 to 1")
    add_machine_options(parser)
    return parser


if __name__ == "__main__":
    run_script(main)
