"""Talk to a model: one that was trained here, or any LitGPT checkpoint directory.

python light_compute_project/scripts/chat.py                  # the newest model around here
python light_compute_project/scripts/chat.py baseline --temperature 0.7
echo "Once upon a time" | python light_compute_project/scripts/chat.py baseline

Without a prompt style in its directory a model is a base model: it only continues the text. /help lists commands.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys

from litgpt_core.core.console import run_script
from litgpt_core.generation.arguments import add_machine_options, add_sampling_options, sampling_of


def _chat(arguments: argparse.Namespace) -> int:
    from litgpt_core.generation.kernel_build import begin_build

    sampling = sampling_of(arguments)
    begin_build(device=arguments.device, compile=arguments.compile)  # beside the import of torch

    from litgpt_core.generation.chat_model import ModelLoader, choose
    from litgpt_core.generation.console_chat import ChatSettings, ConsoleChat

    settings = ChatSettings(sampling=sampling, max_new_tokens=arguments.max_new_tokens, seed=arguments.seed)
    load = ModelLoader(
        device=arguments.device, precision=arguments.precision, compile=arguments.compile, style=arguments.style
    )
    found, reasons = choose(arguments.model)
    print(*reasons, sep="\n", file=sys.stderr)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if at_terminal:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # input() edits lines and keeps a history with it
    return ConsoleChat(
        load(found),
        load=load,
        read=input,
        out=sys.stdout,
        notes=sys.stderr,
        settings=settings,
        system=arguments.system,
        decorated=at_terminal,
    ).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", nargs="?", help="run name, checkpoint directory, lit_model.pth or any path; default: the newest model")
    add_sampling_options(parser)
    add("--max_new_tokens", type=int, default=256, help="longest answer, in tokens (256)")
    add("--seed", type=int, help="makes answers repeatable; default: fresh ones")
    add("--system", help="how the assistant should behave")
    add("--style", help="prompt style, such as chatml or human_assistant; default: what the model's directory says")
    add_machine_options(parser)
    return parser


if __name__ == "__main__":
    arguments = _parser().parse_args()
    run_script(lambda: _chat(arguments))
