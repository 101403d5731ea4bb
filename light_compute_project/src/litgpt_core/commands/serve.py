"""Serve a model over HTTP: a chat page, and OpenAI's API.

lcp serve                      a chat model, else the most recent model
lcp serve runs/baseline --port 8000
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.core.command_line import MODEL_HELP, CommandParser
from litgpt_core.generation.arguments import add_machine_options, add_sampling_options, sampling_of
from litgpt_core.serving.api_key import KEY_VARIABLE, chosen_key
from litgpt_core.serving.settings import ServerSettings


def main(arguments: Sequence[str]) -> int:
    """Parse, check, serve until stopped."""
    a = _parser().parse_args(arguments)
    settings = ServerSettings(
        host=a.host,
        port=a.port,
        api_key=chosen_key(a.api_key, a.api_key_file, os.environ.get(KEY_VARIABLE)),
        open_to_all=a.open_to_all,
        cors_origins=tuple(a.cors_origin),
        hosts=tuple(a.hostname),
        slots=a.slots,
        queue=a.queue,
        timeout_s=a.timeout,
        max_tokens=a.max_tokens,
        default_tokens=min(a.max_new_tokens, a.max_tokens),
        sampling=sampling_of(a),
        chat_log=None if a.no_chat_log else a.chat_log,
        runs=None if a.no_runs else a.runs,
        log_file=a.log_file,
        **{name: getattr(a, name) for name in ("device", "precision", "compile", "kv_cache", "speculative")},
    )
    from litgpt_core.export.gguf.cached import with_gguf_imported
    from litgpt_core.generation.kernel_build import begin_build

    begin_build(device=a.device, compile=a.compile)

    from litgpt_core.serving.server import serve  # torch comes with it, after --help has been answered

    serve(settings, model=with_gguf_imported(a.model))
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("serve", description=__doc__)
    add = parser.add_argument
    add("model", nargs="?", help=MODEL_HELP)
    add("--host", default="127.0.0.1", help="address to listen on; others than this machine's own need a key")
    add("--port", type=int, default=8000, help="port, 0 for any free one (8000)")
    add("--api_key_file", type=Path, help=f"file with the key that clients must send (default: {KEY_VARIABLE})")
    add("--api_key", help="the key itself; other users of this machine can see it in the list of processes")
    add("--open_to_all", action="store_true", help="listen on a public address without a key")
    add("--cors_origin", action="append", default=[], help="a site whose pages may send requests; may be repeated")
    add("--hostname", action="append", default=[], help="a host name of this server; may be repeated")
    add("--slots", type=int, default=32, help="requests decoded at the same time (32)")
    add("--queue", type=int, default=64, help="requests that may wait; further ones get status 429 (64)")
    add("--timeout", type=float, default=120.0, help="seconds a request may take (120)")
    add("--max_tokens", type=int, default=1024, help="largest number of new tokens of a request (1024)")
    add("--max_new_tokens", type=int, default=256, help="new tokens if a request does not set them (256)")
    add(
        "--chat_log", type=Path, default=Path("chat_history.jsonl"), help="file for finished chats (chat_history.jsonl)"
    )
    add("--no_chat_log", action="store_true", help="save no chats")
    add("--runs", type=Path, default=Path("runs"), help="folder of the trainings that the page shows (runs)")
    add("--no_runs", action="store_true", help="show no trainings")
    add("--log_file", type=Path, default=Path("logs/serve.log"), help="log of the server (logs/serve.log)")
    defaults = parser.add_argument_group("defaults for requests")
    add_sampling_options(defaults)
    add_machine_options(parser)
    return parser
