"""The folder that `lcp init` writes: an experiment that inherits from a shipped one, a text, a page of commands."""

from __future__ import annotations

import json
from pathlib import Path

from litgpt_core.core.errors import ConfigError

_EXPERIMENT = """\
# @package _global_
# An experiment of your own: lcp train +experiment=first
# It inherits every setting of the shipped experiment `smoke` and changes some of them.
defaults:
  - smoke
  - _self_
  - override /data: text

run:
  name: first             # runs/first

data:
  path: {path}
  glob: "**/*"            # which files of a folder

trainer:
  max_steps: 300
  sample_prompts: ["two plus "]
"""

_PAGE = """\
# A first experiment

`configs/experiment/first.yaml` says what is trained. Run these commands in this folder:

```bash
lcp train +experiment=first
lcp generate runs/first --prompt "two plus "
lcp train +experiment=first run.name=wider model.n_embd=128 optim.lr=3e-3
```

`lcp train --help` lists every group and option, `lcp --help` every command. Prepared data goes to `data/`, results to
`runs/`.
"""

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def write_starter(folder: Path, *, text: Path | None = None) -> list[Path]:
    """Write the starting point; the files that were written.

    Args:
        folder: Is made; one that exists must be empty.
        text: The user's own text; None: a small made-up one is written.

    Raises:
        ConfigError: The folder holds something, or the text does not exist.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty", needed="a new or empty folder", fix=f"lcp init {folder}-2")
    if text is not None and not text.exists():
        raise ConfigError(f"--text {text} does not exist", needed="a text file, or a folder of text files")
    path = "texts" if text is None else str(text.resolve())
    files = {
        "README.md": _PAGE,
        "configs/experiment/first.yaml": _EXPERIMENT.format(path=json.dumps(path, ensure_ascii=False)),
    }
    if text is None:
        files["texts/sums.txt"] = sums()
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return [folder / name for name in files]


def sums(limit: int = 50) -> str:
    """A text to learn from: every sum of two numbers below `limit` in words, a line each, in a mixed order."""
    pairs = [(a, b) for a in range(limit) for b in range(limit)]
    step = 1009  # a prime that divides no square below it: the walk meets every pair once
    order = (pairs[place * step % len(pairs)] for place in range(len(pairs)))
    return "".join(f"{in_words(a)} plus {in_words(b)} is {in_words(a + b)}\n" for a, b in order)


def in_words(number: int) -> str:
    """A number from 0 to 99: `forty-two`."""
    if number < len(_NUMBERS):
        return _NUMBERS[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_NUMBERS[ones]}" if ones else "")
