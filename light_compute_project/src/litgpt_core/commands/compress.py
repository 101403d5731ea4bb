"""Make a smaller model of a checkpoint: integers, sparsity, low rank, fewer layers; and measure what that saved.

lcp compress runs/baseline int8                              runs/baseline-int8: every command reads it
lcp compress runs/baseline gptq_int4 --set bits=3            a recipe by name, with changed settings
lcp compress runs/baseline my_recipe.yaml --out small        steps: [{method: awq}, {method: gptq, bits: 4}]
lcp compress runs/baseline --compare int8,int4,gptq_int4     several, and one table
lcp compress runs/baseline int4 --require file,speed         exit code 4 if either was not saved
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.compression.named_recipes import RECIPES
from litgpt_core.compression.recipe import load_recipe
from litgpt_core.compression.settings import METHODS
from litgpt_core.compression.verdict import AXES
from litgpt_core.core.command_line import MODEL_HELP, CommandParser, YesNo, command_for_record
from litgpt_core.core.errors import ConfigError


def main(arguments: Sequence[str]) -> int:
    """Parse, compress, print what was made and measured."""
    a = _parser().parse_args(arguments)
    names = [name for name in a.compare.split(",") if name] if a.compare else [a.recipe]
    if bool(a.compare) == bool(a.recipe) or (a.compare and a.out):
        raise ConfigError(
            "Give a recipe, or several with --compare (without --out).",
            needed="one of " + ", ".join(RECIPES),
            fix="lcp compress RUN int4",
        )
    a.require = [axis for axis in a.require.split(",") if axis]
    if unknown := set(a.require) - set(AXES):
        raise ConfigError(f"--require {','.join(sorted(unknown))}", needed=f"any of {', '.join(AXES)}")
    if a.require and not a.report:
        raise ConfigError("--require with --no_report", needed="the report, which measures what is required")
    recipes = [load_recipe(name, changes=a.set) for name in names]
    from litgpt_core.compression.command import run  # imports torch, after mistakes have been answered
    from litgpt_core.export.gguf.cached import with_gguf_imported

    a.model = with_gguf_imported(a.model)
    for line in run(a, recipes, command=command_for_record("compress", arguments)):
        print(line, flush=True)
    return 0


def _parser() -> CommandParser:
    listed = f"recipes: {', '.join(RECIPES)}\nmethods of steps: {', '.join(METHODS)}"
    parser = CommandParser("compress", description=f"{__doc__}\n{listed}")
    add = parser.add_argument
    add("model", help=MODEL_HELP.partition(";")[0])
    add("recipe", nargs="?", help="name of a recipe, or a YAML file with steps")
    add("--compare", metavar="A,B,C", help="several recipes, and one report")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the recipe's steps to change",
    )
    add("--out", type=Path, help="directory to make; default: NAME-RECIPE in the folder of the run")
    add("--force", action="store_true", help="replace what is at --out")
    add("--calibration_tokens", type=int, default=16_384, help="tokens of text that calibrated methods read (16384)")
    add("--domain", action="append", default=[], metavar="NAME=FILE", help="text to calibrate and measure with")
    add("--with_dequantized", action="store_true", help="also write lit_model.pth, which LitGPT reads")
    add("--report", action=YesNo, default=True, help="measure size, memory, speed and quality")
    add("--tokens", type=int, default=8192, help="tokens of each domain that quality is measured on (8192)")
    add("--rounds", type=int, default=5, help="trials of speed and memory, 0 for none (5)")
    add(
        "--kv_cache",
        action="store_true",
        help="report what a KV cache of 8 or 4 bits costs, too (generate --kv_cache int8)",
    )
    add("--require", default="", metavar="AXES", help=f"exit code 4 unless saved: {','.join(AXES)}")
    return parser
