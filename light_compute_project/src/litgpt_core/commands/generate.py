"""Continue a prompt with a trained model: ours or one that LitGPT downloaded.

lcp generate runs/baseline --prompt "def " --max_new_tokens 100 --temperature 0.8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from litgpt_core.core.command_line import MODEL_HELP, CommandParser, YesNo
from litgpt_core.core.console import for_stdout
from litgpt_core.core.errors import ConfigError
from litgpt_core.generation.arguments import add_machine_options, add_sampling_options, sampling_of
from litgpt_core.generation.engines import load_engine


def main(arguments: Sequence[str]) -> int:
    """Parse, generate, print text as it is generated; then tokens per second."""
    a = _parser().parse_args(arguments)
    a.prompt = a.prompt or a.text
    sampling = sampling_of(a)
    searches = a.num_beams > 1 or a.contrastive_alpha is not None
    if searches and a.stop:
        raise ConfigError(
            "--stop was given with a search", needed="--stop with sampling only", fix="leave out --stop or the search"
        )
    limits: dict[str, Any] = {"max_new_tokens": a.max_new_tokens, "stop_ids": None if a.stop_at_eos else ()}
    from litgpt_core.checkpoint import choose
    from litgpt_core.export.gguf.cached import with_gguf_imported

    if (model := with_gguf_imported(a.model)) is None:
        chosen = choose()
        print(*chosen.reasons, sep="\n", file=sys.stderr)
        model = str(chosen.found.directory)
    engine = load_engine(model, vars(a))
    if searches:
        return _search(engine, a, limits)
    for sample in range(a.num_samples):
        chunks = engine.generate_text_stream(a.prompt, sampling=sampling, seed=a.seed + sample, stop=a.stop, **limits)
        before = a.prompt  # printed with the first chunk, because decoding starts, and may fail or log, only then
        for chunk in chunks:
            print(for_stdout(before + chunk), end="", flush=True)
            before = ""
        print(for_stdout(before), flush=True)
        print(engine.stats.summary(), file=sys.stderr)
    return 0


def _search(engine: Any, a: argparse.Namespace, limits: dict[str, Any]) -> int:
    from litgpt_core.generation.searched import searched_texts

    search = {"beams": a.num_beams, "length_penalty": a.length_penalty, "results": a.num_samples}
    search |= {"contrastive_alpha": a.contrastive_alpha, "top_k": a.top_k}
    for text, note in searched_texts(engine, a.prompt, **limits, **search):
        print(for_stdout(f"{a.prompt}{text}"), flush=True)
        print(note, file=sys.stderr)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("generate", description=__doc__)
    add = parser.add_argument
    add("model", nargs="?", help=MODEL_HELP)
    add("text", nargs="?", default="", help="the prompt, where --prompt does not give it")
    add("--prompt", default="", help="text to continue; empty starts a document")
    add("--max_new_tokens", type=int, default=100, help="at most this many tokens (100)")
    add_sampling_options(parser)
    add("--seed", type=int, default=1, help="the same seed gives the same text; sample i uses seed + i (1)")
    add("--num_samples", type=int, default=1, help="number of texts (1)")
    add("--stop", action="append", default=[], help="a string that ends the text; may be repeated")
    add("--stop_at_eos", action=YesNo, default=True, help="end at the end-of-document token")
    add("--num_beams", type=int, default=1, help="above 1: beam search instead of sampling (1)")
    add("--length_penalty", type=float, default=1.0, help="of beam search: above 0 favours longer texts (1.0)")
    add("--contrastive_alpha", type=float, help="contrastive search: weight of the degeneration penalty, 0 to 1")
    add("--engine", choices=("auto", "pure"), default="auto", help="pure: plain Python, without torch (auto)")
    add_machine_options(parser)
    return parser
