"""Continue a text with a trained model: all at once, as a stream, and with a full request.

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

    # 1. All at once. Temperature 0 is greedy decoding.
    greedy = SamplingSettings(temperature=0)
    print("greedy: ", repr(engine.generate_text(arguments.prompt, max_new_tokens=40, sampling=greedy)))

    # 2. As a stream of whole characters. Equal seeds give equal texts.
    print("stream: ", end="")
    for text in engine.generate_text_stream(arguments.prompt, max_new_tokens=40, seed=1):
        print(text.replace("\n", "|"), end="", flush=True)
    print()

    # 3. With a full request; the deltas contain token ids and the finish reason.
    request = GenerationRequest(
        prompt_ids=tuple(engine.encode_prompt(arguments.prompt)),
        max_new_tokens=40,
        sampling=SamplingSettings(temperature=0.7, top_p=0.9),
        seed=1,
        stop=("\n",),
    )
    deltas = list(engine.stream(request))
    print("request:", repr("".join(delta.text for delta in deltas)), "ended by", deltas[-1].finish_reason)
    print(engine.stats.summary())


if __name__ == "__main__":
    from litgpt_core.core.console import run_script

    run_script(main)  # log lines on stderr, errors as plain messages
