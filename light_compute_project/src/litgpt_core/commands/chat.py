"""Talk to a model: one that was trained here, any LitGPT checkpoint directory, or a GGUF file.

lcp chat                  # a chat model, else the most recent model
lcp chat baseline --temperature 0.7
lcp chat model.gguf       # imported once, into the user's cache
echo "Once upon a time" | lcp chat baseline

Without a prompt style in its directory a model is a base model: it only continues the text. /help lists commands.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence

from litgpt_core.core.command_line import MODEL_HELP, CommandParser
from litgpt_core.generation.arguments import add_machine_options, add_sampling_options, sampling_of


def main(arguments: Sequence[str]) -> int:
    """Parse, load, chat until the user leaves."""
    given = _parser().parse_args(arguments)
    from litgpt_core.generation.kernel_build import begin_build

    sampling = sampling_of(given)
    begin_build(device=given.device, compile=given.compile)  # concurrently with the import of torch

    from litgpt_core.checkpoint import choose
    from litgpt_core.export.gguf.cached import with_gguf_imported
    from litgpt_core.generation.chat_model import ModelLoader
    from litgpt_core.generation.console_chat import ChatSettings, ConsoleChat

    settings = ChatSettings(sampling=sampling, max_new_tokens=given.max_new_tokens, seed=given.seed)
    machine = {"device": given.device, "precision": given.precision, "compile": given.compile}
    load = ModelLoader(**machine, kv_cache=given.kv_cache, speculative=given.speculative, style=given.style)
    chosen = choose(with_gguf_imported(given.model))
    print(*chosen.reasons, sep="\n", file=sys.stderr)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if at_terminal:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # input() edits lines and keeps a history with it
    return ConsoleChat(
        load(chosen.found),
        load=load,
        read=input,
        out=sys.stdout,
        notes=sys.stderr,
        settings=settings,
        system=given.system,
        decorated=at_terminal,
    ).run()


def _parser() -> CommandParser:
    parser = CommandParser("chat", description=__doc__)
    add = parser.add_argument
    add("model", nargs="?", help=MODEL_HELP)
    add_sampling_options(parser)
    add("--max_new_tokens", type=int, default=256, help="at most this many tokens per answer (256)")
    add("--seed", type=int, help="makes answers repeatable (default: random)")
    add("--system", help="system prompt")
    add("--style", help="prompt style, such as chatml or human_assistant; default: the one of the model's directory")
    add_machine_options(parser)
    return parser
