"""The models that come with the project: parameters, memory, FLOP per token, measured results, what trains them.

lcp models list
lcp models show baseline
"""

from __future__ import annotations

from collections.abc import Sequence

from litgpt_core.core.command_line import CommandParser
from litgpt_core.core.errors import ConfigError


def main(arguments: Sequence[str]) -> int:
    """Parse, list or show."""
    parser = CommandParser("models", description=__doc__)
    parser.add_argument(
        "verb", nargs="?", choices=("list", "show"), default="list", help="list (default), or show NAME"
    )
    parser.add_argument("name", nargs="?", help="file of configs/model without its ending")
    parser.add_argument(
        "--vocab_size", type=int, metavar="N", help="tokens to count with (the model file's own number)"
    )
    given = parser.parse_args(arguments)
    from rich.console import Console

    from litgpt_core.planning.zoo import find, page, table, zoo

    console = Console()
    if given.verb == "list":
        drawn = table(zoo(given.vocab_size))
        console.width = max(console.width, console.measure(drawn, options=console.options.update(width=2000)).maximum)
        console.print(drawn)
        return 0
    if given.name is None:
        raise ConfigError("lcp models show: no name was given", fix="lcp models show baseline")
    for line in page(find(given.name, given.vocab_size)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0
