"""Continue a text with a trained model: all at once, as a stream, and with every setting.

python light_compute_project/examples/02_generate.py                # runs/example, from 01_train_tiny.py
python light_compute_project/examples/02_generate.py runs/baseline --prompt "def "
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=Path("runs/example"))
    parser.add_argument("--prompt", default="Human: ")
    arguments = parser.parse_args()

    from litgpt_core.generation import Engine, SamplingSettings
    from litgpt_core.generation.request import GenerationRequest

    engine = Engine.from_directory(arguments.model)

    # 1. All at once. Temperature 0 always takes the likeliest token.
    greedy = SamplingSettings(temperature=0)
    print("greedy: ", repr(engine.generate_text(arguments.prompt, max_new_tokens=40, sampling=greedy)))

    # 2. As a stream: pieces of whole characters, as soon as they are known. Equal seeds give equal texts.
    print("stream: ", end="")
    for text in engine.generate_text_stream(arguments.prompt, max_new_tokens=40, seed=1):
        print(text.replace("\n", "|"), end="", flush=True)
    print()

    # 3. With every setting: a request, and pieces that know their ids and why the text ended.
    request = GenerationRequest(
        prompt_ids=tuple(engine.encode_prompt(arguments.prompt)),
        max_new_tokens=40,
        sampling=SamplingSettings(temperature=0.7, top_p=0.9),
        seed=1,
        stop=("\n",),
    )
    pieces = list(engine.stream(request))
    print("request:", repr("".join(piece.text for piece in pieces)), "ended by", pieces[-1].finish_reason)
    print(engine.stats.summary())


if __name__ == "__main__":
    from litgpt_core.core.console import run_script

    run_script(main)  # log lines on stderr, mistakes as plain messages
