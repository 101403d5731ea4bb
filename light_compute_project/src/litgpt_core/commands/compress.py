"""Make a smaller model of a checkpoint: integers, sparsity, low rank, fewer layers; and measure what that saved.

lcp compress runs/baseline int8                              runs/baseline-int8: every command reads it
lcp compress runs/baseline gptq_int4 --set bits=3            a recipe by name, with changed settings
lcp compress runs/baseline my_recipe.yaml --out small        steps: [{method: awq}, {method: gptq, bits: 4}]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from litgpt_core.compression.recipe import load_recipe
from litgpt_core.compression.settings import METHODS, RECIPES
from litgpt_core.core.command_line import CommandParser


def main(arguments: Sequence[str]) -> int:
    """Parse, compress, print what was made."""
    a = _parser().parse_args(arguments)
    recipe = load_recipe(a.recipe, changes=a.set)
    from litgpt_core.compression.command import compress_one  # imports torch, after mistakes have been answered

    for line in compress_one(a, recipe):
        print(line, flush=True)
    return 0


def _parser() -> CommandParser:
    listed = f"recipes: {', '.join(RECIPES)}\nmethods of steps: {', '.join(METHODS)}"
    parser = CommandParser("compress", description=f"{__doc__}\n{listed}")
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint directory or run folder")
    add("recipe", help="name of a recipe, or a YAML file with steps")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the recipe's steps to change")
    add("--out", type=Path, help="directory to make; default: NAME-RECIPE in the folder of the run")
    add("--force", action="store_true", help="replace what is at --out")
    add("--calibration_tokens", type=int, default=16_384, help="tokens of text that calibrated methods read (16384)")
    add("--domain", action="append", default=[], metavar="NAME=FILE", help="text to calibrate and measure with")
    add("--with_dequantized", action="store_true", help="also write lit_model.pth, which LitGPT reads")
    return parser
