"""What runs inside an exported .py file: the command line around `litgpt_core.pure`.

python model.py "def " --max_new_tokens 100 --temperature 0.8 --top_k 50 --seed 1
"""

from __future__ import annotations

import argparse
import base64
import codecs
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from litgpt_core.core.errors import LightComputeError
from litgpt_core.pure.generate import generate
from litgpt_core.pure.gpt import GPT
from litgpt_core.pure.sampling import Sampling
from litgpt_core.pure.vocabulary import Vocabulary, read_vocabulary


def load(files: Mapping[str, str]) -> tuple[GPT, Vocabulary]:
    """Model and tokenizer from the files of a checkpoint directory, in base 85."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, text in files.items():
            (folder / name).write_bytes(base64.b85decode("".join(text.split())))
        return GPT.from_directory(folder), read_vocabulary(folder)


def main(files: Mapping[str, str], arguments: Sequence[str] | None = None) -> int:
    """Print a prompt and what the model writes, token by token."""
    parser = argparse.ArgumentParser(description="Continue a prompt. Equal seeds give equal texts.")
    parser.add_argument("prompt", nargs="?", default="", help="text to continue; empty starts a document")
    parser.add_argument("--max_new_tokens", type=int, default=100, help="at most this many tokens (100)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the most probable token (0.8)")
    parser.add_argument("--top_k", type=int, default=50, help="only the most probable tokens (50; 0: all)")
    parser.add_argument("--top_p", type=float, default=1.0, help="only the most probable tokens that sum to it (1)")
    parser.add_argument("--seed", type=int, help="makes the text repeatable")
    given = parser.parse_args(arguments)
    try:
        model, vocabulary = load(files)
        ids = generate(
            model,
            [*vocabulary.start, *vocabulary.encode(given.prompt)] or [vocabulary.eos_id],
            max_new_tokens=given.max_new_tokens,
            vocab_size=min(len(vocabulary.table), model.config.padded_vocab_size),
            how=Sampling(temperature=given.temperature, top_k=given.top_k or None, top_p=given.top_p),
            seed=given.seed,
            stop_ids=(vocabulary.eos_id,),
        )
        characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        sys.stdout.write(given.prompt)
        for token in ids:
            sys.stdout.write(characters.decode(vocabulary.table[token]))
            sys.stdout.flush()
        sys.stdout.write(characters.decode(b"", final=True) + "\n")
    except LightComputeError as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    return 0
