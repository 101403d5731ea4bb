"""Continue a prompt with a checkpoint of ours, without a single package:

python -m litgpt_core.pure CHECKPOINT "def " [MAX_NEW_TOKENS [SEED]]
"""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from litgpt_core.core.console import run_script
from litgpt_core.pure.generate import generate
from litgpt_core.pure.gpt import GPT
from litgpt_core.pure.sampling import Sampling
from litgpt_core.pure.vocabulary import read_vocabulary


def main() -> int:
    """Print the prompt and what the model writes, as it comes; the defaults are those of `lcp generate`."""
    if not 3 <= len(sys.argv) <= 5:
        sys.stderr.write(__doc__ or "")
        return 2
    directory, prompt = Path(sys.argv[1]), sys.argv[2]
    numbers = [int(each) for each in sys.argv[3:]] + [100, 1][len(sys.argv) - 3 :]
    vocabulary, model = read_vocabulary(directory), GPT.from_directory(directory)
    new_ids = generate(
        model,
        [*vocabulary.start, *vocabulary.encode(prompt)] or [vocabulary.eos_id],
        max_new_tokens=numbers[0],
        vocab_size=min(len(vocabulary.table), model.config.padded_vocab_size),
        how=Sampling(temperature=0.8, top_k=50),
        seed=numbers[1],
        stop_ids=(vocabulary.eos_id,),
    )
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
    sys.stdout.write(prompt)
    for token in new_ids:
        sys.stdout.write(characters.decode(vocabulary.table[token]))
        sys.stdout.flush()
    sys.stdout.write(characters.decode(b"", final=True) + "\n")
    return 0


if __name__ == "__main__":
    run_script(main)
