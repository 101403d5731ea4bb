"""Train a tiny character model in seconds, on a text file of yours or on little conversations made up here.

python light_compute_project/examples/01_train_tiny.py              # makes its own text
python light_compute_project/examples/01_train_tiny.py my_text.txt

It leaves runs/example/, which 02_generate.py and 03_chat_loop.py use.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

FACTS = {
    "What is the capital of France?": "Paris.",
    "What is the capital of Italy?": "Rome.",
    "What colour is the sky?": "Blue.",
    "How many legs has a cat?": "Four.",
    "What is two and two?": "Four.",
    "Who are you?": "A very small model.",
}


def conversations(path: Path, *, n: int = 1500) -> Path:
    """Write questions and answers, as the prompt style `human_assistant` has them, in random order."""
    rng = random.Random(0)
    pairs = (rng.choice(list(FACTS.items())) for _ in range(n))
    path.write_text(
        "".join(f"Human: {question}\nAssistant: {answer}\n" for question, answer in pairs), encoding="utf-8"
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", type=Path, help="a text file; default: made up")
    given = parser.parse_args().text
    text = given or conversations(Path("example_conversations.txt"))

    from litgpt_core.prompts import save_style, style_named
    from litgpt_core.training.start import train

    # The same overrides as on train.py's command line: one option of each group, then single settings.
    overrides = [
        "data=text",
        f"data.path={text}",
        f"data.cache_dir={Path('data').resolve()}",
        "data.split=tail",  # the end of the file is held out for validation
        "tokenizer=char",
        "model=tiny",
        "model.block_size=128",
        "optim.lr=6e-3",
        "trainer.max_steps=120",
        "trainer.global_batch_size=16",
        "trainer.compile=false",
        "logger=none",
        "run.name=example",
        "run.resume=auto",  # a second call goes on with the run, or finds it finished
    ]
    result = train(overrides, command="01_train_tiny.py")

    if given is None:  # the model has read conversations: say so, and chat.py treats it as a chat model
        save_style(result.folder.path / "final", style_named("human_assistant"))
    loss = result.summary["final"]["val_loss"]
    print(f"Trained on {text}: validation loss {loss:.2f} nats per character. The model is in {result.folder.path}.")


if __name__ == "__main__":
    from litgpt_core.core.console import run_script

    run_script(main)  # log lines on stderr, mistakes as plain messages
